//! Modules that only some may have, with the credentials that a cluster keeps.

use super::Cluster;
use crate::{
    plugin_registries::{Door, ROBOT, guarded, pull_secret},
    support::{Backend, eventually, plugin},
};

/// Waits until the plugin says so of its module.
async fn is_programmed(cluster: &Cluster, status: &str, reason: &str) {
    eventually(&format!("Programmed is {status} for {reason}"), async || {
        let condition = cluster.gateway.condition("WasmPlugin demo/all", "Programmed").await;
        condition["status"] == status && condition["reason"] == reason
    })
    .await;
}

#[tokio::test]
async fn pull_secret_of_a_cluster_opens_a_registry_of_passwords_and_one_of_tokens() {
    for door in [Door::Basic(ROBOT), Door::Token(ROBOT)] {
        let (origin, backend) = (guarded(door).await, Backend::echo("a").await);
        let registry = origin.address.to_string();
        let cluster = Cluster::start_with(&backend, &["--plugin-sources", "127.0.0.1"]).await;
        cluster.server.apply(&nantian_crd::crds_yaml());
        let wasm = format!("url: \"oci://{registry}/team/plugin:1.0\", imagePullSecret: registry");
        cluster.server.apply(&plugin("all", &wasm));
        cluster.becomes("/", 503).await;
        is_programmed(&cluster, "False", "SecretNotFound").await;
        assert!(origin.seen().is_empty(), "nobody is asked without the credentials");

        cluster.server.apply(&pull_secret(&registry, "sk-wrong"));
        is_programmed(&cluster, "False", "FetchFailed").await;
        cluster.server.apply(&pull_secret(&registry, "sk-registry"));
        cluster.becomes("/", 200).await;
        assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/all"));
        is_programmed(&cluster, "True", "Programmed").await;
        for shown in [cluster.gateway.config().await.to_string(), cluster.gateway.log.text()] {
            assert!(!shown.contains("sk-registry") && !shown.contains("cm9ib3Q6c2st"), "{shown}");
        }
    }
}
