//! What is applied is served, whatever the API server does.

use std::time::Duration;

use tokio::time::Instant;

use super::{ApiServer, Cluster, apply_gateway, condition, route};
use crate::support::{Backend, Port, World, eventually, manifests, rule, to};

#[tokio::test]
async fn what_is_applied_edited_and_deleted_is_served_within_a_second() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    assert_eq!(cluster.gateway.get("/x").await.header("x-backend"), Some("a"));
    let mut took = Vec::new();
    for path in ["/a", "/b", "/c", "/d", "/new"] {
        let edited = Instant::now();
        cluster.server.apply(&route(&rule(path, &to("a"))));
        cluster.becomes("/old", 404).await;
        cluster.becomes(path, 200).await;
        took.push(edited.elapsed());
    }
    took.sort_unstable();
    // A machine that is busy with other tests may hold up some of them.
    assert!(took[2] < Duration::from_secs(1), "{took:?}");
    cluster.server.delete("httproutes", "demo", "all");
    cluster.becomes("/new", 404).await;
    cluster.server.delete("gateways", "demo", "demo");
    eventually("the port is closed", async || {
        tokio::net::TcpStream::connect(cluster.gateway.address()).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_stalls_no_other() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    let unknown = "filters: [{type: Sorcery, sorcery: {}}],";
    cluster.server.apply(&manifests::route("odd", "", &[rule("/odd", &format!("{unknown} {}", to("a")))]));
    cluster.server.apply(&manifests::route("other", "", &[rule("/other", &to("none"))]));
    cluster.becomes("/other", 500).await;
    assert_eq!(cluster.gateway.get("/odd").await.status(), 200, "the older route has the path");
    eventually("the fault is told", async || {
        let config = cluster.gateway.config().await;
        let fault = config["faults"][0].as_str().unwrap_or_default();
        fault.starts_with("HTTPRoute demo/odd: spec.rules[0].filters[0].type: ")
    })
    .await;
    eventually("it is told of the object", async || {
        let status = cluster.server.status("httproutes", "demo", "odd");
        let accepted = condition(&status["parents"][0], "Accepted");
        accepted["status"] == "False"
            && accepted["reason"] == "UnsupportedValue"
            && accepted["message"].as_str().unwrap().contains("spec.rules[0].filters[0].type: ")
    })
    .await;
    eventually("there is an event", async || !cluster.server.notes("odd").is_empty()).await;
    // Fields that are newer than this program are none of its business.
    let newer = route(&rule("/newer", &to("a"))).replace("spec: {", "spec: {fromTheFuture: true,");
    cluster.server.apply(&newer);
    cluster.becomes("/newer", 200).await;
}

#[tokio::test]
async fn listener_sets_and_tls_policies_that_cannot_be_read_are_told_so() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    cluster.becomes("/", 200).await;
    cluster.server.apply(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: broken, namespace: demo}
spec: {parentRef: {name: demo}, listeners: no list}
",
    );
    let policy = |validation: &str| manifests::backend_tls_policy("a", "", validation);
    cluster.server.apply(&policy("hostname: a.example.org, caCertificateRefs: no list"));
    // What was to be encrypted is not sent in clear text.
    cluster.becomes("/", 500).await;
    let is_told = |status: &serde_json::Value| {
        let accepted = condition(status, "Accepted");
        accepted["status"] == "False" && accepted["reason"] == "Invalid"
    };
    eventually("the ListenerSet is told", async || {
        is_told(&cluster.server.status("listenersets", "demo", "broken"))
    })
    .await;
    eventually("the policy is told", async || {
        is_told(&cluster.server.status("backendtlspolicies", "demo", "a")["ancestors"][0])
    })
    .await;
    for name in ["broken", "a"] {
        eventually("there is an event", async || !cluster.server.notes(name).is_empty()).await;
    }
}

#[tokio::test]
async fn an_edit_that_breaks_an_object_leaves_its_last_good_version() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    let broken = "filters: [{type: Sorcery, sorcery: {}}],";
    cluster.server.apply(&route(&rule("/", &format!("{broken} {}", to("a")))));
    eventually("the fault is told", async || cluster.gateway.config().await["faults"][0].is_string()).await;
    assert_eq!(cluster.gateway.get("/").await.status(), 200);
    cluster.server.apply(&route(&rule("/good", &to("a"))));
    cluster.becomes("/", 404).await;
    let is_clean = async || cluster.gateway.config().await["faults"] == serde_json::json!([]);
    eventually("no fault is left", is_clean).await;
}

#[tokio::test]
async fn traffic_goes_on_without_the_api_server_and_the_state_converges_when_it_is_back() {
    let backend = Backend::echo("a").await;
    let mut cluster = Cluster::start(&backend).await;
    cluster.server.stop().await;
    cluster.gateway.log.more("the API server cannot be reached", 0).await;
    assert_eq!(cluster.gateway.get("/").await.status(), 200);
    cluster.server.apply(&route(&rule("/meanwhile", &to("a"))));
    cluster.server.delete("services", "demo", "a");
    assert_eq!(cluster.gateway.get("/").await.status(), 200);
    cluster.server.start_again();
    cluster.becomes("/", 404).await;
    cluster.becomes("/meanwhile", 500).await;
    cluster.server.apply(&manifests::service("a", "http", &[&backend]));
    cluster.becomes("/meanwhile", 200).await;
    assert_eq!(cluster.gateway.log.count("the API server cannot be reached"), 1);
    assert_eq!(cluster.gateway.log.count("cannot be watched"), 0);
}

#[tokio::test]
async fn a_request_that_is_never_answered_holds_up_no_watch() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    cluster.becomes("/", 200).await;
    // CRDs that are not there are looked for.
    let looked_for = "/apis/gateway.nantian.dev/v1alpha1";
    cluster.server.set_silent(Some(looked_for));
    cluster.server.forget_requests();
    eventually("it asks which kinds there are", async || cluster.server.requests(looked_for) > 0).await;
    cluster.server.apply(&route(&rule("/new", &to("a"))));
    cluster.becomes("/new", 200).await;
    assert_eq!(cluster.server.requests(looked_for), 1, "the request was not given up before");
}

#[tokio::test]
async fn a_kind_that_is_served_in_another_version_stays() {
    let backend = Backend::echo("a").await;
    let server = ApiServer::start().await;
    server.set_versions("httproutes", &["v1beta1"]);
    let port = apply_gateway(&server);
    server.apply(&manifests::service("a", "http", &[&backend]));
    server.apply(&route(&rule("/", &to("a"))).replace("networking.k8s.io/v1", "networking.k8s.io/v1beta1"));
    let gateway = World::of_cluster(port, &server.kubeconfig()).start().await;
    let cluster = Cluster { server, gateway };
    cluster.becomes("/", 200).await;
    let mut wire = cluster.gateway.connect().await;
    cluster.server.set_versions("httproutes", &["v1"]);
    cluster.gateway.log.more("kind is served in another version", 0).await;
    assert_eq!(wire.get("/").await.status(), 200);
    cluster.server.apply(&route(&rule("/new", &to("a"))));
    cluster.becomes("/new", 200).await;
    assert_eq!(cluster.gateway.log.count("kind is not served any more"), 0);
}

#[tokio::test]
async fn a_list_that_is_made_again_opens_no_gap() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    let mut wire = cluster.gateway.connect().await;
    for round in 0..5 {
        cluster.server.bookmark();
        cluster.server.expire();
        cluster.server.apply(&route(&rule("/", &format!("name: round-{round}, {}", to("a")))));
        for _ in 0..20 {
            assert_eq!(wire.get("/").await.status(), 200);
        }
    }
    let name = async || cluster.gateway.config().await["ir"]["routes"][0]["rules"][0]["name"] == "round-4";
    eventually("the last edit is served", name).await;
}

#[tokio::test]
async fn it_is_ready_when_the_first_world_is_complete() {
    let mut server = ApiServer::start().await;
    server.stop().await;
    let port = apply_gateway(&server);
    let gateway = World::of_cluster(port, &server.kubeconfig()).start_unready();
    let unready = gateway.admin("/readyz").await;
    assert_eq!(unready.status(), 503);
    assert!(unready.text().starts_with("not ready: the configuration is not read yet"), "{}", unready.text());
    eventually("it is told why", async || {
        gateway.admin("/readyz").await.text().contains("not read yet: which kinds are served (")
    })
    .await;
    assert_eq!(gateway.admin("/healthz").await.status(), 200);
    server.start_again();
    eventually("ready", async || gateway.admin("/readyz").await.status() == 200).await;
    assert_eq!(gateway.get("/").await.status(), 404);
    assert_eq!(gateway.log.count("the cluster is read"), 1);
}

#[tokio::test]
async fn a_server_that_knows_no_kinds_yet_takes_nothing_away() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    let mut wire = cluster.gateway.connect().await;
    cluster.server.set_starting(true);
    cluster.server.forget_requests();
    cluster.server.expire();
    let path = "/apis/gateway.networking.k8s.io/v1/httproutes";
    eventually("routes were asked for", async || cluster.server.requests(path) > 1).await;
    assert_eq!(wire.get("/").await.status(), 200);
    cluster.server.set_starting(false);
    cluster.server.apply(&route(&rule("/new", &to("a"))));
    cluster.becomes("/", 404).await;
    cluster.becomes("/new", 200).await;
}

#[tokio::test]
async fn it_is_not_ready_before_the_server_is() {
    let server = ApiServer::start().await;
    server.set_starting(true);
    let port = apply_gateway(&server);
    let gateway = World::of_cluster(port, &server.kubeconfig()).start_unready();
    eventually("it asks the server twice", async || server.requests("/readyz") > 1).await;
    assert_eq!(gateway.admin("/readyz").await.status(), 503);
    server.set_starting(false);
    eventually("ready", async || gateway.admin("/readyz").await.status() == 200).await;
    assert_eq!(gateway.get("/").await.status(), 404);
}

#[tokio::test]
async fn secrets_that_are_none_of_its_business_are_not_read() {
    let server = ApiServer::start().await;
    let port = apply_gateway(&server);
    for kind in ["helm.sh/release.v1", "kubernetes.io/service-account-token", "Opaque"] {
        let name = kind.replace('/', "-").to_lowercase();
        server.apply(&format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: demo}}, type: {kind}}}"
        ));
    }
    let gateway = World::of_cluster(port, &server.kubeconfig()).start().await;
    let line = gateway.log.more("the cluster is read", 0).await;
    assert!(line.contains("\"objects\":3"), "the class, the Gateway and one Secret: {line}");
}

#[tokio::test]
async fn what_changes_nothing_that_is_served_or_told_is_no_reload() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start_with(&backend, &["--log-level", "debug"]).await;
    let (log, reloaded) = (&cluster.gateway.log, "\"reloaded\"");
    let known = log.count(reloaded);
    let unknown = "filters: [{type: Sorcery, sorcery: {}}],";
    cluster.server.apply(&manifests::route("odd", "", &[rule("/odd", &format!("{unknown} {}", to("a")))]));
    log.more(reloaded, known).await;
    let counter = "nantian_config_reloads_total{result=\"with_faults\"}";
    let counted = cluster.gateway.metric(counter).await;
    assert_eq!(counted, Some(1.0));
    for round in 0..3 {
        cluster.server.apply(&manifests::service(&format!("idle-{round}"), "http", &[&backend]));
        log.more("nothing has changed that is served or told", round).await;
    }
    assert_eq!((log.count(reloaded), cluster.gateway.metric(counter).await), (known + 1, counted));
}

#[tokio::test]
async fn it_tells_which_kinds_it_cannot_read() {
    let server = ApiServer::start().await;
    server.set_hidden(&["secrets"]);
    let port = apply_gateway(&server);
    let gateway = World::of_cluster(port, &server.kubeconfig()).start_unready();
    let why = "not ready: the configuration is not read yet: Secret (secrets is forbidden)\n";
    eventually("it is told", async || gateway.admin("/readyz").await.text() == why).await;
    server.set_hidden(&[]);
    eventually("ready", async || gateway.admin("/readyz").await.status() == 200).await;
}

#[tokio::test]
async fn a_kind_is_served_when_its_crd_appears_and_forgotten_when_it_goes() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    assert_eq!(cluster.gateway.get("/").await.status(), 200);
    let is_absent = async || {
        let config = cluster.gateway.config().await;
        config["unserved"].as_array().unwrap().contains(&"gateway.nantian.dev/v1alpha1 TokenPolicy".into())
    };
    eventually("it is told which kinds there are not", is_absent).await;
    cluster.server.apply(&nantian_crd::crds_yaml());
    cluster.server.apply(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {name: none, namespace: demo}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: all}]
  requestsPerMinute: 0
",
    );
    cluster.becomes("/", 429).await;
    eventually("it is told that there is one more", async || !is_absent().await).await;
    cluster.server.delete("customresourcedefinitions", "", "tokenpolicies.gateway.nantian.dev");
    cluster.becomes("/", 200).await;
}

#[tokio::test]
async fn each_gateway_is_bound_on_an_address_of_its_own() {
    let backend = Backend::echo("a").await;
    let server = ApiServer::start().await;
    let port = Port::reserve();
    let number = port.address().port();
    let listener = port.listener("http", "protocol: HTTP");
    let gateway = |name: &str| {
        let gateway = manifests::gateway(std::slice::from_ref(&listener))
            .replace("{name: demo, ", &format!("{{name: {name}, "));
        gateway.replace("  addresses: [{type: IPAddress, value: 127.0.0.1}]\n", "")
    };
    server.apply(&gateway("one"));
    server.apply(&gateway("two"));
    server.apply(&gateway("zero-too-many"));
    server.apply(&manifests::service("a", "http", &[&backend]));
    server.apply(&route(&rule("/", &to("a"))).replace("{name: demo}]", "{name: two}]"));
    let world = World::of_cluster(port, &server.kubeconfig());
    let running = world.options(&["--gateway-address-pool", "127.0.0.10-127.0.0.11"]).start().await;
    let address = async |name: &str| {
        let found = async || server.status("gateways", "demo", name)["addresses"][0]["value"].clone();
        eventually("the address is told", async || found().await.is_string()).await;
        found().await.as_str().unwrap().parse::<std::net::IpAddr>().unwrap()
    };
    let (one, two) = (address("one").await, address("two").await);
    assert_ne!(one, two);
    for (address, status) in [(one, 404), (two, 200)] {
        let mut wire = crate::support::Wire::connect((address, number).into()).await;
        assert_eq!(wire.get("/").await.status(), status, "{address}");
    }
    eventually("a third one waits for an address", async || {
        let status = server.status("gateways", "demo", "zero-too-many");
        let programmed = condition(&status, "Programmed");
        condition(&status, "Accepted")["status"] == "True"
            && programmed["reason"] == "AddressNotAssigned"
            && programmed["message"] == "no address of the pool is free"
    })
    .await;
    drop(running);
}
