//! What the control asks of every source.

use std::{collections::BTreeSet, fmt};

use super::objects::{ObjectRef, Objects};
use crate::{tenancy::Tenancy, translate::status::ObjectStatus};

/// A place that objects come from; it keeps the last good version of each.
pub trait Source: fmt::Debug + Send {
    /// Takes in what has changed since the last time.
    fn read(&mut self) -> Reading;

    /// The last good version of every object, as of the last reading or rejection.
    fn objects(&self) -> &Objects;

    /// The status of each object that cannot be read, as of the last reading.
    fn unreadable(&self) -> Vec<(ObjectRef, ObjectStatus)> {
        Vec::new()
    }

    /// Whether those who write the objects trust one another.
    fn tenancy(&self) -> Tenancy {
        Tenancy::Shared
    }

    /// Whether the gateway may be one of several that serve the objects together.
    fn is_replicated(&self) -> bool {
        true
    }

    /// Brings back the version that the last reading replaced by a refused one. Returns whether there was
    /// one.
    fn reject(&mut self, refused: &ObjectRef) -> bool;

    /// Told after each reading, when nothing of it is refused any more: what is handed out now is what is
    /// served.
    fn stands(&mut self) {}
}

/// What a [`Source`] has taken in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The objects that were added, replaced or removed, sorted.
    pub changed: Vec<ObjectRef>,
    /// All that is wrong now, one line each, whether it was told before or not.
    pub faults: Vec<String>,
    /// What is left out.
    pub unserved: Unserved,
    /// Whether nothing at all was read.
    pub is_idle: bool,
}

/// What a [`Source`] leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unserved {
    /// Objects of the Gateway API whose kinds are not served; of a cluster the kinds that its API server does
    /// not serve.
    pub kinds: Vec<String>,
    /// The namespaces of a cluster of which nothing new is served, for some of their kinds cannot be read.
    pub namespaces: BTreeSet<String>,
}

impl Unserved {
    /// What the log says of it.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let kinds = self.kinds.iter().map(|object| format!("{object} is ignored: its kind is not served"));
        let namespaces = self.namespaces.iter();
        kinds.chain(namespaces.map(|namespace| {
            format!("nothing new of namespace {namespace} is served before all of its kinds can be read")
        }))
    }
}
