//! Entries of Secrets that a policy refers to one by one.

use std::fmt;

use nantian_crd::SecretKeyRef;

use super::ai::{only_key, shown};
use crate::{
    ir::ObjectName,
    translate::{
        cluster_state::{ClusterState, secret_entry},
        conditions::Reason,
        fault::Fault,
    },
};

/// What an entry of a Secret in this namespace holds, to which the field at `path` refers.
pub(super) fn entry<'c>(
    cluster: &'c ClusterState<'_>,
    namespace: &str,
    reference: &SecretKeyRef,
    path: &impl fmt::Display,
) -> Result<&'c [u8], Fault> {
    let fault = |problem: String| Fault::at(Reason::SecretNotFound, path, problem);
    let name = ObjectName::new(namespace, reference.name.as_str());
    let shown = shown(&name);
    let Some(secret) = cluster.objects.secrets.get(&name) else {
        return Err(fault(format!("{shown} does not exist")).absent());
    };
    let key = match &reference.key {
        Some(key) => key,
        None => only_key(secret)
            .ok_or_else(|| fault(format!("{shown} has not exactly one entry, so key is needed")))?,
    };
    secret_entry(secret, key).ok_or_else(|| fault(format!("{shown} has no entry {key:?}")))
}
