//! Brings what is true into the status of each object.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    api_version::{ApiVersion, LOOK_AGAIN},
    events::Events,
    lease::Lease,
    recorder::Recorder,
    status::{ClassClaims, Merged, abandoned, merged},
};
use crate::{
    control::{ConfigView, View},
    ir::ControllerName,
    source::{
        ObjectRef,
        kube::{ObjectCache, Seen},
    },
    translate::status::ObjectStatus,
};

/// Changes that follow one another this closely are written together.
const GATHER: Duration = Duration::from_millis(50);
/// When what could not be written is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// When what the server has looked at and does not want is tried again.
pub(super) const REFUSED: Duration = Duration::from_secs(30);
/// Writes that are under way at once.
pub(super) const AT_ONCE: usize = 16;

/// Writes status and events while it is the leader.
pub(crate) struct Writer {
    client: Client,
    cache: Arc<ObjectCache>,
    view: watch::Receiver<Option<Arc<ConfigView>>>,
    leads: watch::Receiver<bool>,
    controller: ControllerName,
    events: Events,
    /// What a GatewayClass claims.
    features: Vec<&'static str>,
    /// The same of the cluster.
    api_version: ApiVersion,
    /// The versions of objects whose status is as `judged_by` wants it.
    judged: HashMap<ObjectRef, Option<String>>,
    judged_by: Option<Arc<ConfigView>>,
    /// The objects with an owner that were ours.
    ours: BTreeSet<ObjectRef>,
    failures: BTreeMap<ObjectRef, Failure>,
    /// Why statuses could not be written, by kind.
    obstacles: BTreeMap<&'static str, String>,
    /// The objects whose status has no room for all there is to say.
    full: BTreeSet<ObjectRef>,
}

/// A status that could not be written.
#[derive(Debug)]
struct Failure {
    object: ObjectRef,
    /// The version of the object that was to be changed.
    version: Option<String>,
    /// When it is tried again.
    again_at: Instant,
    /// What the server says, if it is worth a line in the log.
    obstacle: Option<String>,
}

/// A status to write.
struct Pending {
    object: ObjectRef,
    seen: Seen,
    status: Value,
}

impl Writer {
    /// Writes what `view` shows into the objects of `cache`, while the process holds `lease`. GatewayClasses
    /// claim `features`.
    pub(crate) fn new(
        client: Client,
        cache: Arc<ObjectCache>,
        view: &View,
        lease: &Lease,
        features: Vec<&'static str>,
    ) -> Self {
        let events = Events::new(Recorder::new(client.clone(), lease));
        let (view, leads) = (view.watch(), lease.holds());
        Self {
            client,
            cache,
            view,
            leads,
            controller: lease.controller().clone(),
            events,
            features,
            api_version: ApiVersion::default(),
            judged: HashMap::new(),
            judged_by: None,
            ours: BTreeSet::new(),
            failures: BTreeMap::new(),
            obstacles: BTreeMap::new(),
            full: BTreeSet::new(),
        }
    }

    /// Writes until `view` is no more.
    ///
    /// # Cancellation
    /// Dropping the future may leave a status unwritten; whoever leads next writes it.
    pub(crate) async fn run(mut self) {
        let mut reports = self.cache.reports();
        let mut again: Option<Duration> = None;
        loop {
            tokio::select! {
                changed = self.view.changed() => if changed.is_err() { return },
                changed = self.leads.changed() => if changed.is_err() { return },
                changed = reports.changed() => if changed.is_err() { return },
                () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
            sleep(GATHER).await;
            reports.borrow_and_update();
            let config = self.view.borrow_and_update().clone();
            if let Some(config) = &config {
                let spoken_of = config.translation.statuses.iter().map(|(object, _)| object);
                self.cache.with(|all| note_ours(&mut self.ours, spoken_of, all));
            }
            if !*self.leads.borrow_and_update() {
                self.judged.clear();
                self.judged_by = None;
                again = None;
                continue;
            }
            let Some(config) = config else { continue };
            if self.api_version.refresh(&self.client).await {
                self.judged.retain(|object, _| object.kind != "GatewayClass");
            }
            // That may have taken longer than the lease has lasted; its loss wakes the loop.
            if !*self.leads.borrow() {
                continue;
            }
            let failed = self.write_all(&config).await;
            let untold = (!self.events.tell(&config, &self.cache).await).then_some(RETRY);
            again = [failed, untold, Some(LOOK_AGAIN)].into_iter().flatten().min();
        }
    }

    /// Writes every status that is not as it should be. Returns after what time that has to be tried again.
    async fn write_all(&mut self, config: &Arc<ConfigView>) -> Option<Duration> {
        let before = self.judged_by.replace(Arc::clone(config));
        if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, config)) {
            // What was kept because there might be more to say may be taken away.
            let is_whole_again = is_partial(&before) && !is_partial(config);
            let (before, now) = (&before.translation.statuses, &config.translation.statuses);
            self.judged.retain(|object, _| {
                let said = now.get(object);
                before.get(object) == said && !(is_whole_again && said.is_some())
            });
        }
        let pending = self.pending(config);
        let cache = &self.cache;
        let written = stream::iter(pending).map(|pending| write(&self.client, cache, pending));
        let written: Vec<_> = written.buffer_unordered(AT_ONCE).collect().await;
        for outcome in written {
            match outcome {
                Ok((object, version)) => drop(self.judged.insert(object, version)),
                Err(failure) => drop(self.failures.insert(failure.object.clone(), failure)),
            }
        }
        self.warn();
        let now = Instant::now();
        self.failures.values().map(|failure| failure.again_at.saturating_duration_since(now)).min()
    }

    /// Says once what is in the way: of each kind that of its first object, for the others tell the same.
    fn warn(&mut self) {
        let mut obstacles = BTreeMap::new();
        for (object, failure) in &self.failures {
            if let Some(obstacle) = &failure.obstacle {
                obstacles.entry(object.kind).or_insert((object, obstacle));
            }
        }
        for (kind, (object, error)) in &obstacles {
            if self.obstacles.get(kind) != Some(error) {
                tracing::warn!(error, %object, "a status cannot be written");
            }
        }
        self.obstacles =
            obstacles.into_iter().map(|(kind, (_, obstacle))| (kind, obstacle.clone())).collect();
    }

    fn pending(&mut self, config: &ConfigView) -> Vec<Pending> {
        let Self { judged, features, api_version, failures, full, ours, controller, .. } = self;
        let claims = ClassClaims { features, version: api_version.condition() };
        let (now, begun, is_partial) = (Timestamp::now(), Instant::now(), is_partial(config));
        self.cache.with(|all| {
            judged.retain(|object, _| all.contains_key(object));
            full.retain(|object| all.contains_key(object));
            failures.retain(|object, failure| {
                let version = all.get(object).map(|seen| &seen.resource_version);
                failure.again_at > begun && version == Some(&failure.version)
            });
            let mut pending = Vec::new();
            for (object, seen) in all.iter().filter(|(object, _)| HAVE_STATUS.contains(&object.kind)) {
                let said = config.translation.statuses.get(object);
                // Who would say something of it may be among what is not looked at.
                if said.is_none() && is_partial {
                    continue;
                }
                // Its status tells no controller. What is written there again, once it was taken back,
                // another installation has said.
                let is_left_to_others = said.is_none() && object.kind == "AIService";
                let is_judged = judged
                    .get(object)
                    .is_some_and(|version| is_left_to_others || *version == seen.resource_version);
                if is_judged || failures.contains_key(object) {
                    continue;
                }
                let no_more = if said.is_none() { given_up(ours, all, object, seen) } else { None };
                let truth = said.or(no_more.as_ref());
                let Merged { status, left_out } =
                    merged(object, &seen.status, &now, truth, controller, &claims, is_partial);
                if left_out == 0 {
                    full.remove(object);
                } else if full.insert(object.clone()) {
                    tracing::warn!(%object, left_out, "others have filled the status: ancestors are left out");
                }
                match status {
                    Some(status) => {
                        pending.push(Pending { object: object.clone(), seen: seen.clone(), status })
                    }
                    None => drop(judged.insert(object.clone(), seen.resource_version.clone())),
                }
            }
            pending
        })
    }
}

/// The kinds whose status is ours to write, or a part of it.
const HAVE_STATUS: [&str; 13] = [
    "GatewayClass",
    "Gateway",
    "ListenerSet",
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
    "AIService",
    "TokenPolicy",
    "WasmPlugin",
    "BackendLBPolicy",
    "BackendTLSPolicy",
];

/// Those of them that are up to another controller if another one has their owner.
const HAVE_OWNER: [&str; 2] = ["Gateway", "ListenerSet"];

/// Whether there are namespaces of which not all was looked at.
fn is_partial(config: &ConfigView) -> bool {
    !config.unserved.namespaces.is_empty()
}

/// Adds those that are `spoken_of` to the objects with an owner that were ours, and forgets those that are no
/// more, also where another replica leads.
fn note_ours<'a>(
    ours: &mut BTreeSet<ObjectRef>,
    spoken_of: impl Iterator<Item = &'a ObjectRef>,
    all: &BTreeMap<ObjectRef, Seen>,
) {
    ours.extend(spoken_of.filter(|object| HAVE_OWNER.contains(&object.kind)).cloned());
    ours.retain(|object| all.contains_key(object));
}

/// What is said of an object that was among `ours`: something only if nobody else may, for it has no owner
/// any more.
fn given_up(
    ours: &mut BTreeSet<ObjectRef>,
    all: &BTreeMap<ObjectRef, Seen>,
    object: &ObjectRef,
    seen: &Seen,
) -> Option<ObjectStatus> {
    if !ours.contains(object) {
        return None;
    }
    let mut owner = seen.owner.as_ref();
    while let Some(known) = owner {
        let Some(seen) = all.get(known) else { return Some(abandoned(object, known, seen.generation)) };
        owner = seen.owner.as_ref();
    }
    ours.remove(object);
    None
}

/// Writes one status. Returns the version of the object that has it.
async fn write(
    client: &Client,
    cache: &ObjectCache,
    pending: Pending,
) -> Result<(ObjectRef, Option<String>), Failure> {
    let Pending { object, seen, status } = pending;
    let (group, version) = seen.api_version.rsplit_once('/').unwrap_or(("", &seen.api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: seen.api_version.clone(),
        kind: object.kind.to_owned(),
        plural: seen.plural.clone(),
    };
    let namespace = &object.name.namespace;
    let api: Api<DynamicObject> = match namespace.is_empty() {
        true => Api::all_with(client.clone(), &resource),
        false => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    // The version makes sure that nothing is overwritten which was not seen.
    let patch = json!({
        "apiVersion": seen.api_version,
        "kind": object.kind,
        "metadata": { "resourceVersion": seen.resource_version },
        "status": status,
    });
    match api.patch_status(&object.name.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(written) => {
            cache.wrote(
                &object,
                &seen,
                &written.metadata,
                written.data.get("status").cloned().unwrap_or_default(),
            );
            Ok((object, written.metadata.resource_version))
        }
        Err(Error::Api(status)) if status.code == 404 => Ok((object, seen.resource_version)),
        Err(error) => {
            tracing::debug!(%error, %object, "a status cannot be written");
            let (wait, obstacle) = match &error {
                Error::Api(status) if status.code == 409 => (RETRY, None),
                Error::Api(status) if is_refusal(status.code) => (REFUSED, Some(status.message.clone())),
                Error::Api(status) => (RETRY, Some(status.message.clone())),
                // That the server is away is told already.
                _ => (RETRY, None),
            };
            let again_at = Instant::now() + wait;
            Err(Failure { object, version: seen.resource_version, again_at, obstacle })
        }
    }
}

/// Whether the server has looked at something and does not want it.
pub(super) fn is_refusal(code: u16) -> bool {
    [400, 403, 422].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::ObjectName;

    #[test]
    fn objects_that_are_no_more_are_forgotten_whoever_leads() {
        let seen = Seen {
            api_version: String::new(),
            plural: String::new(),
            uid: None,
            resource_version: None,
            generation: None,
            owner: None,
            status: Value::Null,
        };
        let mut ours = BTreeSet::new();
        for number in 0..100 {
            let name = ObjectName::new("demo", format!("preview-{number}"));
            let object = |kind| ObjectRef { kind, name: name.clone() };
            let objects = ["ListenerSet", "HTTPRoute"].map(object);
            let all = objects.iter().map(|object| (object.clone(), seen.clone())).collect();
            note_ours(&mut ours, objects.iter(), &all);
            assert!(ours.iter().eq([&objects[0]]), "{ours:?}");
        }
    }
}
