//! The hands of a user, where kubectl is installed.

use std::{
    path::Path,
    process::{Command, Output},
};

use super::ApiServer;
use crate::support::{Backend, Port, World, eventually, manifests, rule, to};

/// Runs kubectl; `None` where there is none.
fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Option<Output> {
    let home = kubeconfig.parent().unwrap();
    // An error is that the program does not exist.
    Command::new("kubectl")
        .env("HOME", home)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        .output()
        .ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_applies_is_served_and_shown() {
    let backend = Backend::echo("a").await;
    let server = ApiServer::start().await;
    let config = server.kubeconfig();
    if kubectl(&config, &["version", "--client"]).is_none() {
        return;
    }
    let run = |arguments: &[&str]| {
        let output = kubectl(&config, arguments).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let port = Port::reserve();
    let file = config.with_file_name("world.yaml");
    let world = [
        nantian_crd::crds_yaml(),
        manifests::gateway(&[port.listener("http", "protocol: HTTP")]),
        manifests::service("a", "http", &[&backend]),
        manifests::route("all", "", &[rule("/", &to("a"))]),
    ];
    std::fs::write(&file, world.join("\n---\n")).unwrap();
    let file = file.to_str().unwrap();
    run(&["apply", "--validate=false", "--filename", file]);
    let gateway = World::of_cluster(port, &config).start().await;
    eventually("the route is served", async || gateway.get("/").await.status() == 200).await;
    let again = run(&["apply", "--validate=false", "--filename", file]);
    assert!(again.contains("httproute.gateway.networking.k8s.io/all unchanged"), "{again}");
    eventually("the condition is shown", async || {
        let query = "jsonpath={.status.parents[0].conditions[?(@.type==\"Accepted\")].status}";
        run(&["get", "httproute", "all", "--namespace", "demo", "--output", query]) == "True"
    })
    .await;
    run(&["delete", "httproute", "all", "--namespace", "demo", "--wait=false"]);
    eventually("the route is gone", async || gateway.get("/").await.status() == 404).await;
}
