//! The gateway with the objects of a cluster.

mod api_server;
mod fronts;
mod installations;
mod kubectl;
mod leader;
mod plugins;
mod references;
mod source;
mod status;

use self::api_server::ApiServer;
use crate::support::{Backend, Port, Running, World, eventually, manifests, rule, to};

/// A cluster with one Gateway, and the gateway that serves it.
struct Cluster {
    server: ApiServer,
    gateway: Running,
}

impl Cluster {
    /// Serves the Service `a` on `/`.
    async fn start(backend: &Backend) -> Self {
        Self::start_with(backend, &[]).await
    }

    /// The same, with further options of the gateway.
    async fn start_with(backend: &Backend, options: &[&str]) -> Self {
        let server = ApiServer::start().await;
        let port = Port::reserve();
        server.apply(&manifests::gateway(&[port.listener("http", "protocol: HTTP")]));
        server.apply(&manifests::service("a", "http", &[backend]));
        server.apply(&route(&rule("/", &to("a"))));
        let gateway = World::of_cluster(port, &server.kubeconfig()).options(options).start().await;
        Self { server, gateway }
    }

    /// Waits until `GET path` has this status.
    async fn becomes(&self, path: &str, status: u16) {
        eventually(&format!("{path} answers {status}"), async || {
            self.gateway.get(path).await.status() == status
        })
        .await;
    }
}

/// The HTTPRoute `all` with this rule.
fn route(rule: &str) -> String {
    manifests::route("all", "", &[rule.to_owned()])
}
