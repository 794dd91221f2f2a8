//! Several installations in one cluster.

use serde_json::{Value, json};

use super::{ApiServer, condition, route};
use crate::support::{Backend, Port, World, eventually, manifests, rule, to};

const INNER: &str = "example.com/inner";

const CHAT: &str = "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {name: chat, namespace: demo}
spec: {provider: ollama, model: llama3}
";

const LIMIT: &str = "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {name: limit, namespace: demo}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: demo}]
  requestsPerMinute: 6000
";

/// A server with a Gateway for each of two controllers, and a route on both of them.
async fn cluster(outer: &Port, inner: &Port, backend: &Backend) -> ApiServer {
    let server = ApiServer::start().await;
    server.apply(&nantian_crd::crds_yaml());
    server.apply(CHAT);
    server.apply(LIMIT);
    server.apply(&manifests::gateway(&[outer.listener("http", "protocol: HTTP")]));
    let gateway = manifests::gateway(&[inner.listener("http", "protocol: HTTP")]);
    let gateway = gateway.replace("name: nantian}", "name: inner}").replace("name: demo,", "name: inner,");
    let gateway = gateway.replace("gatewayClassName: nantian", "gatewayClassName: inner");
    server.apply(&gateway.replace("gateway.nantian.dev/gateway-controller", INNER));
    server.apply(&manifests::service("a", "http", &[backend]));
    server.apply(&on_both(&rule("/", &to("a"))));
    server
}

/// The HTTPRoute `all` with this rule.
fn on_both(rule: &str) -> String {
    route(rule).replace("{name: demo}]", "{name: demo}, {name: inner}]")
}

fn is_accepted(status: &Value) -> bool {
    condition(status, "Accepted")["status"] == "True"
}

#[tokio::test]
async fn installations_with_names_of_their_own_leave_each_other_alone() {
    let backend = Backend::echo("a").await;
    let (port, inner) = (Port::reserve(), Port::reserve());
    let addresses = (port.address(), inner.address());
    let server = cluster(&port, &inner, &backend).await;
    let start = async |port, options: &[&str]| {
        World::of_cluster(port, &server.kubeconfig()).options(options).start().await
    };
    let first = start(port, &[]).await;
    let accepts = async |server: &ApiServer| {
        eventually("the AIService is accepted", async || {
            is_accepted(&server.status("aiservices", "demo", "chat"))
        })
        .await;
    };
    accepts(&server).await;
    assert!(
        tokio::net::TcpStream::connect(addresses.1).await.is_err(),
        "that Gateway is not the first one's"
    );
    assert!(!is_accepted(&server.status("gateways", "demo", "inner")));
    // It serves no AIServices, whose status has room for one controller only.
    let second =
        start(inner, &["--controller-name", INNER, "--feature-gates", "AIService=false,TokenPolicy=true"])
            .await;
    assert_eq!((first.get("/").await.status(), second.get("/").await.status()), (200, 200));
    for name in ["nantian", "inner"] {
        eventually(name, async || is_accepted(&server.status("gatewayclasses", "", name))).await;
    }
    let leases = server.all("leases");
    let mut names: Vec<_> = leases.iter().map(|lease| lease["metadata"]["name"].clone()).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["example-com-inner", "nantian-gateway"], "both write");
    // Each edit is answered by both, time enough for the two to take a status from each other more than once.
    for generation in 2..7 {
        server.apply(&on_both(&rule(&format!("/{generation}"), &to("a"))));
        eventually("both have told what became of it", async || {
            let parents = server.status("httproutes", "demo", "all")["parents"].take();
            let mut told: Vec<_> = parents.as_array().unwrap().iter().collect();
            told.sort_by_key(|parent| parent["controllerName"].to_string());
            let controllers: Vec<_> = told.iter().map(|parent| &parent["controllerName"]).collect();
            controllers == [&json!(INNER), &json!("gateway.nantian.dev/gateway-controller")]
                && told.iter().all(|parent| parent["conditions"][0]["observedGeneration"] == generation)
        })
        .await;
    }
    accepts(&server).await;
    let ancestors = server.status("tokenpolicies", "demo", "limit")["ancestors"].take();
    let told: Vec<_> = ancestors.as_array().unwrap().iter().map(|it| &it["controllerName"]).collect();
    assert_eq!(told, ["gateway.nantian.dev/gateway-controller"], "the second one has nothing to say of it");
    let writes = server.writes();
    let of_chat = writes.iter().filter(|write| write.path.ends_with("/aiservices/chat/status")).count();
    assert!(of_chat <= 3, "said, taken back once, and said again: {of_chat}");
}
