//! Which of the replicas writes.

use super::{ApiServer, Cluster, apply_gateway};
use crate::support::{Backend, Port, World, eventually, manifests, rule, to};

/// Whether an HTTPRoute was told what became of it.
fn is_told(server: &ApiServer, route: &str) -> bool {
    server.status("httproutes", "demo", route)["parents"][0].is_object()
}

#[tokio::test]
async fn the_lease_is_given_back_at_the_end_and_another_replica_writes() {
    let backend = Backend::echo("a").await;
    let mut cluster = Cluster::start(&backend).await;
    let holder = |server: &ApiServer| {
        server.all("leases").first().map(|lease| lease["spec"]["holderIdentity"].clone())
    };
    eventually("somebody leads", async || holder(&cluster.server).is_some_and(|holder| holder.is_string()))
        .await;
    let first = holder(&cluster.server);
    let second = World::of_cluster(Port::reserve(), &cluster.server.kubeconfig()).start().await;
    assert_eq!(holder(&cluster.server), first, "a second replica only serves");
    cluster.gateway.signal("TERM");
    assert!(cluster.gateway.exit().await.success());
    eventually("the other one leads", async || {
        holder(&cluster.server).is_some_and(|holder| holder.is_string() && Some(&holder) != first.as_ref())
    })
    .await;
    cluster.server.apply(&manifests::route("late", "", &[rule("/late", &to("a"))]));
    eventually("it writes", async || is_told(&cluster.server, "late")).await;
    drop(second);
}

#[tokio::test]
async fn a_replica_that_serves_nothing_takes_no_lease() {
    let server = ApiServer::start().await;
    server.set_starting(true);
    let port = apply_gateway(&server);
    let gateway = World::of_cluster(port, &server.kubeconfig()).start_unready();
    eventually("it asks the server twice", async || server.requests("/readyz") > 1).await;
    let of_lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/nantian-gateway";
    assert_eq!(server.requests(of_lease), 0);
    server.set_starting(false);
    eventually("it leads", async || server.all("leases").len() == 1).await;
    assert!(server.requests(of_lease) > 0);
    assert_eq!(gateway.admin("/readyz").await.status(), 200, "it serves before it leads");
}

#[tokio::test]
async fn a_leader_that_is_killed_is_replaced_and_the_next_one_writes() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    let server = &cluster.server;
    let lease = || server.all("leases").into_iter().next();
    let holder = || lease().map(|lease| lease["spec"]["holderIdentity"].clone());
    eventually("somebody leads", async || holder().is_some_and(|holder| holder.is_string())).await;
    let first = holder();
    let second = World::of_cluster(Port::reserve(), &server.kubeconfig()).start().await;
    cluster.gateway.signal("KILL");
    assert_eq!(holder(), first, "nobody gave it back");
    // Of fifteen seconds thirteen are over.
    let mut short = lease().unwrap();
    short["spec"]["leaseDurationSeconds"] = 2.into();
    short["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    server.apply(&short.to_string());
    server.apply(&manifests::route("late", "", &[rule("/late", &to("a"))]));
    eventually("the other one writes", async || is_told(server, "late")).await;
    assert_ne!(holder(), first);
    drop(second);
}
