//! What every part of the translation looks things up in.

use std::{borrow::Cow, cmp::Ordering, collections::HashMap};

use k8s_openapi::api::{core::v1::Secret, discovery::v1::EndpointSlice};
use kube::Resource;

use super::{
    Environment,
    grants::Grants,
    locality::{Locality, locate},
    status::{ObjectStatus, Statuses},
};
use crate::{
    gates::{Feature, FeatureGates},
    ir::ObjectName,
    pattern::{Patterns, Shares},
    policy::OwnIdentities,
    source::{ByName, ObjectRef, Objects},
    tenancy::Tenancy,
};

/// The objects, and indexes over them.
pub(super) struct ClusterState<'a> {
    pub(super) objects: &'a Objects,
    pub(super) gates: FeatureGates,
    pub(super) grants: Grants<'a>,
    pub(super) patterns: Shares<'a>,
    /// Where this gateway runs.
    pub(super) here: Cow<'a, Locality>,
    /// Who it is there, if that is known.
    pub(super) identities: Option<&'a OwnIdentities>,
    pub(super) tenancy: Tenancy,
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
}

/// What the translation has to say beside the intermediate representation.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) statuses: Statuses,
    pub(super) ignored: Vec<Ignored>,
    pub(super) warnings: Vec<Warning>,
}

/// An object that is ignored because its gate is closed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ignored {
    /// The object.
    pub object: ObjectRef,
    /// The gate that would open it.
    pub feature: Feature,
}

/// Something that deserves attention and has no condition of its own.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Warning {
    /// The object.
    pub object: ObjectRef,
    /// The message, with the field's path.
    pub message: String,
}

/// The label by which every namespace can be selected by name.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The label that ties an EndpointSlice to its Service.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

// === impl ClusterState ===

impl<'a> ClusterState<'a> {
    pub(super) fn new(
        objects: &'a Objects,
        gates: FeatureGates,
        patterns: &'a Patterns,
        environment: Environment<'a>,
    ) -> Self {
        let Environment { here, identities, tenancy } = environment;
        let mut slices: HashMap<_, Vec<_>> = HashMap::new();
        for (name, slice) in &objects.endpoint_slices {
            let labels = slice.metadata.labels.as_ref();
            if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)) {
                slices.entry((name.namespace.as_str(), service.as_str())).or_default().push(&**slice);
            }
        }
        let here = locate(here, objects.endpoint_slices.values().map(|slice| &**slice));
        let patterns = Shares::new(patterns);
        let grants = Grants::new(&objects.reference_grants);
        Self { objects, gates, grants, patterns, here, identities, tenancy, slices }
    }

    /// The EndpointSlices of a Service, in the order of their names.
    pub(super) fn slices<'s>(&'s self, service: &'s ObjectName) -> &'s [&'a EndpointSlice] {
        let key = (service.namespace.as_str(), service.name.as_str());
        self.slices.get(&key).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A label of a namespace; one without a manifest has only its name label.
pub(super) fn namespace_label<'s>(objects: &'s Objects, namespace: &'s str, label: &str) -> Option<&'s str> {
    if label == NAMESPACE_NAME_LABEL {
        return Some(namespace);
    }
    let object = objects.namespaces.get(&ObjectName::new("", namespace))?;
    object.metadata.labels.as_ref()?.get(label).map(String::as_str)
}

// === impl Report ===

impl Report {
    pub(super) fn status(&mut self, object: ObjectRef, status: ObjectStatus) {
        self.statuses.set(object, status);
    }

    pub(super) fn warn(&mut self, object: &ObjectRef, message: impl Into<String>) {
        self.warnings.push(Warning { object: object.clone(), message: message.into() });
    }

    /// Notes that all objects of a kind are ignored.
    pub(super) fn ignore<T>(&mut self, feature: Feature, objects: &ByName<T>) {
        self.ignored.extend(
            objects.keys().map(|name| Ignored {
                object: ObjectRef { kind: feature.name(), name: name.clone() },
                feature,
            }),
        );
    }
}

/// The objects of a kind in the order that breaks ties: oldest first, then by namespace and name.
pub(crate) fn oldest_first<T: Resource>(objects: &ByName<T>) -> Vec<(&ObjectName, &T)> {
    let mut sorted: Vec<_> = objects.iter().map(|(name, object)| (name, &**object)).collect();
    sorted.sort_by(|(_, left), (_, right)| by_age(*left, *right));
    sorted
}

/// Older first; an object without a timestamp, which no API server has seen, comes last.
pub(super) fn by_age<T: Resource>(left: &T, right: &T) -> Ordering {
    match (&left.meta().creation_timestamp, &right.meta().creation_timestamp) {
        (Some(left), Some(right)) => left.cmp(right),
        (left, right) => left.is_none().cmp(&right.is_none()),
    }
}

/// The bytes under `key`; `stringData` wins over `data`, as it does on an API server.
pub(super) fn secret_entry<'s>(secret: &'s Secret, key: &str) -> Option<&'s [u8]> {
    let text = secret.string_data.as_ref().and_then(|data| data.get(key)).map(String::as_bytes);
    text.or_else(|| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice()))
}
