//! Keeps a cache of the cluster, for as long as the process runs.

mod kind;
mod server;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use kube::{Client, Error, api::ApiResource};
use tokio::{sync::watch, time::sleep};

use self::{
    kind::follow_kind,
    server::{Pause, Server, is_ready},
    values::read_values,
};
use super::{
    cache::ObjectCache,
    discovery::served,
    said,
    scope::{Part, Scope},
};
use crate::source::kind::Kind;

/// How often kinds that are not served are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Follows every kind that the API server serves, also those whose CRDs appear later, and forgets the objects
/// of those whose CRDs are deleted; of kinds with a namespace what is in `scope`. As long as the server
/// cannot be reached, the cache stays as it is.
///
/// `is_up` is told whether all of it is followed: not before the server was first found, while it is away, or
/// while a kind cannot be watched. `unread` is told what is still to be read for the first time, and why it
/// could not be.
///
/// # Cancellation
/// Dropping the future ends the watches; the cache stays as it is.
pub async fn follow(
    client: Client,
    scope: Scope,
    cache: Arc<ObjectCache>,
    is_up: watch::Sender<bool>,
    unread: watch::Sender<String>,
) {
    let server = Arc::new(Server::new(is_up, unread));
    tokio::select! {
        () = read_values(&client, &cache, &server) => {}
        () = follow_kinds(&client, scope, &cache, &server) => {}
    }
}

async fn follow_kinds(client: &Client, scope: Scope, cache: &Arc<ObjectCache>, server: &Arc<Server>) {
    let mut following = FollowedKinds::new(client.clone(), scope, Arc::clone(cache), Arc::clone(server));
    server.expect(KINDS);
    let mut pause = Pause::default();
    loop {
        let wanted = following.wanted();
        // A server that is starting may not know the kinds of its CRDs yet.
        let needs_to_know = !cache.is_complete() || server.is_lost();
        let wait = match following.until(discover(client, &wanted, needs_to_know)).await {
            Discovered::Starting => {
                server.miss(KINDS, "the API server is starting");
                pause.next()
            }
            Discovered::Found(found) => {
                server.find();
                server.read(KINDS);
                following.add(&wanted, found);
                server.over(&mut pause, ALL);
                LOOK_AGAIN
            }
            Discovered::Failed(error, is_there) => {
                server.miss(KINDS, &said(&error));
                match is_there {
                    true => server.tell(&mut pause, ALL, &error),
                    false => server.lost(&pause, &error),
                }
                pause.next()
            }
        };
        following.until(sleep(wait)).await;
    }
}

/// What is said in the place of a kind where none can be looked for.
const ALL: &str = "all";
/// What is read before any kind is.
const KINDS: &str = "which kinds are served";

/// What a look for kinds has shown.
enum Discovered {
    /// The server may not know its kinds yet.
    Starting,
    /// These are served.
    Found(Vec<(Kind, ApiResource)>),
    /// It could not be seen; whether the server is there all the same.
    Failed(Error, bool),
}

async fn discover(client: &Client, wanted: &[Kind], needs_to_know: bool) -> Discovered {
    let has_started = !needs_to_know || is_ready(client).await;
    match served(client, wanted).await {
        Ok(_) if !has_started => Discovered::Starting,
        Ok(found) => Discovered::Found(found),
        Err(error) => Discovered::Failed(error, has_started && is_ready(client).await),
    }
}

/// The kinds that are followed.
struct FollowedKinds {
    client: Client,
    scope: Scope,
    cache: Arc<ObjectCache>,
    server: Arc<Server>,
    /// Each ends with what it has followed.
    parts: FuturesUnordered<Pin<Box<dyn Future<Output = Part> + Send>>>,
    /// Whether each was listed once.
    listed: BTreeMap<Part, watch::Receiver<bool>>,
    is_discovered: bool,
}

impl FollowedKinds {
    fn new(client: Client, scope: Scope, cache: Arc<ObjectCache>, server: Arc<Server>) -> Self {
        let (parts, listed) = Default::default();
        Self { client, scope, cache, server, parts, listed, is_discovered: false }
    }

    /// The kinds of which something is not followed.
    fn wanted(&self) -> Vec<Kind> {
        let is_followed = |part: &Part| self.listed.contains_key(part);
        Kind::ALL.into_iter().filter(|kind| !self.scope.parts(*kind).iter().all(is_followed)).collect()
    }

    /// Follows those that were found among the wanted ones, too.
    fn add(&mut self, wanted: &[Kind], found: Vec<(Kind, ApiResource)>) {
        let is_found = |kind: &Kind| found.iter().any(|(known, _)| known == kind);
        self.cache.set_absent(wanted.iter().copied().filter(|kind| !is_found(kind)).collect());
        for (kind, resource) in found {
            tracing::debug!(kind = resource.kind, version = resource.version, "kind is served");
            for part in self.scope.parts(kind) {
                self.follow(part, &resource);
            }
        }
        self.is_discovered = true;
    }

    /// Follows a part of a kind, unless it is followed already.
    fn follow(&mut self, part: Part, resource: &ApiResource) {
        if self.listed.contains_key(&part) {
            return;
        }
        self.server.expect(&part.to_string());
        let (done, is_listed) = watch::channel(false);
        self.listed.insert(part.clone(), is_listed);
        let (cache, server) = (Arc::clone(&self.cache), Arc::clone(&self.server));
        let (client, resource) = (self.client.clone(), resource.clone());
        self.parts.push(Box::pin(follow_kind(client, part, resource, cache, server, done)));
    }

    /// Follows the kinds until something else is done. Returns what that gives.
    async fn until<T>(&mut self, done: impl Future<Output = T>) -> T {
        let mut done = pin!(done);
        let mut all_read = pin!(all_read(self.listed.values().cloned().collect(), Arc::clone(&self.cache)));
        loop {
            tokio::select! {
                done = &mut done => return done,
                Some(gone) = self.parts.next(), if !self.parts.is_empty() => drop(self.listed.remove(&gone)),
                () = &mut all_read, if self.is_discovered && !self.cache.is_complete() => {
                    let kinds: BTreeSet<_> = self.listed.keys().map(|part| part.kind).collect();
                    let (kinds, objects) = (kinds.len(), self.cache.len());
                    tracing::info!(kinds, objects, "the cluster is read");
                    self.cache.set_complete();
                }
            }
        }
    }
}

/// Waits until every kind was listed once, or turned out not to be there, and what is referred to was read.
async fn all_read(kinds: Vec<watch::Receiver<bool>>, cache: Arc<ObjectCache>) {
    for mut is_listed in kinds {
        // Its sender is dropped when the kind is gone.
        let _ = is_listed.wait_for(|listed| *listed).await;
    }
    cache.values_read().await;
}
