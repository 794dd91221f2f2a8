//! ReferenceGrants: who may refer into another namespace.

use std::{collections::HashSet, fmt};

use gateway_api::experimental::referencegrants::ReferenceGrant;

use super::{
    conditions::Reason,
    fault::{Fault, Path},
    status::ParentReference,
};
use crate::{ir::RouteKind, source::ByName};

/// A group and a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct GroupKind<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
}

/// All grants, one entry for each pair of `from` and `to`.
pub(super) struct Grants<'a> {
    permitted: HashSet<Permit<'a>>,
}

/// One permitted reference; `name` is absent where every object of the kind may be referred to, and no object
/// has an empty one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Permit<'a> {
    from: GroupKind<'a>,
    from_namespace: &'a str,
    to: GroupKind<'a>,
    to_namespace: &'a str,
    name: Option<&'a str>,
}

// === impl GroupKind ===

impl<'a> GroupKind<'a> {
    pub(super) const BACKEND_LB_POLICY: Self = Self::new("gateway.networking.k8s.io", "BackendLBPolicy");
    pub(super) const BACKEND_TLS_POLICY: Self = Self::new("gateway.networking.k8s.io", "BackendTLSPolicy");
    pub(super) const CONFIG_MAP: Self = Self::new("", "ConfigMap");
    pub(super) const AI_SERVICE: Self = Self::new("gateway.nantian.dev", "AIService");
    pub(super) const GATEWAY: Self = Self::new("gateway.networking.k8s.io", "Gateway");
    pub(super) const GRPC_ROUTE: Self = Self::new("gateway.networking.k8s.io", "GRPCRoute");
    pub(super) const HTTP_ROUTE: Self = Self::new("gateway.networking.k8s.io", "HTTPRoute");
    pub(super) const LISTENER_SET: Self = Self::new("gateway.networking.k8s.io", "ListenerSet");
    pub(super) const SECRET: Self = Self::new("", "Secret");
    pub(super) const SERVICE: Self = Self::new("", "Service");
    pub(super) const TOKEN_POLICY: Self = Self::new("gateway.nantian.dev", "TokenPolicy");
    pub(super) const WASM_PLUGIN: Self = Self::new("gateway.nantian.dev", "WasmPlugin");

    /// The kind of a route.
    pub(super) const fn of_route(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Http => Self::HTTP_ROUTE,
            RouteKind::Grpc => Self::GRPC_ROUTE,
            RouteKind::Tls | RouteKind::Tcp | RouteKind::Udp => Self::new(Self::GATEWAY.group, kind.as_str()),
        }
    }

    pub(super) const fn new(group: &'a str, kind: &'a str) -> Self {
        Self { group, kind }
    }

    /// A reference in a status to an object of the kind.
    pub(super) fn refer(self, namespace: &str, name: &str) -> ParentReference {
        ParentReference {
            group: Some(self.group.to_owned()),
            kind: Some(self.kind.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
            ..ParentReference::default()
        }
    }
}

impl fmt::Display for GroupKind<'_> {
    /// `kind`, or `kind.group` as kubectl writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.kind),
            group => write!(f, "{}.{group}", self.kind),
        }
    }
}

// === impl Grants ===

impl<'a> Grants<'a> {
    pub(super) fn new(grants: &'a ByName<ReferenceGrant>) -> Self {
        let permitted = grants.iter().flat_map(|(name, grant)| {
            let spec = &grant.spec;
            spec.from.iter().flat_map(move |from| {
                spec.to.iter().map(move |to| Permit {
                    from: GroupKind::new(&from.group, &from.kind),
                    from_namespace: &from.namespace,
                    to: GroupKind::new(&to.group, &to.kind),
                    to_namespace: &name.namespace,
                    name: to.name.as_deref(),
                })
            })
        });
        Self { permitted: permitted.collect() }
    }

    /// What of the kind `to` objects of the kind `from` may refer to in other namespaces: namespace and name,
    /// which is absent for all.
    pub(super) fn of(
        &self,
        (from, from_namespace): (GroupKind<'_>, &str),
        to: GroupKind<'_>,
    ) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let is_of = move |permit: &&Permit<'_>| {
            (permit.from, permit.from_namespace, permit.to) == (from, from_namespace, to)
        };
        self.permitted.iter().filter(is_of).map(|permit| (permit.to_namespace, permit.name))
    }

    /// Whether objects of the kind `from` in `from_namespace` may refer to `name` in `to_namespace`.
    ///
    /// A reference within one namespace needs no grant.
    pub(super) fn permit(
        &self,
        (from, from_namespace): (GroupKind<'_>, &str),
        (to, to_namespace, name): (GroupKind<'_>, &str, &str),
    ) -> bool {
        let permit = Permit { from, from_namespace, to, to_namespace, name: None };
        from_namespace == to_namespace
            || self.permitted.contains(&permit)
            || self.permitted.contains(&Permit { name: Some(name), ..permit })
    }

    /// The same of what the field at `path` refers to.
    ///
    /// # Errors
    /// A [`Fault`] that says what has no grant.
    pub(super) fn check(
        &self,
        from: (GroupKind<'_>, &str),
        to: (GroupKind<'_>, &str, &str),
        path: &Path<'_>,
    ) -> Result<(), Fault> {
        if self.permit(from, to) {
            return Ok(());
        }
        let ((from, own), (to, namespace, name)) = (from, to);
        let (from, to) = (from.kind, to.kind);
        let message = format_args!(
            "no ReferenceGrant in {namespace} permits {from}s of {own} to use {to} {namespace}/{name}"
        );
        Err(Fault::at(Reason::RefNotPermitted, path, message).absent())
    }
}
