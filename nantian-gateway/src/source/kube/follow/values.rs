//! Reads the Secrets and ConfigMaps that something refers to.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, ListParams},
};
use tokio::time::{Instant, sleep_until};

use super::server::{Pause, Server, is_ready};
use crate::source::{
    kind::Kind,
    kube::{cache::ObjectCache, said},
    objects::ObjectRef,
};

/// How many are read at once, each of which may have a megabyte.
const AT_ONCE: usize = 8;

/// What is said in the place of a kind where one cannot be read.
const VALUES: &str = "Secrets and ConfigMaps that are referred to";

/// For how long the pauses of one that could not be read grow after it was to be read again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Reads those that `cache` wants, for as long as this is polled.
pub(super) async fn read_values(client: &Client, cache: &ObjectCache, server: &Server) {
    let (mut reading, mut names) = (FuturesUnordered::new(), BTreeSet::<ObjectRef>::new());
    let (mut failed, mut pause, mut again) = (Failed::default(), Pause::default(), None);
    loop {
        // Nothing needs to have been read for that: what could not be may be gone.
        if names.is_empty() && cache.is_read() {
            server.over(&mut pause, VALUES);
            server.read(VALUES);
        }
        let now = Instant::now();
        if again.is_none() {
            let room = AT_ONCE.saturating_sub(names.len());
            let mut next = cache.wanted(room, |name| names.contains(name) || failed.knows(name));
            let room = room.saturating_sub(next.len());
            next.extend(cache.wanted(room, |name| names.contains(name) || !failed.is_due(name, now)));
            for (name, version) in next {
                names.insert(name.clone());
                reading.push(async move {
                    let object = read(client, &name).await;
                    (name, version, object)
                });
            }
        }
        let until = again.or_else(|| failed.next_due(now));
        let paused = async move {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some((name, version, object)) = reading.next(), if !names.is_empty() => {
                names.remove(&name);
                match object {
                    Ok(object) => {
                        failed.forget(&name);
                        cache.put_value(&name, &version, object);
                    }
                    Err(error) => {
                        server.expect(VALUES);
                        server.miss(VALUES, &format!("{name}: {}", said(&error)));
                        let is_there = is_ready(client).await;
                        match is_there {
                            true => server.tell(&mut pause, VALUES, &error),
                            false => server.lost(&pause, &error),
                        }
                        let (now, wait) = (Instant::now(), pause.next());
                        match is_there {
                            // The others may be read all the same.
                            true => failed.add(name, now),
                            false => again = Some(now + wait),
                        }
                    }
                }
            }
            () = cache.wants() => {}
            () = paused => again = None,
        }
    }
}

/// Those that the server is there for and that could not be read: when each is to be read again, and its
/// pauses.
#[derive(Debug, Default)]
struct Failed(BTreeMap<ObjectRef, (Instant, Pause)>);

impl Failed {
    /// Another one, or one that has failed again.
    fn add(&mut self, name: ObjectRef, now: Instant) {
        // What was not wanted any more when it was due has not come back.
        self.0.retain(|known, (due, _)| *known == name || *due + REMEMBERED > now);
        let (due, pause) = self.0.entry(name).or_insert_with(|| (now, Pause::default()));
        *due = now + pause.next();
    }

    fn forget(&mut self, name: &ObjectRef) {
        self.0.remove(name);
    }

    fn knows(&self, name: &ObjectRef) -> bool {
        self.0.contains_key(name)
    }

    fn is_due(&self, name: &ObjectRef, now: Instant) -> bool {
        self.0.get(name).is_some_and(|(due, _)| *due <= now)
    }

    /// When the next one is to be read again that is not yet.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|(due, _)| *due).filter(|due| *due > now).min()
    }
}

/// One of them, as it is now; nothing if it is not there.
async fn read(client: &Client, name: &ObjectRef) -> Result<Option<(Kind, DynamicObject)>, Error> {
    let (kind, resource) = match name.kind {
        "Secret" => (Kind::Secret, ApiResource::erase::<Secret>(&())),
        _ => (Kind::ConfigMap, ApiResource::erase::<ConfigMap>(&())),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &name.name.namespace, &resource);
    // A list of one needs no right that the watch does not need, too.
    let selection = ListParams::default().fields(&format!("metadata.name={}", name.name.name));
    Ok(api.list(&selection).await?.items.into_iter().next().map(|object| (kind, object)))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::{
        sync::watch,
        time::{sleep, timeout},
    };
    use tower::service_fn;

    use super::*;

    /// A client of a server that lets nobody read what has `bad` in its name, and has everything else.
    fn client() -> Client {
        let answer = |request: Request<Body>| async move {
            let query = request.uri().query().unwrap_or_default();
            let (code, text) = match (request.uri().path(), query.contains("bad")) {
                ("/readyz", _) => (200_u16, "ok".to_owned()),
                (_, true) => (403, "text".to_owned()),
                _ => {
                    let items = [secret("good")];
                    let list =
                        json!({ "kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": items });
                    (200, list.to_string())
                }
            };
            Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(text.into_bytes())).unwrap())
        };
        Client::new(service_fn(answer), "default")
    }

    fn secret(name: &str) -> Value {
        json!({ "metadata": { "name": name, "namespace": "demo", "uid": "u", "resourceVersion": "1" } })
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_cannot_be_read_hold_up_no_other_and_are_told_of_no_longer_than_they_are_wanted() {
        let cache = Arc::new(ObjectCache::default());
        let mut names: Vec<String> = (0..2 * AT_ONCE).map(|number| format!("bad-{number}")).collect();
        names.push("good".to_owned());
        for name in &names {
            let secret = serde_json::from_value(secret(name)).unwrap();
            cache.put(Kind::Secret, &ApiResource::erase::<Secret>(&()), secret);
        }
        let references: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
        let listener = json!({ "tls": { "certificateRefs": references } });
        let gateway = json!({
            "metadata": { "name": "web", "namespace": "demo" }, "spec": { "listeners": [listener] },
        });
        let gateway: DynamicObject = serde_json::from_value(gateway).unwrap();
        // Of which version is all the same.
        cache.put(Kind::Gateway, &ApiResource::erase::<Secret>(&()), gateway.clone());
        let (is_up, mut shown) = watch::channel(false);
        let server = Server::new(is_up, watch::Sender::default());
        server.find();
        let client = client();
        let seen = async {
            shown.wait_for(|is_up| !*is_up).await.unwrap();
            sleep(Duration::from_secs(10)).await;
            let read: Vec<_> = cache.take().into_keys().map(|name| name.to_string()).collect();
            assert_eq!(read, ["Secret demo/good"]);
            cache.remove(Kind::Gateway, &gateway.metadata);
            shown.wait_for(|is_up| *is_up).await.unwrap();
        };
        tokio::select! {
            () = read_values(&client, &cache, &server) => panic!("it has no end"),
            seen = timeout(Duration::from_secs(60), seen) => seen.unwrap(),
        }
    }
}
