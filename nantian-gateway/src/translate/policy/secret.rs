//! Secrets that policies refer to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::api::core::v1::Secret;

use crate::{
    ir::ObjectName,
    translate::{
        cluster_state::{ClusterState, secret_entry},
        conditions::Reason,
        fault::{Fault, Path},
        hostname,
    },
};

/// A Secret that is there, and to which the field at `path` refers.
pub(super) struct ReferredSecret<'a> {
    secret: &'a Secret,
    path: Path<'a>,
    /// In messages.
    pub(super) shown: String,
}

impl<'a> ReferredSecret<'a> {
    pub(super) fn find(
        cluster: &'a ClusterState<'_>,
        namespace: &str,
        name: &str,
        path: Path<'a>,
    ) -> Result<Self, Fault> {
        let name = ObjectName::new(namespace, name);
        // What is no name may be the credential itself, put where its name belongs.
        let is_name =
            hostname::is_name(&name.name) && !name.name.contains(|letter: char| letter.is_uppercase());
        let shown = if is_name { format!("Secret {name}") } else { "the Secret".to_owned() };
        let absent =
            || Fault::at(Reason::SecretNotFound, path, format_args!("{shown} does not exist")).absent();
        let secret = cluster.objects.secrets.get(&name).ok_or_else(absent)?;
        Ok(Self { secret, path, shown })
    }

    /// What is wrong with it.
    pub(super) fn fault(&self, problem: impl fmt::Display) -> Fault {
        Fault::at(Reason::SecretNotFound, self.path, format_args!("{} {problem}", self.shown))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a [u8]> {
        secret_entry(self.secret, key)
    }

    /// The entry of this name in lower or upper case, without the blanks around it.
    pub(super) fn either_case(&self, name: &str) -> Option<&'a [u8]> {
        let value = self.get(name).or_else(|| self.get(&name.to_ascii_uppercase()));
        value.map(<[u8]>::trim_ascii)
    }

    /// The entry under `key`, or the only one, with its key.
    pub(super) fn entry(&self, key: Option<&'a str>) -> Result<(&'a str, &'a [u8]), Fault> {
        let key = key.or_else(|| self.only_key());
        let key = key.ok_or_else(|| self.fault("has not exactly one entry, so key is needed"))?;
        let value = self.get(key).ok_or_else(|| self.fault(format_args!("has no entry {key:?}")))?;
        Ok((key, value))
    }

    pub(super) fn only_key(&self) -> Option<&'a str> {
        let data = self.secret.data.iter().flat_map(BTreeMap::keys);
        let keys: BTreeSet<_> = data.chain(self.secret.string_data.iter().flat_map(BTreeMap::keys)).collect();
        match keys.len() {
            1 => keys.into_iter().next().map(String::as_str),
            _ => None,
        }
    }
}
