//! Keeps a mirror of the cluster, for as long as the process runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject},
    runtime::watcher::{self, Event, watcher},
};
use tokio::{sync::watch, time::sleep};

use super::{discovery::served, mirror::Mirror};
use crate::source::kind::Kind;

/// How often kinds that are not served are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// The first pause after a failure; it doubles
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// until it is this long.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Follows every kind that the API server serves, also those whose CRDs appear later, and forgets the objects of those
/// whose CRDs are deleted. As long as the server cannot be reached, the mirror stays as it is.
///
/// # Cancellation
/// Dropping the future ends the watches; the mirror stays as it is.
pub async fn follow(client: Client, mirror: Arc<Mirror>) {
    let mut following = FuturesUnordered::<Pin<Box<dyn Future<Output = Kind> + Send>>>::new();
    let mut listed: BTreeMap<Kind, watch::Receiver<bool>> = BTreeMap::new();
    let mut pause = Pause::default();
    let mut is_discovered = false;
    loop {
        let wanted: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !listed.contains_key(kind)).collect();
        let wait = match served(&client, &wanted).await {
            Ok(found) => {
                for (kind, resource) in found {
                    tracing::debug!(kind = resource.kind, version = resource.version, "kind is served");
                    let (done, is_listed) = watch::channel(false);
                    listed.insert(kind, is_listed);
                    let events = follow_kind(client.clone(), kind, resource, Arc::clone(&mirror), done);
                    following.push(Box::pin(events));
                }
                is_discovered = true;
                pause = Pause::default();
                LOOK_AGAIN
            }
            Err(error) => {
                pause.tell("all", &error);
                pause.next()
            }
        };
        let mut all_listed = pin!(all_listed(listed.values().cloned().collect()));
        let mut wait = pin!(sleep(wait));
        loop {
            tokio::select! {
                () = &mut wait => break,
                Some(gone) = following.next(), if !following.is_empty() => drop(listed.remove(&gone)),
                () = &mut all_listed, if is_discovered && !mirror.is_complete() => {
                    tracing::info!(kinds = listed.len(), objects = mirror.len(), "the cluster is read");
                    mirror.set_complete();
                }
            }
        }
    }
}

/// Waits until every kind was listed once, or turned out not to be there.
async fn all_listed(kinds: Vec<watch::Receiver<bool>>) {
    for mut is_listed in kinds {
        // Its sender is dropped when the kind is gone.
        let _ = is_listed.wait_for(|listed| *listed).await;
    }
}

/// Follows one kind until it is not served any more.
async fn follow_kind(
    client: Client,
    kind: Kind,
    resource: ApiResource,
    mirror: Arc<Mirror>,
    done: watch::Sender<bool>,
) -> Kind {
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let mut events = pin!(watcher(api, watcher::Config::default()));
    let mut listed = BTreeSet::new();
    let mut pause = Pause::default();
    while let Some(event) = events.next().await {
        let error = match event {
            Ok(event) => {
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(object) => listed.extend(mirror.put(kind, &resource.plural, object)),
                    Event::InitDone => {
                        mirror.retain(kind, &listed);
                        done.send_replace(true);
                        pause.over(&resource.kind);
                    }
                    Event::Apply(object) => {
                        mirror.put(kind, &resource.plural, object);
                        pause.over(&resource.kind);
                    }
                    Event::Delete(object) => mirror.remove(kind, &object.metadata),
                }
                continue;
            }
            Err(error) => error,
        };
        if is_gone(&error) {
            tracing::info!(kind = resource.kind, "kind is not served any more");
            mirror.retain(kind, &BTreeSet::new());
            break;
        }
        if !is_expiry(&error) {
            pause.tell(&resource.kind, &error);
            sleep(pause.next()).await;
        }
    }
    kind
}

/// Whether the server answers, and knows no such kind.
fn is_gone(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    matches!(error, InitialListFailed(Error::Api(status)) | WatchStartFailed(Error::Api(status)) if status.code == 404)
}

/// Whether the server has forgotten the version from which the watch went on: everything is listed again then.
fn is_expiry(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::WatchStartFailed(Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

/// Pauses that grow, and what is said about them.
#[derive(Debug)]
struct Pause {
    next: Duration,
    is_told: bool,
}

impl Default for Pause {
    fn default() -> Self {
        Self { next: SHORTEST_PAUSE, is_told: false }
    }
}

impl Pause {
    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        // Replicas that lost the server together do not come back together.
        pause.mul_f64(0.5 + fastrand::f64())
    }

    /// Says once that something is wrong.
    fn tell(&mut self, kind: &str, error: &(dyn std::error::Error + 'static)) {
        // One interruption is how a watch ends when the server restarts.
        if self.next > SHORTEST_PAUSE && !self.is_told {
            self.is_told = true;
            let error = crate::respond::Chain(error);
            tracing::warn!(%error, kind, "kind cannot be watched; its objects stay as they were");
        }
    }

    /// Nothing is wrong any more.
    fn over(&mut self, kind: &str) {
        if self.is_told {
            tracing::info!(kind, "kind is watched again");
        }
        *self = Self::default();
    }
}
