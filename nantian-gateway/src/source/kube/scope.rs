//! Where a cluster is looked at.

use std::fmt;

use kube::{Api, Client, Resource, api::ApiResource};

use crate::source::{
    envelope::{NOT_A_LABEL, is_label},
    kind::Kind,
    objects::ObjectRef,
};

/// The namespaces whose objects are followed; what has no namespace is followed in any case.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// All where it is empty.
    namespaces: Vec<String>,
    /// Where the replicas of the gateway are found besides.
    own: Option<String>,
}

/// A kind, everywhere or in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) namespace: Option<String>,
}

// === impl Scope ===

impl Scope {
    /// These namespaces, or all if there are none.
    pub fn of(namespaces: impl IntoIterator<Item = String>) -> Self {
        Self { namespaces: namespaces.into_iter().collect(), own: None }
    }

    /// Reads names of namespaces with commas between them, or nothing.
    ///
    /// # Errors
    /// When no namespace can have one of them.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let names = text.split(',').filter(|_| !text.is_empty());
        let namespace = |name: &str| match is_label(name) {
            true => Ok(name.to_owned()),
            false => Err(format!("{name:?} {NOT_A_LABEL}")),
        };
        Ok(Self::of(names.map(namespace).collect::<Result<Vec<_>, _>>()?))
    }

    /// Also the Services and EndpointSlices in the namespace of the gateway itself.
    #[must_use]
    pub fn with_own(mut self, namespace: &str) -> Self {
        self.own = Some(namespace.to_owned());
        self
    }

    /// Whether it is all namespaces.
    pub(crate) fn has_all(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Whether the Services of a namespace are followed.
    pub(crate) fn has_services_of(&self, namespace: &str) -> bool {
        let is_it = |followed: &String| followed == namespace;
        self.parts(Kind::Service).iter().any(|part| part.namespace.as_ref().is_none_or(is_it))
    }

    /// What of a kind is followed.
    pub(super) fn parts(&self, kind: Kind) -> Vec<Part> {
        if !kind.info().is_namespaced || self.has_all() {
            return vec![Part { kind, namespace: None }];
        }
        let has_own = matches!(kind, Kind::Service | Kind::EndpointSlice);
        let own = self.own.iter().filter(|own| has_own && !self.namespaces.contains(own));
        let namespaces = self.namespaces.iter().chain(own);
        namespaces.map(|namespace| Part { kind, namespace: Some(namespace.clone()) }).collect()
    }
}

// === impl Part ===

impl Part {
    /// Whether an object is one of the part.
    pub(super) fn has(&self, name: &ObjectRef) -> bool {
        let is_there = |namespace: &String| *namespace == *name.name.namespace;
        name.kind == self.kind.info().name && self.namespace.as_ref().is_none_or(is_there)
    }

    /// The objects of the part, in the version of `resource`.
    pub(super) fn api<K>(&self, client: &Client, resource: &ApiResource) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = kube::core::DynamicResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.info().name)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_namespace_is_followed_in_those_that_are_named_alone() {
        let shown = |scope: &Scope, kind| {
            let parts = scope.parts(kind);
            parts.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let all = Scope::default().with_own("system");
        assert_eq!(shown(&all, Kind::Service), ["Service"]);
        let some = Scope::of(["a".to_owned(), "b".to_owned()]).with_own("system");
        assert_eq!(shown(&some, Kind::Secret), ["Secret in a", "Secret in b"]);
        assert_eq!(shown(&some, Kind::GatewayClass), ["GatewayClass"]);
        assert_eq!(shown(&some, Kind::Service), ["Service in a", "Service in b", "Service in system"]);
        let has = |namespace: &str| some.has_services_of(namespace);
        assert_eq!(["a", "system", "other"].map(has), [true, true, false]);
        assert!(all.has_services_of("other"));
        assert_eq!(shown(&some.with_own("b"), Kind::EndpointSlice).len(), 2);
    }
}
