//! Objects, their versions, and the history that watchers follow.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::kinds::Kind;

/// Objects in memory.
#[derive(Debug)]
pub(super) struct Store {
    state: Mutex<State>,
    /// The length of the history, so that watchers know when to look.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) kinds: Vec<Kind>,
    pub(super) version: u64,
    /// Whether the kinds of CRDs are not known yet.
    pub(super) is_starting: bool,
    /// Requests for paths with this in them are never answered.
    pub(super) silent: Option<&'static str>,
    /// Whether a load balancer is for one protocol only.
    pub(super) refuses_mixed_protocols: bool,
    /// Watches from before this version have expired.
    pub(super) oldest: u64,
    /// By plural, namespace and name.
    pub(super) objects: BTreeMap<(String, String, String), Value>,
    pub(super) history: Vec<Entry>,
    /// What each object was applied as by the server side, by the same names; one manager is enough here.
    pub(super) applied: BTreeMap<(String, String, String), Value>,
    writes: Vec<Write>,
    /// The kinds whose status nobody may write, by plural.
    pub(super) guarded: BTreeSet<String>,
    /// The kinds that nobody may read, by plural.
    pub(super) hidden: BTreeSet<String>,
    /// The fields of a status that the CRDs do not know, by plural.
    pub(super) pruned: BTreeMap<String, &'static str>,
    /// The paths that were asked for.
    pub(super) requests: Vec<String>,
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) version: u64,
    /// Empty for a bookmark, which is for all.
    pub(super) plural: String,
    pub(super) kind: &'static str,
    pub(super) object: Value,
}

/// What a client has written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Whether the object was another one afterwards.
    pub(crate) has_changed: bool,
}

/// A refusal: the HTTP status, the reason and the message.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) u16, pub(super) &'static str, pub(super) String);

impl Default for Store {
    fn default() -> Self {
        let state = State {
            kinds: Kind::built_in(),
            version: 1,
            is_starting: false,
            silent: None,
            refuses_mixed_protocols: false,
            oldest: 1,
            objects: BTreeMap::new(),
            history: Vec::new(),
            applied: BTreeMap::new(),
            writes: Vec::new(),
            guarded: BTreeSet::new(),
            hidden: BTreeSet::new(),
            pruned: BTreeMap::new(),
            requests: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(0) }
    }
}

impl Store {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Does something with the objects and tells the watchers.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_modify(|changes| *changes += 1);
        result
    }

    pub(super) fn apply(&self, object: &Value) {
        self.change(|state| {
            let kind = state.kind_of(object).unwrap_or_else(|| panic!("no kind of {object}"));
            let namespace = match kind.is_namespaced {
                true => object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned(),
                false => String::new(),
            };
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            state.put(&kind, &namespace, &name, object.clone(), false).unwrap();
        });
    }

    pub(super) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.change(|state| state.delete(plural, namespace, name)).unwrap();
    }

    pub(super) fn set_status(&self, plural: &str, namespace: &str, name: &str, status: Value) {
        self.change(|state| {
            let object = state.objects.get(&key(plural, namespace, name)).unwrap();
            let kind = state.kind_of(object).unwrap();
            let object = json!({ "metadata": {}, "status": status });
            state.put(&kind, namespace, name, object, true).unwrap();
        });
    }

    pub(super) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state().objects.get(&key(plural, namespace, name)).cloned()
    }

    pub(super) fn all(&self, plural: &str) -> Vec<Value> {
        let state = self.state();
        state.objects.iter().filter(|((of, ..), _)| of == plural).map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn writes(&self) -> Vec<Write> {
        self.state().writes.clone()
    }

    pub(super) fn wrote(&self, method: &str, path: &str, has_changed: bool) {
        self.state().writes.push(Write { method: method.to_owned(), path: path.to_owned(), has_changed });
    }

    pub(super) fn bookmark(&self) {
        self.change(|state| {
            let (version, plural) = (state.version, String::new());
            state.history.push(Entry { version, plural, kind: "BOOKMARK", object: Value::Null });
        });
    }

    pub(super) fn expire(&self) {
        self.change(|state| {
            state.version += 1;
            state.oldest = state.version;
            state.history.clear();
        });
    }
}

impl State {
    pub(super) fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let is_it = |kind: &&Kind| {
            self.knows(kind)
                && kind.group == group
                && kind.plural == plural
                && kind.versions.iter().any(|served| served == version)
        };
        self.kinds.iter().find(is_it).cloned()
    }

    /// Whether requests for the kind find it.
    pub(super) fn knows(&self, kind: &Kind) -> bool {
        !self.is_starting || !kind.group.contains("gateway")
    }

    fn kind_of(&self, object: &Value) -> Option<Kind> {
        let api_version = object["apiVersion"].as_str()?;
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        self.kinds.iter().find(|kind| kind.group == group && kind.name == object["kind"]).cloned()
    }

    /// Creates or replaces an object; of a status, nothing else is taken.
    pub(super) fn put(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        mut object: Value,
        is_status: bool,
    ) -> Result<(Value, bool), Refusal> {
        let key = key(&kind.plural, namespace, name);
        let before = self.objects.get(&key).cloned();
        if let (Some(before), Some(version)) = (&before, object["metadata"]["resourceVersion"].as_str())
            && before["metadata"]["resourceVersion"] != version
        {
            return Err(Refusal(409, "Conflict", format!("{} {name:?} was modified", kind.plural)));
        }
        if is_status {
            let Some(before) = &before else { return Err(missing(&kind.plural, name)) };
            let mut status = object["status"].take();
            if let (Some(field), Some(fields)) = (self.pruned.get(&kind.plural), status.as_object_mut()) {
                fields.remove(*field);
            }
            object = before.clone();
            object["status"] = status;
        } else if kind.has_status && kind.name != "Namespace" {
            let status = before.as_ref().map(|before| before["status"].clone()).unwrap_or_default();
            object["status"] = if status.is_null() { kind.first_status() } else { status };
        }
        if object["status"].is_null() {
            object.as_object_mut().unwrap().remove("status");
        }
        self.stamp(kind, namespace, name, before.as_ref(), &mut object);
        if before.as_ref() == Some(&object) {
            return Ok((object, false));
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let event = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.record(&kind.plural, event, object.clone());
        if kind.name == "CustomResourceDefinition" {
            let added = Kind::of_crd(&object);
            self.kinds.retain(|kind| kind.plural != added.plural);
            self.kinds.push(added);
        }
        self.objects.insert(key, object.clone());
        Ok((object, true))
    }

    /// What only the server writes.
    fn stamp(&self, kind: &Kind, namespace: &str, name: &str, before: Option<&Value>, object: &mut Value) {
        let is_same = before.is_some_and(|before| without_metadata(before) == without_metadata(object));
        let known = |field: &str| before.map(|before| before["metadata"][field].clone());
        let generation = known("generation").and_then(|generation| generation.as_u64());
        let generation = generation.map_or(1, |generation| if is_same { generation } else { generation + 1 });
        let created = known("creationTimestamp")
            .unwrap_or_else(|| Timestamp::now().strftime("%FT%TZ").to_string().into());
        let uid = known("uid").unwrap_or_else(|| format!("uid-{}", self.version).into());
        let version = known("resourceVersion").unwrap_or_default();
        object["apiVersion"] = kind.api_version(kind.versions.first().unwrap()).into();
        object["kind"] = kind.name.clone().into();
        let metadata = &mut object["metadata"];
        metadata["name"] = name.into();
        if kind.is_namespaced {
            metadata["namespace"] = namespace.into();
        }
        metadata["generation"] = generation.into();
        metadata["creationTimestamp"] = created;
        metadata["uid"] = uid;
        metadata["resourceVersion"] = version;
    }

    pub(super) fn delete(&mut self, plural: &str, namespace: &str, name: &str) -> Result<Value, Refusal> {
        let Some(mut object) = self.objects.remove(&key(plural, namespace, name)) else {
            return Err(missing(plural, name));
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.record(plural, "DELETED", object.clone());
        if plural == "customresourcedefinitions" {
            let gone = Kind::of_crd(&object).plural;
            self.kinds.retain(|kind| kind.plural != gone);
            let names: Vec<_> = self.objects.keys().filter(|(plural, ..)| *plural == gone).cloned().collect();
            for (plural, namespace, name) in names {
                self.delete(&plural, &namespace, &name)?;
            }
        }
        Ok(object)
    }

    fn record(&mut self, plural: &str, kind: &'static str, object: Value) {
        self.history.push(Entry { version: self.version, plural: plural.to_owned(), kind, object });
    }
}

pub(super) fn missing(plural: &str, name: &str) -> Refusal {
    Refusal(404, "NotFound", format!("{plural} {name:?} not found"))
}

pub(super) fn key(plural: &str, namespace: &str, name: &str) -> (String, String, String) {
    (plural.to_owned(), namespace.to_owned(), name.to_owned())
}

/// What a change of generation is judged by.
fn without_metadata(object: &Value) -> Map<String, Value> {
    let fields = object.as_object().unwrap().iter();
    let fields =
        fields.filter(|(name, _)| !["metadata", "status", "apiVersion", "kind"].contains(&name.as_str()));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Takes the fields out of `target` that were applied `before` and are not `now`.
pub(super) fn forget(target: &mut Value, before: &Value, now: &Value) {
    let (Some(target), Some(before)) = (target.as_object_mut(), before.as_object()) else { return };
    for (name, before) in before {
        match (target.get_mut(name), now.get(name)) {
            (Some(target), Some(now)) => forget(target, before, now),
            (Some(_), None) => drop(target.remove(name)),
            (None, _) => {}
        }
    }
}

/// RFC 7396.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let fields = target.as_object_mut().unwrap();
    for (name, value) in patch {
        match value {
            Value::Null => drop(fields.remove(name)),
            value => merge(fields.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}
