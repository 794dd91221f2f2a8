//! What was seen of the cluster, and what of it has to wait.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    cache::{Change, Seen},
    scope::Part,
    values::Values,
};
use crate::{
    ir::ObjectName,
    source::{kind::Kind, objects::ObjectRef},
};

/// What a cache keeps under its lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) seen: BTreeMap<ObjectRef, Seen>,
    /// What was not taken yet, some of which has to wait.
    pub(super) changes: BTreeMap<ObjectRef, Change>,
    /// The namespaces of which nothing is handed out yet, each with the kinds of it that are not listed: with
    /// none where its objects wait for what was not read.
    pub(super) withheld: BTreeMap<String, BTreeSet<Kind>>,
    pub(super) values: Values,
    /// The kinds that the server does not serve.
    pub(super) absent: BTreeSet<Kind>,
}

impl State {
    /// The changes that have to wait.
    pub(super) fn held(&self) -> BTreeSet<ObjectRef> {
        let waiting = self.values.waiting(&self.seen, &self.changes);
        let guarded = self.guarded();
        let is_withheld = |name: &ObjectRef, change: &Change| {
            let namespace = &*name.name.namespace;
            let Some(kinds) = self.withheld.get(namespace) else { return false };
            match change {
                // In the place of what is gone with its namespace there is nothing.
                Change::Gone => leads(name) && !self.lacks(namespace),
                Change::New(Kind::Service, service) => {
                    let may_be_guarded =
                        kinds.contains(&Kind::BackendTlsPolicy) || guarded.contains(&name.name);
                    may_be_guarded && !is_front(service)
                }
                _ => leads(name),
            }
        };
        let held =
            self.changes.iter().filter(|&(name, change)| waiting.contains(name) || is_withheld(name, change));
        held.map(|(name, _)| name.clone()).collect()
    }

    /// The Services of which policies say how to speak to them that were not taken yet.
    fn guarded(&self) -> BTreeSet<ObjectName> {
        let policies = self.changes.iter().filter_map(|(name, change)| match change {
            Change::Seen(Kind::BackendTlsPolicy, policy) | Change::New(Kind::BackendTlsPolicy, policy) => {
                Some((name, policy.get("spec")?.get("targetRefs")?.as_array()?))
            }
            _ => None,
        });
        let services = policies.flat_map(|(policy, targets)| {
            let names = targets.iter().filter_map(|target| target.get("name")?.as_str());
            names.map(move |name| ObjectName::new(&*policy.name.namespace, name))
        });
        services.collect()
    }

    /// Lets go of the namespaces of which all kinds are listed and no object waits: those that do would be
    /// missing where all else is handed out.
    pub(super) fn let_go(&mut self) {
        let Self { seen, changes, withheld, values, .. } = self;
        if withheld.values().all(|kinds| !kinds.is_empty()) {
            return;
        }
        let waiting = values.waiting(seen, changes);
        let namespaces: BTreeSet<&String> = waiting
            .iter()
            .filter(|&name| changes.contains_key(name))
            .map(|name| &name.name.namespace)
            .collect();
        withheld.retain(|namespace, kinds| {
            let is_kept = !kinds.is_empty() || namespaces.contains(namespace);
            if !is_kept {
                tracing::info!(namespace, "all kinds of a namespace are read");
            }
            is_kept
        });
    }

    /// Whether a namespace is not there.
    pub(super) fn lacks(&self, namespace: &str) -> bool {
        let kind = Kind::Namespace.info().name;
        let named = |name: &str| ObjectRef { kind, name: ObjectName::new("", name) };
        // Before they are listed none is known.
        let knows_some = || self.seen.range(named("")..).next().is_some_and(|(first, _)| first.kind == kind);
        !self.seen.contains_key(&named(namespace)) && knows_some()
    }

    /// Whether there is one that need not wait.
    pub(super) fn has_news(&self) -> bool {
        self.held().len() < self.changes.len()
    }

    /// Notes what an object is now, whether or not it was seen before.
    pub(super) fn change(
        &mut self,
        name: &ObjectRef,
        was_seen: bool,
        kind: Kind,
        object: Map<String, Value>,
    ) {
        let is_new = match self.changes.get(name) {
            Some(change) => matches!(change, Change::New(..)),
            // What was seen was taken.
            None => !was_seen,
        };
        let change = if is_new { Change::New(kind, object) } else { Change::Seen(kind, object) };
        self.changes.insert(name.clone(), change);
    }

    /// Notes that no object of a part is there any more but some. Returns whether that is of any concern.
    pub(super) fn retain(&mut self, part: &Part, is_there: impl Fn(&ObjectRef) -> bool) -> bool {
        let is_gone = |name: &&ObjectRef| part.has(name) && !is_there(name);
        let gone: Vec<ObjectRef> = self.seen.keys().filter(is_gone).cloned().collect();
        let told = gone.iter().filter(|name| self.forget(part.kind, name)).count();
        told > 0
    }

    /// Takes the Secrets or ConfigMaps of a part that were not read for none: nobody can read them, and some
    /// may wait for them. Returns whether that is of any concern.
    pub(super) fn lose_unread(&mut self, part: &Part) -> bool {
        let is_unread = |name: &&ObjectRef| part.has(name) && !self.values.has_read(name);
        let unread: Vec<ObjectRef> = self.seen.keys().filter(is_unread).cloned().collect();
        let told = unread.iter().filter(|name| self.lose(name)).count();
        told > 0
    }

    /// Notes that an object is not there any more. Returns whether that is of any concern.
    pub(super) fn forget(&mut self, kind: Kind, name: &ObjectRef) -> bool {
        if kind.is_read_on_reference() {
            return self.lose(name);
        }
        let before = self.seen.remove(name);
        self.values.refer(name, BTreeSet::new(), &self.seen);
        self.count_anew(kind, name, None, before.as_ref());
        if let Some(Change::New(..)) = self.changes.get(name) {
            // What waits for long must not grow by what comes and goes.
            self.changes.remove(name);
        } else {
            self.changes.insert(name.clone(), Change::Gone);
        }
        true
    }

    /// The same of a Secret or ConfigMap, which is of none if it was neither read nor had to be.
    pub(super) fn lose(&mut self, name: &ObjectRef) -> bool {
        self.seen.remove(name);
        let was_stale = self.values.stale().contains(name);
        let was_read = self.values.forget(name);
        if was_read {
            self.changes.insert(name.clone(), Change::Gone);
        }
        was_stale || was_read
    }

    /// Looks again at what others refer to, if an object decides otherwise than `before` whose they are.
    pub(super) fn count_anew(
        &mut self,
        kind: Kind,
        name: &ObjectRef,
        controller: Option<&str>,
        before: Option<&Seen>,
    ) {
        let State { seen, values, .. } = self;
        let has_moved = || {
            let before = before.and_then(|seen| seen.owner.as_ref());
            before != seen.get(name).and_then(|seen| seen.owner.as_ref())
        };
        match kind {
            Kind::GatewayClass => values.classify(name, controller, seen),
            Kind::Gateway if has_moved() => values.look_at_sets_of(name, seen),
            _ => {}
        }
    }
}

/// Whether an object makes something served, or guards it. The others, to which these lead, change nothing
/// but where what is served goes, and with which certificates; of a Service that is new also how.
fn leads(name: &ObjectRef) -> bool {
    !["Service", "EndpointSlice", "Secret", "ConfigMap"].contains(&name.kind)
}

/// Whether a Service is that of a Gateway, through which that is reached.
fn is_front(service: &Map<String, Value>) -> bool {
    let owners = service.get("metadata").and_then(|metadata| metadata.get("ownerReferences")?.as_array());
    let is_gateway = |owner: &Value| owner.get("kind").is_some_and(|kind| kind == "Gateway");
    owners.into_iter().flatten().any(is_gateway)
}
