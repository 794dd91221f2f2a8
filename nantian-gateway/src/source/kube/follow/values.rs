//! Reads the Secrets and ConfigMaps that something refers to.

use std::{collections::BTreeSet, future::pending};

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

/// Reads those that `cache` wants, for as long as this is polled.
pub(super) async fn read_values(client: &Client, cache: &ObjectCache, server: &Server) {
    let (mut reading, mut names) = (FuturesUnordered::new(), BTreeSet::new());
    let (mut pause, mut again) = (Pause::default(), None);
    loop {
        if again.is_none() {
            for (name, version) in cache.wanted(AT_ONCE.saturating_sub(names.len()), &names) {
                names.insert(name.clone());
                reading.push(async move {
                    let object = read(client, &name).await;
                    (name, version, object)
                });
            }
        }
        let paused = async move {
            match again {
                Some(again) => sleep_until(again).await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some((name, version, object)) = reading.next(), if !names.is_empty() => {
                names.remove(&name);
                match object {
                    Ok(object) => cache.put_value(&name, &version, object),
                    Err(error) => {
                        server.expect(VALUES);
                        server.miss(VALUES, &format!("{name}: {}", said(&error)));
                        match is_ready(client).await {
                            true => server.tell(&mut pause, VALUES, &error),
                            false => server.lost(&pause, &error),
                        }
                        again = Some(Instant::now() + pause.next());
                    }
                }
                if names.is_empty() && cache.is_read() {
                    server.over(&mut pause, VALUES);
                    server.read(VALUES);
                }
            }
            () = cache.wants() => {}
            () = paused => again = None,
        }
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
