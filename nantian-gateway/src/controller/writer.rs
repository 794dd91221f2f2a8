//! Brings what is true into the status of each object.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use super::{events::Events, lease::Lease, status::merged};
use crate::{
    control::{ConfigView, View},
    source::{
        ObjectRef,
        kube::{Mirror, Seen},
    },
};

/// Changes that follow one another this closely are written together.
const GATHER: Duration = Duration::from_millis(50);
/// When what could not be written is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// Writes that are under way at once.
const AT_ONCE: usize = 16;

/// Writes status and events while it is the leader.
pub struct Writer {
    client: Client,
    mirror: Arc<Mirror>,
    view: watch::Receiver<Option<Arc<ConfigView>>>,
    leads: watch::Receiver<bool>,
    events: Events,
    /// What a GatewayClass claims.
    features: Vec<&'static str>,
    /// The versions of objects whose status is as `judged_by` wants it.
    judged: HashMap<ObjectRef, Option<String>>,
    judged_by: Option<Arc<ConfigView>>,
}

/// A status to write.
struct Pending {
    object: ObjectRef,
    seen: Seen,
    status: Value,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("leads", &self.leads).finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes what `view` shows into the objects of `mirror`, while the process holds `lease`. GatewayClasses claim
    /// `features`.
    pub fn new(
        client: Client,
        mirror: Arc<Mirror>,
        view: &View,
        lease: &Lease,
        identity: String,
        features: Vec<&'static str>,
    ) -> Self {
        let events = Events::new(client.clone(), identity);
        let (view, leads) = (view.watch(), lease.holds());
        let (judged, judged_by) = (HashMap::new(), None);
        Self { client, mirror, view, leads, events, features, judged, judged_by }
    }

    /// Writes until `view` is no more.
    ///
    /// # Cancellation
    /// Dropping the future may leave a status unwritten; whoever leads next writes it.
    pub async fn run(mut self) {
        let mut reports = self.mirror.reports();
        let mut is_done = true;
        loop {
            tokio::select! {
                changed = self.view.changed() => if changed.is_err() { return },
                changed = self.leads.changed() => if changed.is_err() { return },
                changed = reports.changed() => if changed.is_err() { return },
                () = sleep(RETRY), if !is_done => {}
            }
            sleep(GATHER).await;
            reports.borrow_and_update();
            let config = self.view.borrow_and_update().clone();
            if !*self.leads.borrow_and_update() {
                self.judged.clear();
                continue;
            }
            let Some(config) = config else { continue };
            is_done = self.write_all(&config).await && self.events.tell(&config, &self.mirror).await;
        }
    }

    /// Writes every status that is not as it should be. Returns whether all of them are now.
    async fn write_all(&mut self, config: &Arc<ConfigView>) -> bool {
        if self.judged_by.as_ref().is_none_or(|judged_by| !Arc::ptr_eq(judged_by, config)) {
            self.judged.clear();
            self.judged_by = Some(Arc::clone(config));
        }
        let pending = self.pending(config);
        let mirror = &self.mirror;
        let written = stream::iter(pending).map(|pending| write(&self.client, mirror, pending));
        let failed: Vec<ObjectRef> =
            written.buffer_unordered(AT_ONCE).filter_map(|failed| async { failed }).collect().await;
        for object in &failed {
            self.judged.remove(object);
        }
        failed.is_empty()
    }

    fn pending(&mut self, config: &ConfigView) -> Vec<Pending> {
        let (judged, features, now) = (&mut self.judged, &self.features, Timestamp::now());
        self.mirror.with(|all| {
            judged.retain(|object, _| all.contains_key(object));
            let mut pending = Vec::new();
            for (object, seen) in all.iter().filter(|(object, _)| HAVE_STATUS.contains(&object.kind)) {
                if judged.get(object) == Some(&seen.resource_version) {
                    continue;
                }
                let truth = config.translation.statuses.get(object);
                match merged(object, &seen.status, &now, truth, features) {
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

/// Writes one status. Returns the object if that has to be tried again.
async fn write(client: &Client, mirror: &Mirror, pending: Pending) -> Option<ObjectRef> {
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
            mirror.wrote(
                &object,
                &seen,
                &written.metadata,
                written.data.get("status").cloned().unwrap_or_default(),
            );
            None
        }
        Err(Error::Api(status)) if status.code == 404 => None,
        Err(Error::Api(status)) if status.code == 409 => Some(object),
        Err(error) => {
            tracing::debug!(%error, %object, "a status cannot be written");
            Some(object)
        }
    }
}
