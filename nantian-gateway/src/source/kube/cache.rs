//! The cluster as it was last seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use serde_json::{Map, Value};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use super::{
    object::{name, owner, plain},
    references::references,
    scope::Part,
    state::State,
};
use crate::{
    ir::ControllerName,
    source::{kind::Kind, objects::ObjectRef},
    sync::lock,
};

/// Every object of the cluster that the gateway reads, as it was last seen, and what of it was not taken yet.
#[derive(Debug, Default)]
pub struct ObjectCache {
    state: Mutex<State>,
    changed: Notify,
    /// Told whenever there may be a Secret or ConfigMap to read, or none any more.
    wants: Notify,
    reported: watch::Sender<()>,
    is_complete: watch::Sender<bool>,
}

/// What a report about an object needs to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// `apiVersion`, of those that are known the newest that the server serves.
    pub api_version: String,
    /// The name in paths.
    pub plural: String,
    /// `metadata.uid`.
    pub uid: Option<String>,
    /// `metadata.resourceVersion`.
    pub resource_version: Option<String>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// What decides whose it is: the GatewayClass of a Gateway, the Gateway of a ListenerSet.
    pub owner: Option<ObjectRef>,
    /// `status`, or null.
    pub status: Value,
}

/// What happened to an object since it was last taken.
#[derive(Debug)]
pub(super) enum Change {
    /// It is this now.
    Seen(Kind, Map<String, Value>),
    /// The same of one that was never taken.
    New(Kind, Map<String, Value>),
    /// It is not there any more.
    Gone,
    /// Nothing refers to it any more.
    Unwanted,
}

/// A change is told when nothing more has happened for this long,
const QUIET: Duration = Duration::from_millis(20);
/// or when the first one of the row is this old.
const AT_MOST: Duration = Duration::from_millis(250);

impl ObjectCache {
    /// Waits until every kind that is served was read once.
    pub async fn complete(&self) {
        // The sender is in `self`.
        let _ = self.is_complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// Waits for the next change, and until no other follows it closely.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing but the time that was waited: what changed stays to be taken.
    pub async fn changed(&self) {
        if !self.state().has_news() {
            self.changed.notified().await;
        }
        let latest = Instant::now() + AT_MOST;
        while timeout_at((Instant::now() + QUIET).min(latest), self.changed.notified()).await.is_ok() {
            if Instant::now() >= latest {
                break;
            }
        }
    }

    /// Told whenever the status or the version of an object may be another.
    pub fn reports(&self) -> watch::Receiver<()> {
        self.reported.subscribe()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state().seen.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does something with what was last seen of every object.
    pub fn with<T>(&self, look: impl FnOnce(&BTreeMap<ObjectRef, Seen>) -> T) -> T {
        look(&self.state().seen)
    }

    /// What was last seen of an object.
    pub fn get(&self, name: &ObjectRef) -> Option<Seen> {
        self.state().seen.get(name).cloned()
    }

    /// Notes what a write has made of an object that was `before`, unless the watch has told of a later
    /// version since.
    pub fn wrote(&self, name: &ObjectRef, before: &Seen, metadata: &ObjectMeta, status: Value) {
        let mut state = self.state();
        let seen = state.seen.get_mut(name);
        if let Some(seen) = seen.filter(|seen| seen.resource_version == before.resource_version) {
            seen.resource_version.clone_from(&metadata.resource_version);
            seen.status = status;
        }
    }

    /// Reads what the Gateways of this controller refer to, and those of no other.
    pub(super) fn answer_for(&self, controller: ControllerName) {
        self.update(|State { seen, values, .. }| {
            values.answer_for(controller, seen);
            true
        });
    }

    /// Notes which kinds the server does not serve.
    pub(super) fn set_absent(&self, absent: BTreeSet<Kind>) {
        self.update(|state| {
            let are_others = state.absent != absent;
            state.absent = absent;
            are_others
        });
    }

    /// The kinds that the server does not serve.
    pub(super) fn absent(&self) -> BTreeSet<Kind> {
        self.state().absent.clone()
    }

    /// Hands out nothing more of a namespace before this kind was listed there anew, not even that something
    /// is gone: routes without their policies, or without what is in the place of those, would serve what
    /// they guard. Nor does anything wait until then for Secrets and ConfigMaps of this kind that were not
    /// read, unless `is_listed` says that they may be, though not watched.
    pub(super) fn withhold(&self, part: &Part, is_listed: bool) {
        let Some(namespace) = &part.namespace else { return };
        self.update(|state| {
            let is_other = state.withheld.entry(namespace.clone()).or_default().insert(part.kind);
            let lets_go = !is_listed && part.kind.is_read_on_reference() && state.lose_unread(part);
            is_other || lets_go
        });
    }

    /// Whether the namespace of a part is withheld.
    pub(super) fn withholds(&self, part: &Part) -> bool {
        part.namespace.as_ref().is_some_and(|namespace| self.state().withheld.contains_key(namespace))
    }

    /// Notes that a part was listed, or is watched on from there, or that its kind is not served.
    pub(super) fn set_listed(&self, part: &Part) {
        let Some(namespace) = &part.namespace else { return };
        let was_unlisted = |kinds: &mut BTreeSet<Kind>| kinds.remove(&part.kind);
        self.update(|state| state.withheld.get_mut(namespace).is_some_and(was_unlisted));
    }

    /// The namespaces of which nothing is handed out, as far as they are there.
    pub(super) fn withheld(&self) -> BTreeSet<String> {
        let state = self.state();
        state.withheld.keys().filter(|namespace| !state.lacks(namespace)).cloned().collect()
    }

    pub(super) fn set_complete(&self) {
        self.is_complete.send_replace(true);
    }

    pub(super) fn is_complete(&self) -> bool {
        *self.is_complete.borrow()
    }

    /// What changed since the last time and need not wait; an object that changed often comes once.
    pub(super) fn take(&self) -> BTreeMap<ObjectRef, Change> {
        let mut state = self.state();
        let held = state.held();
        let changes = mem::take(&mut state.changes);
        let (held, taken) = changes.into_iter().partition(|(name, _)| held.contains(name));
        state.changes = held;
        taken
    }

    /// Notes an object as it is now.
    pub(super) fn put(&self, kind: Kind, resource: &ApiResource, object: DynamicObject) -> Option<ObjectRef> {
        let name = name(kind, &object.metadata)?;
        let seen = Seen {
            api_version: resource.api_version.clone(),
            plural: resource.plural.clone(),
            uid: object.metadata.uid.clone(),
            resource_version: object.metadata.resource_version.clone(),
            generation: object.metadata.generation,
            owner: owner(kind, &name, &object.data),
            status: object.data.get("status").cloned().unwrap_or_default(),
        };
        self.update(|state| {
            let before = state.seen.insert(name.clone(), seen);
            if before.as_ref().is_some_and(|before| Some(before) == state.seen.get(&name)) {
                // Listed again, and the same.
                return false;
            }
            let State { seen, values, .. } = state;
            if kind.is_read_on_reference() {
                return values.look_at(&name, seen);
            }
            values.refer(&name, references(kind, &name.name.namespace, &object.data), seen);
            let controller = object.data.pointer("/spec/controllerName").and_then(Value::as_str);
            state.count_anew(kind, &name, controller, before.as_ref());
            state.change(&name, before.is_some(), kind, plain(kind, object));
            true
        });
        Some(name)
    }

    pub(super) fn remove(&self, kind: Kind, metadata: &ObjectMeta) {
        let Some(name) = name(kind, metadata) else { return };
        // The one that was made in its place may have been read before it was told of.
        let is_it = |seen: &Seen| !kind.is_read_on_reference() || seen.uid == metadata.uid;
        self.update(|state| state.seen.get(&name).is_some_and(is_it) && state.forget(kind, &name));
    }

    /// Removes every object of a part that is not among those that were listed.
    pub(super) fn retain(&self, part: &Part, listed: &BTreeSet<ObjectRef>) {
        self.update(|state| state.retain(part, |name| listed.contains(name)));
    }

    /// Whether the namespace of a part is not there.
    pub(super) fn lacks_namespace(&self, part: &Part) -> bool {
        part.namespace.as_ref().is_some_and(|namespace| self.state().lacks(namespace))
    }

    /// Removes every object of the namespace of a part, which is not there any more, of all kinds that are to
    /// be listed anew there: what guards the others does not go before them. Of other kinds the watch tells.
    pub(super) fn clear(&self, part: &Part) {
        let Some(namespace) = &part.namespace else { return };
        self.update(|state| {
            let mut is_told = false;
            for kind in state.withheld.get(namespace).cloned().unwrap_or_default() {
                is_told |= state.retain(&Part { kind, ..part.clone() }, |_| false);
            }
            is_told
        });
    }

    /// Up to `limit` Secrets and ConfigMaps to read, apart from those that are `left_out`, each with the
    /// version that was seen.
    pub(super) fn wanted(
        &self,
        limit: usize,
        left_out: impl Fn(&ObjectRef) -> bool,
    ) -> Vec<(ObjectRef, Option<String>)> {
        let state = self.state();
        let wanted = state.values.stale().iter().filter(|&name| !left_out(name)).take(limit);
        let version = |name: &ObjectRef| Some((name.clone(), state.seen.get(name)?.resource_version.clone()));
        wanted.filter_map(version).collect()
    }

    /// Waits until there may be more to read, or less.
    pub(super) async fn wants(&self) {
        self.wants.notified().await;
    }

    /// Notes what a Secret or ConfigMap is, or that it is not there, as was asked after `version` was seen.
    ///
    /// It may have changed in between, of which the watch has told already, or has not yet.
    pub(super) fn put_value(
        &self,
        name: &ObjectRef,
        version: &Option<String>,
        object: Option<(Kind, DynamicObject)>,
    ) {
        self.update(|state| {
            let State { seen, values, changes, .. } = state;
            let Some(known) = seen.get_mut(name) else { return false };
            let is_last = known.resource_version == *version;
            let Some((kind, object)) = object else {
                if is_last {
                    state.lose(name);
                }
                return is_last;
            };
            let ObjectMeta { uid, resource_version, .. } = object.metadata.clone();
            if is_last {
                (known.uid, known.resource_version) = (uid, resource_version.clone());
            } else if known.uid != uid {
                // Whether it is the older one or the younger one is known when it is read again.
                return false;
            }
            if values.is_wanted(name, seen) && values.read(name, &resource_version) {
                changes.insert(name.clone(), Change::Seen(kind, plain(kind, object)));
            }
            values.look_at(name, seen);
            true
        });
    }

    /// Whether every Secret and ConfigMap that is there and referred to was read.
    pub(super) fn is_read(&self) -> bool {
        self.state().values.stale().is_empty()
    }

    /// Waits until some version of each of them was read; nobody may be let read a newer one.
    pub(super) async fn values_read(&self) {
        let mut reports = self.reports();
        let lacks_some = || self.state().values.lacks_some();
        while lacks_some() && reports.changed().await.is_ok() {}
    }

    /// Notes what the versions refer to that serve.
    pub(super) fn serve(&self, references: BTreeSet<ObjectRef>) {
        let mut state = self.state();
        let State { seen, values, changes, .. } = &mut *state;
        changes.extend(values.serve(references, seen).into_iter().map(|name| (name, Change::Unwanted)));
        drop(state);
        self.wants.notify_one();
    }

    /// Makes a change, and tells of it if it returns that it is of any concern.
    fn update(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut state = self.state();
        if !change(&mut state) {
            return;
        }
        state.let_go();
        drop(state);
        self.changed.notify_one();
        self.wants.notify_one();
        self.reported.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
