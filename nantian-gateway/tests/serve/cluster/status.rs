//! What the gateway writes back.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ApiServer, Cluster, apply_gateway, condition, route};
use crate::support::{Backend, Port, World, eventually, manifests, rule, stream_route, to};

impl Cluster {
    /// How many writes of a status there were, and how many of them changed nothing.
    fn status_writes(&self) -> (usize, usize) {
        let writes = self.server.writes();
        let of_status: Vec<_> = writes.iter().filter(|write| write.path.ends_with("/status")).collect();
        (of_status.len(), of_status.iter().filter(|write| !write.has_changed).count())
    }
}

#[tokio::test]
async fn conditions_appear_on_everything_that_is_ours() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    // Each is written by itself, in no order.
    eventually("all are accepted", async || {
        let class = cluster.server.status("gatewayclasses", "", "nantian");
        let gateway = cluster.server.status("gateways", "demo", "demo");
        let route = cluster.server.status("httproutes", "demo", "all");
        condition(&class, "Accepted")["reason"] == "Accepted"
            && condition(&gateway, "Programmed")["status"] == "True"
            && condition(&route["parents"][0], "Accepted")["status"] == "True"
    })
    .await;
    let class = cluster.server.status("gatewayclasses", "", "nantian");
    assert_eq!(class["supportedFeatures"][0], json!({ "name": "BackendTLSPolicy" }));
    let gateway = cluster.server.status("gateways", "demo", "demo");
    assert_eq!(gateway["addresses"], json!([{ "type": "IPAddress", "value": "127.0.0.1" }]));
    assert_eq!(condition(&gateway, "Programmed")["status"], "True");
    let listener = &gateway["listeners"][0];
    assert_eq!((&listener["name"], &listener["attachedRoutes"]), (&json!("http"), &json!(1)));
    for kind in ["Accepted", "ResolvedRefs", "Programmed"] {
        let condition = condition(listener, kind);
        assert_eq!(
            (&condition["status"], &condition["observedGeneration"]),
            (&json!("True"), &json!(1)),
            "{kind}"
        );
    }
    assert_eq!(condition(listener, "Conflicted")["status"], "False");
    let parent = cluster.server.status("httproutes", "demo", "all")["parents"][0].take();
    assert_eq!(parent["parentRef"], json!({ "name": "demo" }));
    assert_eq!(parent["controllerName"], "gateway.nantian.dev/gateway-controller");
    assert_eq!(cluster.server.all("leases").len(), 1);
}

#[tokio::test]
async fn a_class_tells_whether_the_version_of_the_gateway_api_is_known() {
    for (version, status, reason) in
        [("v1.6.1", "True", "SupportedVersion"), ("v1.7.0", "False", "UnsupportedVersion")]
    {
        let server = ApiServer::start().await;
        server.apply(&format!(
            "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gatewayclasses.gateway.networking.k8s.io
  annotations: {{gateway.networking.k8s.io/bundle-version: {version}}}
spec:
  group: gateway.networking.k8s.io
  names: {{kind: GatewayClass, plural: gatewayclasses}}
  scope: Cluster
  versions: [{{name: v1, subresources: {{status: {{}}}}}}]
"
        ));
        let port = apply_gateway(&server);
        let _gateway = World::of_cluster(port, &server.kubeconfig()).start().await;
        eventually(version, async || {
            let class = server.status("gatewayclasses", "", "nantian");
            let supported = condition(&class, "SupportedVersion");
            (&supported["status"], &supported["reason"]) == (&status.into(), &reason.into())
                && supported["observedGeneration"] == 1
                && condition(&class, "Accepted")["status"] == "True"
        })
        .await;
    }
}

#[tokio::test]
async fn routes_of_connections_and_datagrams_are_told_what_became_of_them() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    for kind in ["TLSRoute", "TCPRoute", "UDPRoute"] {
        let hosts = if kind == "TLSRoute" { "hostnames: [a.example.org]," } else { "" };
        cluster.server.apply(&stream_route(kind, "r", "", hosts, "{name: a, port: 80}"));
    }
    for plural in ["tlsroutes", "tcproutes", "udproutes"] {
        eventually(plural, async || {
            let status = cluster.server.status(plural, "demo", "r");
            condition(&status["parents"][0], "Accepted")["reason"] == "NotAllowedByListeners"
        })
        .await;
    }
    cluster.server.apply(&manifests::gateway(&[cluster.gateway.listener("tcp", "protocol: TCP")]));
    eventually("the TCPRoute is accepted", async || {
        let status = cluster.server.status("tcproutes", "demo", "r");
        condition(&status["parents"][0], "Accepted")["status"] == "True"
    })
    .await;
    eventually("the listener counts it", async || {
        let listener = cluster.server.status("gateways", "demo", "demo")["listeners"][0].take();
        (&listener["name"], &listener["attachedRoutes"]) == (&json!("tcp"), &json!(1))
    })
    .await;
    assert_eq!(cluster.gateway.get("/").await.header("x-backend"), Some("a"), "it reaches the backend");
}

#[tokio::test]
async fn a_status_is_written_in_the_version_that_the_server_has() {
    let server = ApiServer::start().await;
    server.set_versions("tcproutes", &["v1alpha2"]);
    let port = Port::reserve();
    server.apply(&manifests::gateway(&[port.listener("tcp", "protocol: TCP")]));
    let route = stream_route("TCPRoute", "r", "", "", "{name: none, port: 80}");
    server.apply(&route.replace("networking.k8s.io/v1", "networking.k8s.io/v1alpha2"));
    let gateway = World::of_cluster(port, &server.kubeconfig()).start().await;
    eventually("the route is told", async || {
        let status = server.status("tcproutes", "demo", "r");
        condition(&status["parents"][0], "ResolvedRefs")["reason"] == "BackendNotFound"
    })
    .await;
    drop(gateway);
}

#[tokio::test]
async fn a_refused_edit_is_told_while_the_version_before_it_serves() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    let refused =
        "filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Magic, name: x}}],";
    cluster.server.apply(&route(&rule("/", &format!("{refused} {}", to("a")))));
    eventually("the refusal is told", async || {
        let status = cluster.server.status("httproutes", "demo", "all");
        let accepted = condition(&status["parents"][0], "Accepted");
        accepted["status"] == "False" && accepted["observedGeneration"] == 2
    })
    .await;
    assert_eq!(cluster.gateway.get("/").await.status(), 200);
    eventually("there is an event", async || !cluster.server.notes("all").is_empty()).await;
}

#[tokio::test]
async fn a_status_that_may_not_be_written_is_told_once_and_silences_no_event() {
    let (server, begun) = (ApiServer::start().await, Instant::now());
    server.forbid_status("httproutes");
    let port = apply_gateway(&server);
    server.apply(&route(&rule("/", &to("a"))));
    let refused =
        "filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Magic, name: x}}],";
    server.apply(&manifests::route("magic", "", &[rule("/magic", &format!("{refused} {}", to("a")))]));
    let gateway = World::of_cluster(port, &server.kubeconfig()).start().await;
    let line = gateway.log.more("a status cannot be written", 0).await;
    assert!(line.contains("httproutes/status is forbidden"), "{line}");
    eventually("there is an event", async || !server.notes("magic").is_empty()).await;
    let path = "/apis/gateway.networking.k8s.io/v1/namespaces/demo/httproutes/all/status";
    // Something else is written meanwhile, more than once.
    for round in 0..3 {
        let name = format!("new-{round}");
        server.apply(&manifests::gateway(&[gateway.listener(&name, "protocol: HTTP")]));
        eventually("the Gateway is told", async || {
            server.status("gateways", "demo", "demo")["listeners"][0]["name"] == name.as_str()
        })
        .await;
    }
    let tried = u64::try_from(server.requests(path)).unwrap();
    assert!(tried <= 1 + begun.elapsed().as_secs() / 30, "what was refused is left alone for a while");
    assert_eq!(gateway.log.count("a status cannot be written"), 1);
}

#[tokio::test]
async fn a_field_that_the_server_drops_is_not_written_at_every_event() {
    let backend = Backend::echo("a").await;
    let server = ApiServer::start().await;
    server.prune_status("gateways", "attachedListenerSets");
    let port = apply_gateway(&server);
    server.apply(&manifests::service("a", "http", &[&backend]));
    let gateway = World::of_cluster(port, &server.kubeconfig()).start().await;
    let path = "/apis/gateway.networking.k8s.io/v1/namespaces/demo/gateways/demo/status";
    eventually("the Gateway has a status", async || server.requests(path) > 0).await;
    let known = server.requests(path);
    // Each event has its own turn; none changes the Gateway.
    for round in 0..4 {
        server.apply(&route(&rule(&format!("/{round}"), &to("a"))));
        eventually("the route is told", async || {
            let status = server.status("httproutes", "demo", "all");
            condition(&status["parents"][0], "Accepted")["observedGeneration"] == round + 1
        })
        .await;
    }
    // For the first world, and once for the route that is attached.
    let written = server.requests(path);
    assert!(written <= known + 2, "{written} writes, {known} of them for the first world");
    drop(gateway);
}

#[tokio::test]
async fn edits_cause_no_status_write_that_changes_nothing() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    for edit in 0..200 {
        cluster.server.apply(&route(&rule(&format!("/{edit}"), &to("a"))));
        if edit % 10 == 0 {
            cluster.becomes(&format!("/{edit}"), 200).await;
        }
    }
    eventually("the last edit is observed", async || {
        let status = cluster.server.status("httproutes", "demo", "all");
        condition(&status["parents"][0], "Accepted")["observedGeneration"] == 201
    })
    .await;
    let (writes, idle) = cluster.status_writes();
    assert_eq!(idle, 0, "of {writes}");
    // The class, the Gateway, and the route once for each time that edits were gathered.
    assert!((3..=203).contains(&writes), "{writes}");
    let version = |server: &ApiServer| {
        server.get("httproutes", "demo", "all").unwrap()["metadata"]["resourceVersion"].clone()
    };
    let settled = version(&cluster.server);
    // A change of something else, seen in traffic, comes after any write that would still be due.
    cluster.server.apply(&manifests::route("other", "", &[rule("/other", &to("a"))]));
    eventually("the other route is observed", async || {
        cluster.server.status("httproutes", "demo", "other")["parents"][0].is_object()
    })
    .await;
    assert_eq!(version(&cluster.server), settled);
}

#[tokio::test]
async fn what_others_say_stays_and_what_we_said_goes_with_the_reference() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    let parents =
        async || cluster.server.status("httproutes", "demo", "all")["parents"].as_array().map_or(0, Vec::len);
    eventually("the route has a status", async || parents().await == 1).await;
    cluster.server.apply(&route(&rule("/", &to("a"))).replace("{name: demo}]", "{name: foreign}]"));
    eventually("the status is taken back", async || parents().await == 0).await;
    cluster.becomes("/", 404).await;
}

#[tokio::test]
async fn what_is_not_served_any_more_is_not_said_to_be() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    let gateway = |class: &str| {
        let spec = format!("gatewayClassName: {class}\n  allowedListeners: {{namespaces: {{from: Same}}}}");
        let gateway = manifests::gateway(&[cluster.gateway.listener("http", "protocol: HTTP")]);
        gateway.replace("gatewayClassName: nantian", &spec)
    };
    cluster.server.apply(&gateway("nantian"));
    let class = cluster.server.get("gatewayclasses", "", "nantian").unwrap();
    cluster.server.apply(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: demo}
spec: {parentRef: {name: demo}, listeners: [{name: more, port: 8099, protocol: HTTP}]}
",
    );
    let programmed = |plural: &str, name: &str| {
        let status = cluster.server.status(plural, "demo", name);
        condition(&status, "Programmed")["status"].clone()
    };
    let both = [("gateways", "demo"), ("listenersets", "more")];
    let are = async |expected: &str| {
        eventually(expected, async || both.iter().all(|(plural, name)| programmed(plural, name) == expected))
            .await;
    };
    are("True").await;
    cluster.server.delete("gatewayclasses", "", "nantian");
    are("Unknown").await;
    assert_eq!(cluster.server.status("gateways", "demo", "demo")["addresses"], json!([]));
    cluster.server.apply(&class.to_string());
    are("True").await;
    // Who has another controller gets its status from that.
    let other = class.to_string().replace("gateway.nantian.dev/gateway-controller", "example.com/other");
    cluster.server.apply(&other.replace("\"nantian\"", "\"other\""));
    cluster.server.apply(&gateway("other"));
    eventually("the port is closed", async || {
        tokio::net::TcpStream::connect(cluster.gateway.address()).await.is_err()
    })
    .await;
    cluster.server.apply(&class.to_string().replace("\"nantian\"", "\"third\""));
    eventually("the class is told", async || {
        condition(&cluster.server.status("gatewayclasses", "", "third"), "Accepted")["status"] == "True"
    })
    .await;
    are("True").await;
}

#[tokio::test]
async fn each_fault_has_an_event_of_its_own() {
    let backend = Backend::echo("a").await;
    let cluster = Cluster::start(&backend).await;
    let notes = |part: &str| {
        let events = cluster.server.all("events");
        let about =
            events.into_iter().filter(|event| event["note"].as_str().unwrap_or_default().contains(part));
        about.collect::<Vec<_>>()
    };
    let broken = |names: &[&str]| {
        let rules: Vec<String> = names.iter().map(|name| rule(&format!("/{name}"), &to(name))).collect();
        cluster.server.apply(&manifests::route("broken", "", &rules));
    };
    broken(&["no-such-one", "nor-this-one"]);
    for name in ["no-such-one", "nor-this-one"] {
        eventually(name, async || notes(name).len() == 1).await;
    }
    broken(&["a-third-one"]);
    eventually("a later fault is told in its own words", async || notes("a-third-one").len() == 1).await;
    broken(&["no-such-one"]);
    eventually("what is told again is one event that lasts", async || {
        notes("no-such-one").len() == 1 && notes("no-such-one")[0]["series"]["count"] == 2
    })
    .await;
}

#[tokio::test]
async fn what_was_said_of_an_ai_service_goes_with_its_gate() {
    let server = ApiServer::start().await;
    let _port = apply_gateway(&server);
    server.apply(&nantian_crd::crds_yaml());
    server.apply(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {name: chat, namespace: demo}
spec: {provider: ollama, model: llama3}
",
    );
    let accepted = || {
        let status = server.status("aiservices", "demo", "chat");
        condition(&status, "Accepted")["status"].clone()
    };
    let start = async |gate: &str| {
        let world = World::of_cluster(Port::reserve(), &server.kubeconfig());
        world.options(&["--feature-gates", gate]).start().await
    };
    let mut open = start("AIService=true").await;
    eventually("it is accepted", async || accepted() == "True").await;
    open.signal("TERM");
    assert!(open.exit().await.success());
    let closed = start("AIService=false").await;
    eventually("nothing is said any more", async || accepted().is_null()).await;
    drop(closed);
}

const QUOTA: &str = "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {name: quota, namespace: demo}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: demo}]
  requestsPerMinute: 7
";

/// A cluster with a Gateway and its quota, and this feature gate.
async fn with_quota(gate: &str) -> Cluster {
    let server = ApiServer::start().await;
    let port = apply_gateway(&server);
    server.apply(&nantian_crd::crds_yaml());
    server.apply(QUOTA);
    let world = World::of_cluster(port, &server.kubeconfig()).options(&["--feature-gates", gate]);
    let gateway = world.start().await;
    Cluster { server, gateway }
}

#[tokio::test]
async fn an_object_whose_gate_is_closed_has_an_event_that_names_it() {
    let cluster = with_quota("TokenPolicy=false").await;
    eventually("there is an event", async || {
        let notes = cluster.server.notes("quota");
        notes.iter().any(|note| note.contains("--feature-gates TokenPolicy=true"))
    })
    .await;
    assert_eq!(cluster.server.status("tokenpolicies", "demo", "quota"), Value::Null);
}

#[tokio::test]
async fn limits_that_each_replica_counts_for_itself_say_so() {
    let cluster = with_quota("TokenPolicy=true").await;
    eventually("its status says so", async || {
        let status = cluster.server.status("tokenpolicies", "demo", "quota");
        condition(&status["ancestors"][0], "Accepted")["message"].as_str().is_some_and(|told| {
            told.ends_with("each replica counts for itself: --ratelimit-store shares limits")
        })
    })
    .await;
}
