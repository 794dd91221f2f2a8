//! Keeps a mirror of the cluster, for as long as the process runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, ListParams},
    runtime::watcher::{self, Event, watcher},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{discovery::served, mirror::Mirror, said::said};
use crate::source::kind::Kind;

/// How often kinds that are not served are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// How long a server that is there again may take until it answers for every kind.
const COMING_BACK: Duration = Duration::from_secs(10);
/// How long a kind has to be missing before its objects are forgotten. A CRD that is deleted takes them along one by one;
/// this is for those of which nobody told.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// How long after a failure a watch may break off again without being broken.
const WELL_AFTER: Duration = Duration::from_secs(30);
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
    let server = Arc::new(Server::default());
    let mut pause = Pause::default();
    let mut is_discovered = false;
    loop {
        let wanted: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !listed.contains_key(kind)).collect();
        // A server that is starting may not know the kinds of its CRDs yet.
        let needs_to_know = !mirror.is_complete() || server.is_lost();
        let has_started = !needs_to_know || is_ready(&client).await;
        if has_started {
            server.find();
        }
        let wait = match served(&client, &wanted).await {
            Ok(_) if !has_started => pause.next(),
            Ok(found) => {
                let is_found = |kind: &Kind| found.iter().any(|(known, _)| known == kind);
                mirror.set_absent(wanted.into_iter().filter(|kind| !is_found(kind)).collect());
                for (kind, resource) in found {
                    tracing::debug!(kind = resource.kind, version = resource.version, "kind is served");
                    let (done, is_listed) = watch::channel(false);
                    listed.insert(kind, is_listed);
                    let events = follow_kind(
                        client.clone(),
                        kind,
                        resource,
                        Arc::clone(&mirror),
                        Arc::clone(&server),
                        done,
                    );
                    following.push(Box::pin(events));
                }
                is_discovered = true;
                pause = Pause::default();
                LOOK_AGAIN
            }
            Err(error) => {
                match has_started && is_ready(&client).await {
                    true => server.tell(&mut pause, "all", &error),
                    false => server.lose(&pause, &error),
                }
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
    server: Arc<Server>,
    done: watch::Sender<bool>,
) -> Kind {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut events = pin!(watcher(api.clone(), selection(kind)));
    let mut listed = BTreeSet::new();
    let (mut pause, mut failed, mut missing) = (Pause::default(), None::<Instant>, None);
    while let Some(event) = events.next().await {
        let error = match event {
            Ok(event) => {
                // Before a list there is nothing but the wish for one.
                if !matches!(event, Event::Init) {
                    missing = None;
                    server.find();
                }
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(object) => listed.extend(mirror.put(kind, &resource, object)),
                    Event::InitDone => {
                        mirror.retain(kind, &listed);
                        done.send_replace(true);
                        pause.over(&resource.kind);
                    }
                    Event::Apply(object) => {
                        mirror.put(kind, &resource, object);
                        pause.over(&resource.kind);
                    }
                    Event::Delete(object) => mirror.remove(kind, &object.metadata),
                }
                continue;
            }
            Err(error) => error,
        };
        if is_expiry(&error) {
            continue;
        }
        // A watch that goes on where it was broken off says so by nothing but its silence.
        let was_well = failed.replace(Instant::now()).is_some_and(|failed| failed.elapsed() >= WELL_AFTER);
        if was_well && had_started(&error) {
            pause.over(&resource.kind);
        }
        match ask(&client, &api).await {
            Answer::Missing => {
                if missing.get_or_insert_with(Instant::now).elapsed() >= GONE_AFTER {
                    tracing::info!(kind = resource.kind, "kind is not served any more");
                    mirror.retain(kind, &BTreeSet::new());
                    break;
                }
            }
            Answer::Nothing => {
                missing = None;
                server.lose(&pause, &error);
            }
            Answer::Something => {
                missing = None;
                server.tell(&mut pause, &resource.kind, &error);
            }
        }
        if server.wait(pause.next()).await {
            pause.next = SHORTEST_PAUSE;
        }
    }
    kind
}

/// Which objects of a kind are watched: of Secrets not those that nothing here can refer to, which may be many and large.
fn selection(kind: Kind) -> watcher::Config {
    let config = watcher::Config::default();
    match kind {
        Kind::Secret => config.fields("type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"),
        _ => config,
    }
}

/// What the server says of a kind whose watch has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nothing: it cannot be reached, or has not started and may not know the kind yet.
    Nothing,
    /// There is no such kind.
    Missing,
    /// Anything else.
    Something,
}

async fn ask(client: &Client, api: &Api<DynamicObject>) -> Answer {
    if !is_ready(client).await {
        return Answer::Nothing;
    }
    match api.list(&ListParams::default().limit(1)).await {
        Err(Error::Api(status)) if status.code == 404 => Answer::Missing,
        _ => Answer::Something,
    }
}

/// Whether the server has started, as far as it lets us know.
async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    match client.request_text(request).await {
        Ok(_) => true,
        Err(Error::Api(status)) => status.code < 500,
        Err(_) => false,
    }
}

/// Whether the server has forgotten the version from which the watch went on: everything is listed again then.
fn is_expiry(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::WatchStartFailed(Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

/// Whether the watch had started that fails.
fn had_started(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(_) | watcher::Error::WatchFailed(_))
}

/// Whether the API server is there, which concerns all kinds at once.
#[derive(Debug, Default)]
struct Server {
    seen: Mutex<Seen>,
    is_back: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    is_lost: bool,
    /// When it was last found after it had been lost.
    found: Option<Instant>,
}

impl Seen {
    fn is_coming_back(&self) -> bool {
        self.found.is_some_and(|found| found.elapsed() < COMING_BACK)
    }
}

impl Server {
    fn is_lost(&self) -> bool {
        self.seen().is_lost
    }

    /// Says once that the server is away; what fails while it comes back is no news.
    fn lose(&self, pause: &Pause, error: &(dyn std::error::Error + 'static)) {
        let mut seen = self.seen();
        if pause.is_repeated() && !seen.is_coming_back() && !seen.is_lost {
            seen.is_lost = true;
            tracing::warn!(
                error = said(error),
                "the API server cannot be reached; what it said last is served on"
            );
        }
    }

    /// The server is there: nothing has to wait for it any longer.
    fn find(&self) {
        let mut seen = self.seen();
        if seen.is_lost {
            *seen = Seen { is_lost: false, found: Some(Instant::now()) };
            tracing::info!("the API server is reached again");
            self.is_back.notify_waiters();
        }
    }

    /// Says once that something is wrong with a kind, of which the server has just answered something.
    fn tell(&self, pause: &mut Pause, kind: &str, error: &(dyn std::error::Error + 'static)) {
        self.find();
        if !self.seen().is_coming_back() {
            pause.tell(kind, error);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for this long, or until the server is back. Returns whether it came back.
    async fn wait(&self, time: Duration) -> bool {
        timeout(time, self.is_back.notified()).await.is_ok()
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

    /// Whether there was a failure before: one interruption is how a watch ends when the server restarts.
    fn is_repeated(&self) -> bool {
        self.next > SHORTEST_PAUSE
    }

    /// Says once that something is wrong with a kind.
    fn tell(&mut self, kind: &str, error: &(dyn std::error::Error + 'static)) {
        if self.is_repeated() && !self.is_told {
            self.is_told = true;
            tracing::warn!(
                error = said(error),
                kind,
                "kind cannot be watched; its objects stay as they were"
            );
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;

    /// A client of a server that answers every path but `/readyz` with 404, and that with `readyz`.
    fn client(readyz: u16) -> Client {
        let answer = move |request: Request<Body>| async move {
            let code = if request.uri().path() == "/readyz" { readyz } else { 404 };
            Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(b"text".to_vec())).unwrap())
        };
        Client::new(service_fn(answer), "default")
    }

    /// Follows Services, of which one is known, for `time`. Returns whether it is still known then.
    async fn is_known_after(time: Duration, readyz: u16) -> bool {
        let mirror = Arc::new(Mirror::default());
        let service: Value = json!({ "metadata": { "name": "a", "namespace": "demo" } });
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        mirror.put(Kind::Service, &resource, serde_json::from_value(service).unwrap());
        let (done, _) = watch::channel(false);
        let following =
            follow_kind(client(readyz), Kind::Service, resource, Arc::clone(&mirror), Arc::default(), done);
        // It ends only when the kind is gone.
        let _ = timeout(time, following).await;
        !mirror.is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_forgotten_once_it_has_been_missing_for_a_minute() {
        assert!(is_known_after(Duration::from_secs(50), 200).await);
        assert!(!is_known_after(Duration::from_secs(80), 200).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_not_started_makes_nothing_forgotten() {
        assert!(is_known_after(Duration::from_secs(3600), 500).await);
    }
}
