//! Keeps one kind in the cache.

use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::server::{Pause, Server, is_ready};
use crate::source::{
    kind::Kind,
    kube::{cache::ObjectCache, discovery::served, said, scope::Part},
};

/// How long a kind has to be missing before its objects are forgotten. A CRD that is deleted takes them along
/// one by one; this is for those of which nobody told.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// How long the objects of a namespace have to be refused before nothing waits for them any longer: a server
/// that is starting may not know yet who has a right to them.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// How long after a watch has failed it is well again, unless it fails anew: more than the server may take to
/// answer one.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// How long the server lets a watch last, in seconds. A connection that is dead and has not said so is given
/// up then.
const WATCH_LASTS: u32 = 60;
/// Objects of a page of metadata alone, of which each may have 256 KiB of annotations.
const SMALL_PAGE: u32 = 200;

/// Follows a part of a kind until no version of it is served any more.
pub(super) async fn follow_kind(
    client: Client,
    part: Part,
    mut resource: ApiResource,
    cache: Arc<ObjectCache>,
    server: Arc<Server>,
    done: watch::Sender<bool>,
) -> Part {
    let label = part.to_string();
    // What was listed in one version is there in the next one, too.
    while let Some(next) = follow_version(&client, &part, &resource, &cache, &server, &done).await {
        server.forget(&label);
        resource = next;
    }
    server.forget(&label);
    cache.set_listed(&part);
    server.read(&label);
    part
}

/// Follows one version of it until it is not served any more. Returns the one that is served in its
/// place.
async fn follow_version(
    client: &Client,
    part: &Part,
    resource: &ApiResource,
    cache: &ObjectCache,
    server: &Server,
    done: &watch::Sender<bool>,
) -> Option<ApiResource> {
    let (kind, label) = (part.kind, part.to_string());
    let (api, mut stream) = (part.api(client, resource), events(client, part, resource));
    let mut listed = BTreeSet::new();
    let (mut pause, mut well_at, mut unwatched) = (Pause::default(), None::<Instant>, Unwatched::default());
    loop {
        // A watch that goes on where it was broken off says so by nothing but that it does not fail.
        let patience = well_at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let error = match timeout(patience, stream.next()).await {
            Err(_) => {
                cache.set_listed(part);
                server.over(&mut pause, &label);
                (well_at, unwatched) = (None, Unwatched::default());
                continue;
            }
            Ok(None) => return None,
            Ok(Some(Ok(event))) => {
                // Before a list there is nothing but the wish for one.
                if !matches!(event, Event::Init) {
                    unwatched = Unwatched::default();
                    server.find();
                }
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(object) => listed.extend(cache.put(kind, resource, object)),
                    Event::InitDone => {
                        cache.retain(part, &mem::take(&mut listed));
                        cache.set_listed(part);
                        done.send_replace(true);
                        server.read(&label);
                        server.over(&mut pause, &label);
                    }
                    Event::Apply(object) => {
                        cache.put(kind, resource, object);
                        server.over(&mut pause, &label);
                    }
                    Event::Delete(object) => cache.remove(kind, &object.metadata),
                }
                continue;
            }
            Ok(Some(Err(error))) => error,
        };
        server.miss(&label, &said(&error));
        well_at = None;
        if is_expiry(&error) {
            continue;
        }
        let mut may_be_well = goes_on(&error);
        match unwatched.note(ask(client, &api, part, resource, &error).await) {
            Answer::Moved(next) => {
                tracing::info!(kind = label, version = next.version, "kind is served in another version");
                return Some(next);
            }
            Answer::Missing if unwatched.is_missing_for(GONE_AFTER) => break,
            Answer::Missing => {}
            Answer::Nothing => server.lost(&pause, &error),
            Answer::Refused { is_listed } => {
                // What is made meanwhile may guard the rest, and is news when all is listed anew, or when the
                // watch has gone on from what was listed.
                withhold(part, is_listed, cache, done);
                if !is_listed {
                    (stream, may_be_well) = (events(client, part, resource), false);
                }
                let is_for_long = unwatched.is_refused_for(REFUSED_FOR);
                if is_for_long && cache.lacks_namespace(part) {
                    cache.clear(part);
                    server.spare(&mut pause, &label);
                } else {
                    server.tell(&mut pause, &label, &error);
                }
                if is_for_long && !cache.is_complete() {
                    done.send_replace(true);
                    server.read(&label);
                }
            }
            Answer::Something => server.tell(&mut pause, &label, &error),
        }
        server.wait(&mut pause).await;
        // From when the server is asked for a watch: what it took to answer until now is none of its time.
        well_at = may_be_well.then(|| Instant::now() + WELL_AFTER);
    }
    tracing::info!(kind = label, "kind is not served any more");
    cache.retain(part, &BTreeSet::new());
    None
}

/// Withholds the namespace of a part, unless its kind came when all else was read and was never `listed`:
/// without it the namespace is served already.
fn withhold(part: &Part, is_listed: bool, cache: &ObjectCache, listed: &watch::Sender<bool>) {
    if *listed.borrow() || !cache.is_complete() || cache.withholds(part) {
        cache.withhold(part, is_listed);
    }
}

/// Since when a part cannot be watched, for one of two reasons.
#[derive(Debug, Default)]
struct Unwatched {
    missing: Option<Instant>,
    refused: Option<Instant>,
}

impl Unwatched {
    fn note(&mut self, answer: Answer) -> Answer {
        let since = |is_so: bool, since: Option<Instant>| is_so.then(|| since.unwrap_or_else(Instant::now));
        self.missing = since(matches!(answer, Answer::Missing), self.missing);
        self.refused = since(matches!(answer, Answer::Refused { .. }), self.refused);
        answer
    }

    fn is_missing_for(&self, time: Duration) -> bool {
        self.missing.is_some_and(|since| since.elapsed() >= time)
    }

    fn is_refused_for(&self, time: Duration) -> bool {
        self.refused.is_some_and(|since| since.elapsed() >= time)
    }
}

/// What happens to the objects of a part; of some kinds to their metadata alone.
fn events(
    client: &Client,
    part: &Part,
    resource: &ApiResource,
) -> BoxStream<'static, Result<Event<DynamicObject>, watcher::Error>> {
    let selection = selection(part.kind);
    match part.kind.is_read_on_reference() {
        true => watcher(part.api::<PartialObjectMeta>(client, resource), selection)
            .map(|event| event.map(outline))
            .boxed(),
        false => watcher(part.api(client, resource), selection).boxed(),
    }
}

/// Which objects of a kind are watched, and how many are listed at once: of Secrets not those that nothing
/// here can refer to, which may be many.
fn selection(kind: Kind) -> watcher::Config {
    let config = watcher::Config::default().timeout(WATCH_LASTS);
    match kind {
        Kind::Secret => config
            .fields("type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token")
            .page_size(SMALL_PAGE),
        Kind::ConfigMap => config.page_size(SMALL_PAGE),
        _ => config,
    }
}

/// An event of the metadata of an object as one of an object without anything else.
fn outline(event: Event<PartialObjectMeta>) -> Event<DynamicObject> {
    let object =
        |PartialObjectMeta { metadata, .. }| DynamicObject { types: None, metadata, data: Value::Null };
    match event {
        Event::Apply(outline) => Event::Apply(object(outline)),
        Event::Delete(outline) => Event::Delete(object(outline)),
        Event::Init => Event::Init,
        Event::InitApply(outline) => Event::InitApply(object(outline)),
        Event::InitDone => Event::InitDone,
    }
}

/// What the server says of a kind whose watch has failed.
#[derive(Debug)]
enum Answer {
    /// Nothing: it cannot be reached, or has not started and may not know the kind yet.
    Nothing,
    /// There is no such kind.
    Missing,
    /// The kind is there in this version.
    Moved(ApiResource),
    /// There is such a kind, as far as is known, and nobody may see those of the namespace, or only
    /// list them.
    Refused { is_listed: bool },
    /// Anything else.
    Something,
}

async fn ask(
    client: &Client,
    api: &Api<DynamicObject>,
    part: &Part,
    resource: &ApiResource,
    error: &watcher::Error,
) -> Answer {
    if !is_ready(client).await {
        return Answer::Nothing;
    }
    let is_refused = match api.list(&ListParams::default().limit(1)).await {
        Err(Error::Api(status)) if status.code == 404 => false,
        // Whoever has no right to a kind is refused also where there is none.
        Err(Error::Api(status)) if status.code == 403 && part.namespace.is_some() => true,
        Ok(_) if is_refusal(error) && part.namespace.is_some() => return Answer::Refused { is_listed: true },
        _ => return Answer::Something,
    };
    match served(client, &[part.kind]).await {
        Ok(found) => match found.into_iter().next() {
            None => Answer::Missing,
            Some(_) if is_refused => Answer::Refused { is_listed: false },
            Some((_, found)) if found.version == resource.version => Answer::Something,
            Some((_, found)) => Answer::Moved(found),
        },
        Err(_) if is_refused => Answer::Refused { is_listed: false },
        Err(_) => Answer::Something,
    }
}

/// Whether the watch is tried again where it was broken off, without another list.
fn goes_on(error: &watcher::Error) -> bool {
    use watcher::Error::{WatchError, WatchFailed, WatchStartFailed};
    matches!(error, WatchError(_) | WatchFailed(_) | WatchStartFailed(_)) && !is_expiry(error)
}

/// Whether the watch was refused.
fn is_refusal(error: &watcher::Error) -> bool {
    use watcher::Error::{WatchFailed, WatchStartFailed};
    match error {
        WatchFailed(Error::Api(status)) | WatchStartFailed(Error::Api(status)) => status.code == 403,
        _ => false,
    }
}

/// Whether the server has forgotten the version from which the watch went on: everything is listed again
/// then.
fn is_expiry(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::WatchStartFailed(Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
