//! The translator's verdict on manifests of which some may be elsewhere.

use std::{collections::BTreeSet, sync::Arc};

use gateway_api::experimental::{
    gatewayclasses::{GatewayClass, GatewayClassSpec},
    gateways::{
        Gateway, GatewayListeners, GatewayListenersAllowedRoutes, GatewayListenersAllowedRoutesNamespaces,
        GatewayListenersAllowedRoutesNamespacesFrom, GatewaySpec,
    },
    grpcroutes::GrpcRouteParentRefs,
    httproutes::HttpRouteParentRefs,
};

use crate::{
    gates::FeatureGates,
    ir::{ObjectName, RouteKind},
    source::{Cause, ObjectRef, Objects, Refusal, refusals},
    translate::{
        conditions::Reason,
        status::{CONTROLLER_NAME, ObjectStatus},
        translate,
    },
};

/// What the translator refuses of `objects`, with stand-ins for the Gateways and classes that are not among them.
pub(super) fn judge(objects: &Objects) -> Vec<Refusal> {
    let objects = with_classes(objects.clone());
    let translation = translate(&objects, FeatureGates::all());
    let mut found = refusals(&translation);
    let is_unjudged = |object: &ObjectRef| match translation.statuses.get(object) {
        Some(ObjectStatus::Route(status)) => status.parents.is_empty(),
        _ => true,
    };
    let http = objects.http_routes.keys().map(|name| object(RouteKind::Http, name));
    let grpc = objects.grpc_routes.keys().map(|name| object(RouteKind::Grpc, name));
    let unjudged: BTreeSet<_> = http.chain(grpc).filter(is_unjudged).collect();
    if !unjudged.is_empty() {
        let attached = translate(&with_stand_in(objects.clone(), &unjudged), FeatureGates::all());
        found.extend(refusals(&attached).into_iter().filter(|refusal| unjudged.contains(&refusal.object)));
    }
    found.iter_mut().for_each(|refusal| excuse(refusal, &objects));
    found
}

fn object(kind: RouteKind, name: &ObjectName) -> ObjectRef {
    ObjectRef { kind: kind.as_str(), name: name.clone() }
}

/// A listener may select namespaces by labels that are in no file.
fn excuse(refusal: &mut Refusal, objects: &Objects) {
    let namespace = ObjectName::new("", refusal.object.name.namespace.as_str());
    if refusal.code == Reason::NotAllowedByListeners && !objects.namespaces.contains_key(&namespace) {
        refusal.cause = Cause::Absence;
    }
}

/// Adds every GatewayClass that a Gateway names and no file has, as one of ours.
fn with_classes(mut objects: Objects) -> Objects {
    for gateway in objects.gateways.values() {
        let name = &gateway.spec.gateway_class_name;
        let class = || {
            let spec = GatewayClassSpec { controller_name: CONTROLLER_NAME.to_owned(), ..Default::default() };
            Arc::new(GatewayClass::new(name, spec))
        };
        objects.gateway_classes.entry(ObjectName::new("", name.as_str())).or_insert_with(class);
    }
    objects
}

/// Attaches `routes`, whose Gateways are elsewhere, to a Gateway that takes every route.
fn with_stand_in(mut objects: Objects, routes: &BTreeSet<ObjectRef>) -> Objects {
    let name = ObjectName::new("default", "stand-in");
    let gateway = Gateway::new(
        &name.name,
        GatewaySpec {
            gateway_class_name: name.name.clone(),
            listeners: vec![open_listener()],
            ..Default::default()
        },
    );
    objects.gateways = [(name.clone(), Arc::new(gateway))].into();
    let (parent, namespace) = (name.name, Some(name.namespace));
    for (route, written) in &mut objects.http_routes {
        if routes.contains(&object(RouteKind::Http, route)) {
            let parent = HttpRouteParentRefs {
                name: parent.clone(),
                namespace: namespace.clone(),
                ..Default::default()
            };
            Arc::make_mut(written).spec.parent_refs = Some(vec![parent]);
        }
    }
    for (route, written) in &mut objects.grpc_routes {
        if routes.contains(&object(RouteKind::Grpc, route)) {
            let parent = GrpcRouteParentRefs {
                name: parent.clone(),
                namespace: namespace.clone(),
                ..Default::default()
            };
            Arc::make_mut(written).spec.parent_refs = Some(vec![parent]);
        }
    }
    with_classes(objects)
}

fn open_listener() -> GatewayListeners {
    let namespaces = GatewayListenersAllowedRoutesNamespaces {
        from: Some(GatewayListenersAllowedRoutesNamespacesFrom::All),
        ..Default::default()
    };
    GatewayListeners {
        name: "http".to_owned(),
        port: 80,
        protocol: "HTTP".to_owned(),
        allowed_routes: Some(GatewayListenersAllowedRoutes {
            namespaces: Some(namespaces),
            ..Default::default()
        }),
        ..Default::default()
    }
}
