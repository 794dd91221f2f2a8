//! An API server in memory: list, watch, status, conflicts and leases, over real HTTP.
//!
//! It keeps to what clients can see of the real one: resource versions, generations, bookmarks, expiry of old
//! versions, merge patches, the status subresource, discovery, and kinds that come and go with their CRDs. It
//! judges no object.

mod answer;
mod discovery;
mod kinds;
mod store;
mod watch;

use std::{
    convert::Infallible,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::{JoinHandle, JoinSet},
};

pub(crate) use self::store::Write;
use self::{answer::Body, store::Store};

/// A server on a port of its own, for as long as this lives.
#[derive(Debug)]
pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    store: Arc<Store>,
    serving: Option<JoinHandle<()>>,
    directory: TempDir,
}

impl ApiServer {
    /// A server with the kinds of Kubernetes, of the Gateway API, and no objects.
    pub(crate) async fn start() -> Self {
        let store = Arc::new(Store::default());
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = listener.local_addr().unwrap();
        let serving = Some(tokio::spawn(serve(listener, Arc::clone(&store))));
        Self { address, store, serving, directory: TempDir::new().unwrap() }
    }

    /// Ends every connection and takes no new ones; the objects stay.
    pub(crate) async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // It was aborted.
            let _ = serving.await;
        }
    }

    /// Serves again on the same port after a stop.
    pub(crate) fn start_again(&mut self) {
        let listener = listen(self.address);
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.store))));
    }

    /// A kubeconfig for it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.directory.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "test", "user": {} }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Creates or replaces each object of a text of manifests, as `kubectl apply` does.
    pub(crate) fn apply(&self, manifests: &str) {
        for document in manifests.split("\n---") {
            if !document.trim().is_empty() {
                self.store.apply(&serde_saphyr::from_str(document).unwrap());
            }
        }
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.store.delete(plural, namespace, name);
    }

    /// Sets the status of an object, as its controller does.
    pub(crate) fn set_status(&self, plural: &str, namespace: &str, name: &str, status: Value) {
        self.store.set_status(plural, namespace, name, status);
    }

    /// An object as it is now.
    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store.get(plural, namespace, name)
    }

    /// The status of an object as it is now.
    pub(crate) fn status(&self, plural: &str, namespace: &str, name: &str) -> Value {
        self.get(plural, namespace, name).unwrap()["status"].take()
    }

    /// What events tell of the objects of a name.
    pub(crate) fn notes(&self, name: &str) -> Vec<String> {
        let about = self.all("events").into_iter().filter(|event| event["regarding"]["name"] == name);
        about.map(|event| event["note"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Every object of a kind.
    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        self.store.all(plural)
    }

    /// What clients have written so far, what [`ApiServer::apply`] wrote not included.
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.store.writes()
    }

    /// How many objects of a kind were deleted, by whomever, since versions were forgotten last.
    pub(crate) fn deletions(&self, plural: &str) -> usize {
        let state = self.store.state();
        state.history.iter().filter(|entry| entry.plural == plural && entry.kind == "DELETED").count()
    }

    /// Serves a kind in these versions, as another release of its CRDs does.
    pub(crate) fn set_versions(&self, plural: &str, versions: &[&str]) {
        self.store.change(|state| {
            let kind = state.kinds.iter_mut().find(|kind| kind.plural == plural).unwrap();
            kind.versions = versions.iter().map(|version| (*version).to_owned()).collect();
        });
    }

    /// Lets nobody write the status of a kind.
    pub(crate) fn forbid_status(&self, plural: &str) {
        self.store.change(|state| state.guarded.insert(plural.to_owned()));
    }

    /// Lets nobody read these kinds, and all others.
    pub(crate) fn set_hidden(&self, plurals: &[&str]) {
        let hidden = plurals.iter().map(|plural| (*plural).to_owned()).collect();
        self.store.change(|state| state.hidden = hidden);
    }

    /// Drops a field of the status of a kind, as an older release of its CRD does.
    pub(crate) fn prune_status(&self, plural: &str, field: &'static str) {
        self.store.change(|state| state.pruned.insert(plural.to_owned(), field));
    }

    /// Is as if it had just been started, or not any more: kinds of CRDs are not known, and `/readyz` says
    /// so.
    pub(crate) fn set_starting(&self, is_starting: bool) {
        self.store.change(|state| state.is_starting = is_starting);
    }

    /// Answers no more requests for paths with this in them; their connections stay open.
    pub(crate) fn set_silent(&self, silent: Option<&'static str>) {
        self.store.change(|state| state.silent = silent);
    }

    /// Takes no Service of type LoadBalancer with TCP and UDP, as servers before 1.26 and some load
    /// balancers.
    pub(crate) fn refuse_mixed_protocols(&self) {
        self.store.change(|state| state.refuses_mixed_protocols = true);
    }

    /// How often clients have asked for a path.
    pub(crate) fn requests(&self, path: &str) -> usize {
        self.store.state().requests.iter().filter(|asked| *asked == path).count()
    }

    pub(crate) fn forget_requests(&self) {
        self.store.state().requests.clear();
    }

    /// Sends every watcher a bookmark.
    pub(crate) fn bookmark(&self) {
        self.store.bookmark();
    }

    /// Forgets all versions but the present one, and ends every watch with 410.
    pub(crate) fn expire(&self) {
        self.store.expire();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

async fn serve(listener: TcpListener, store: Arc<Store>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let store = Arc::clone(&store);
        let service = service_fn(move |request: Request<Incoming>| {
            let store = Arc::clone(&store);
            async move { Ok::<Response<Body>, Infallible>(answer::answer(&store, request).await) }
        });
        connections.spawn(async move {
            // A client that leaves is no concern of the server.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
