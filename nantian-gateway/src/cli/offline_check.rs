//! The translator's verdict on manifests of which some may be elsewhere.

use std::{collections::BTreeSet, sync::Arc};

use gateway_api::experimental::{
    gatewayclasses::{GatewayClass, GatewayClassSpec},
    gateways::{
        Gateway, GatewayListeners, GatewayListenersAllowedRoutes, GatewayListenersAllowedRoutesNamespaces,
        GatewayListenersAllowedRoutesNamespacesFrom, GatewayListenersTls, GatewayListenersTlsMode,
        GatewaySpec,
    },
    grpcroutes::GrpcRouteParentRefs,
    httproutes::HttpRouteParentRefs,
    tcproutes::TcpRouteParentRefs,
    tlsroutes::TlsRouteParentRefs,
    udproutes::UdpRouteParentRefs,
};

use crate::{
    gates::FeatureGates,
    ir::{ObjectName, RouteKind},
    pattern::Patterns,
    source::{Cause, ObjectRef, Objects, Refusal, refusals},
    tenancy::Tenancy,
    translate::{
        Environment, Locality, Warning, conditions::Reason, status::ObjectStatus, translate, translate_at,
    },
};

/// What the translator refuses of `objects`, with stand-ins for the Gateways and classes that are not among
/// them, and what it warns of.
pub(super) fn check(objects: &Objects) -> (Vec<Refusal>, Vec<Warning>) {
    let objects = with_classes(objects.clone());
    // Where the gateway will run is no business of the manifests.
    let here = Locality { zone: "any".to_owned(), node: "any".to_owned() };
    let environment = Environment { here: &here, identities: None, tenancy: Tenancy::Single };
    let translation = translate_at(&objects, FeatureGates::all(), &Patterns::default(), environment);
    let mut found = refusals(&translation);
    let is_unchecked = |object: &ObjectRef| match translation.statuses.get(object) {
        Some(ObjectStatus::Route(status)) => status.parents.is_empty(),
        _ => true,
    };
    let http = objects.http_routes.keys().map(|name| object(RouteKind::Http, name));
    let grpc = objects.grpc_routes.keys().map(|name| object(RouteKind::Grpc, name));
    let tls = objects.tls_routes.keys().map(|name| object(RouteKind::Tls, name));
    let tcp = objects.tcp_routes.keys().map(|name| object(RouteKind::Tcp, name));
    let udp = objects.udp_routes.keys().map(|name| object(RouteKind::Udp, name));
    let all = http.chain(grpc).chain(tls).chain(tcp).chain(udp);
    let unchecked: BTreeSet<_> = all.filter(is_unchecked).collect();
    if !unchecked.is_empty() {
        let attached = translate(&with_placeholder(objects.clone(), &unchecked), FeatureGates::all());
        found.extend(refusals(&attached).into_iter().filter(|refusal| unchecked.contains(&refusal.object)));
    }
    found.iter_mut().for_each(|refusal| mark_unverifiable(refusal, &objects));
    // Parents may be in other files, of which nothing is known here.
    let is_of_files = |warning: &Warning| {
        let is_of_parent = warning.message.starts_with("spec.parentRef");
        !(is_of_parent && warning.message.ends_with("does not exist, or is not valid"))
    };
    (found, translation.warnings.into_iter().filter(is_of_files).collect())
}

fn object(kind: RouteKind, name: &ObjectName) -> ObjectRef {
    ObjectRef { kind: kind.as_str(), name: name.clone() }
}

/// A listener may select namespaces by labels that are in no file.
fn mark_unverifiable(refusal: &mut Refusal, objects: &Objects) {
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
            let controller_name = objects.controller.to_string();
            let spec = GatewayClassSpec { controller_name, ..Default::default() };
            Arc::new(GatewayClass::new(name, spec))
        };
        objects.gateway_classes.entry(ObjectName::new("", name.as_str())).or_insert_with(class);
    }
    objects
}

/// Attaches `routes`, whose Gateways are elsewhere, to a Gateway that takes every route.
fn with_placeholder(mut objects: Objects, routes: &BTreeSet<ObjectRef>) -> Objects {
    let name = ObjectName::new("default", "placeholder");
    let gateway = Gateway::new(
        &name.name,
        GatewaySpec {
            gateway_class_name: name.name.clone(),
            listeners: ["HTTP", "TLS", "TCP", "UDP"].map(open_listener).into(),
            ..Default::default()
        },
    );
    objects.gateways = [(name.clone(), Arc::new(gateway))].into();
    let (parent, namespace) = (name.name, Some(name.namespace));
    macro_rules! attach {
        ($($field:ident: $kind:ident, $reference:ident);+) => {$(
            for (route, written) in &mut objects.$field {
                if routes.contains(&object(RouteKind::$kind, route)) {
                    let name = parent.clone();
                    let parent = $reference { name, namespace: namespace.clone(), ..Default::default() };
                    Arc::make_mut(written).spec.parent_refs = Some(vec![parent]);
                }
            }
        )+};
    }
    attach! {
        http_routes: Http, HttpRouteParentRefs;
        grpc_routes: Grpc, GrpcRouteParentRefs;
        tls_routes: Tls, TlsRouteParentRefs;
        tcp_routes: Tcp, TcpRouteParentRefs;
        udp_routes: Udp, UdpRouteParentRefs
    }
    with_classes(objects)
}

/// A listener that takes every route of its protocol.
fn open_listener(protocol: &str) -> GatewayListeners {
    let namespaces = GatewayListenersAllowedRoutesNamespaces {
        from: Some(GatewayListenersAllowedRoutesNamespacesFrom::All),
        ..Default::default()
    };
    let passthrough =
        || GatewayListenersTls { mode: Some(GatewayListenersTlsMode::Passthrough), ..Default::default() };
    GatewayListeners {
        name: protocol.to_ascii_lowercase(),
        port: match protocol {
            "HTTP" => 80,
            "TLS" => 443,
            _ => 53,
        },
        protocol: protocol.to_owned(),
        tls: (protocol == "TLS").then(passthrough),
        allowed_routes: Some(GatewayListenersAllowedRoutes {
            namespaces: Some(namespaces),
            ..Default::default()
        }),
        ..Default::default()
    }
}
