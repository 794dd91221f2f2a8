//! The gateway with the objects of a cluster.

mod api_server;
mod fronts;
mod installations;
mod kubectl;
mod leader;
mod namespaces;
mod plugins;
mod references;
mod source;
mod status;
mod values;

use serde_json::Value;

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
        let port = apply_gateway(&server);
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

/// Applies the Gateway `demo`, whose listener for HTTP has this port.
fn apply_gateway(server: &ApiServer) -> Port {
    let port = Port::reserve();
    server.apply(&manifests::gateway(&[port.listener("http", "protocol: HTTP")]));
    port
}

/// The condition of this type in a status, or in the part of one that is for a parent.
fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// The HTTPRoute `all` with this rule.
fn route(rule: &str) -> String {
    manifests::route("all", "", &[rule.to_owned()])
}
