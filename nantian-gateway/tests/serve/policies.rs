//! TokenPolicy, WasmPlugin and BackendLBPolicy on the way of a request.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::support::{Backend, World, lb_policy, plugin, rule, service, soon, to};

/// A TokenPolicy `limits` on the HTTPRoute `limited`.
fn limits(spec: &str) -> String {
    format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {{name: limits, namespace: demo}}
spec: {{targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: limited}}], {spec}}}
"
    )
}

#[tokio::test]
async fn a_limit_holds_on_its_route_alone_and_outlives_edits() {
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("limited", &[rule("/limited", &to("a"))])
        .route("free", &[rule("/free", &to("a"))])
        .manifest("limits", &limits("requestsPerMinute: 3"))
        .start()
        .await;
    for left in ["2", "1", "0"] {
        let reply = gateway.get("/limited").await;
        assert_eq!((reply.status(), reply.header("x-ratelimit-remaining-requests")), (200, Some(left)));
    }
    let refused = gateway.get("/limited").await;
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").is_some() && refused.header("ratelimit-policy").is_some());
    assert_eq!(backend.seen().len(), 3, "what is refused asks no backend");
    assert_eq!(gateway.get("/free").await.status(), 200);
    let refusals = "nantian_rate_limit_decisions_total{policy=\"demo/limits\",decision=\"refused\",limit=\"requests-per-minute\"}";
    assert_eq!(gateway.metric(refusals).await, Some(1.0));

    gateway.edit_route("free", &[rule("/free", &to("a")), rule("/more", &to("a"))]).await;
    assert_eq!(gateway.get("/more").await.status(), 200);
    assert_eq!(gateway.get("/limited").await.status(), 429, "an unrelated edit gives nothing back");

    gateway.edit("limits", &limits("requestsPerMinute: 5")).await;
    assert_eq!(gateway.get("/limited").await.status(), 200, "two more are allowed");
    assert_eq!(gateway.get("/limited").await.status(), 200);
    assert_eq!(gateway.get("/limited").await.status(), 429);

    gateway.edit("limits", &limits("requestsPerMinute: 5, onLimit: warn")).await;
    assert_eq!(gateway.get("/limited").await.status(), 200);
}

#[tokio::test]
async fn a_limit_by_header_counts_each_value_for_itself_and_shows_none() {
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .options(&["--log-level", "debug"])
        .service("a", &[&backend])
        .route("limited", &[rule("/", &to("a"))])
        .manifest("limits", &limits("requestsPerMinute: 1, scope: 'header:x-tenant'"))
        .start()
        .await;
    let of = async |tenant: &str| {
        gateway.ask(format!("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant: {tenant}\r\n\r\n")).await.status()
    };
    let secret = "secret-tenant";
    assert_eq!([of(secret).await, of("b").await, of(secret).await, of("b").await], [200, 200, 429, 429]);
    let edit = limits("requestsPerMinute: 1, scope: 'header:x-tenant', onLimit: warn");
    gateway.edit("limits", &edit).await;
    assert_eq!(of(secret).await, 200);
    let line = gateway.log.more("over the limit, passed all the same", 0).await;
    assert!(line.contains("demo/limits"), "{line}");
    let log = gateway.log.text();
    assert_eq!(log.matches("\"over the limit\"").count(), 2, "{log}");
    assert!(!log.contains(secret), "{log}");
}

#[tokio::test]
async fn preflights_are_exempt_that_lack_what_the_scope_counts_by() {
    let backend = Backend::echo("a").await;
    for (scope, requests, statuses) in [
        ("apiKey", 1, [200; 3]),
        ("route+user", 1, [200; 3]),
        ("'header:x-tenant'", 1, [200; 3]),
        ("ip+apiKey", 1, [200; 3]),
        ("ip", 1, [200, 429, 429]),
        ("route", 1, [200, 429, 429]),
        ("'header:host'", 1, [200, 429, 429]),
        ("apiKey", 0, [429; 3]),
    ] {
        let gateway = World::new()
            .service("a", &[&backend])
            .route("limited", &[rule("/", &to("a"))])
            .manifest("limits", &limits(&format!("requestsPerMinute: {requests}, scope: {scope}")))
            .start()
            .await;
        for status in statuses {
            let asked = "Origin: https://a.org\r\nAccess-Control-Request-Method: POST\r\n";
            let reply = gateway.ask(format!("OPTIONS / HTTP/1.1\r\nHost: h\r\n{asked}\r\n")).await;
            assert_eq!(reply.status(), status, "{scope}, {requests} requests a minute");
        }
        let plain = "OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n";
        let count = if statuses[0] == 200 && statuses[1] == 200 { 200 } else { 429 };
        assert_eq!(gateway.ask(plain).await.status(), count, "{scope}: one that is no preflight counts");
        assert_eq!(gateway.ask(plain).await.status(), 429, "{scope}: one that is no preflight counts");
    }
}

#[tokio::test]
async fn a_limit_by_address_believes_trusted_proxies_alone() {
    let backend = Backend::echo("a").await;
    let world = || {
        World::new()
            .service("a", &[&backend])
            .route("limited", &[rule("/", &to("a"))])
            .manifest("limits", &limits("requestsPerMinute: 1, scope: ip"))
    };
    let (trusting, wary) =
        (world().options(&["--trusted-proxies", "127.0.0.1"]).start().await, world().start().await);
    for (gateway, second) in [(trusting, 200), (wary, 429)] {
        for (client, status) in [("203.0.113.1", 200), ("203.0.113.2", second), ("203.0.113.1", 429)] {
            let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {client}\r\n\r\n");
            assert_eq!(gateway.ask(request).await.status(), status, "{client}");
        }
    }
}

#[tokio::test]
async fn a_limit_on_the_gateway_holds_for_all_its_routes_beside_their_own() {
    let whole = "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {name: whole, namespace: demo}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: demo}]
  requestsPerMinute: 3
  scope: gateway
";
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("limited", &[rule("/limited", &to("a"))])
        .route("other", &[rule("/other", &to("a"))])
        .manifest("limits", &limits("requestsPerMinute: 1"))
        .manifest("whole", whole)
        .start()
        .await;
    let mut statuses = Vec::new();
    for path in ["/limited", "/limited", "/other", "/other", "/other"] {
        statuses.push(gateway.get(path).await.status());
    }
    assert_eq!(statuses, [200, 429, 200, 200, 429], "a refused request costs nothing");
}

/// A module that adds the request header `x-wasm-plugin` and answers `GET /wasm-teapot`, in base64.
fn add_header() -> String {
    let guest = concat!(env!("CARGO_MANIFEST_DIR"), "/../nantian-wasm/tests/guests/add_header.wat");
    BASE64_STANDARD.encode(wat::parse_file(guest).unwrap())
}

#[tokio::test]
async fn a_plugin_changes_a_request_or_answers_it() {
    let module = add_header();
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("plugged", &[rule("/plugged", &to("a")), rule("/wasm-teapot", &to("a"))])
        .route("missing", &[rule("/missing", &to("a"))])
        .route("free", &[rule("/free", &to("a"))])
        .manifest("plugin", &plugin("plugged", &format!("inline: {module}")))
        .manifest("missing-plugin", &plugin("missing", "configMap: {name: nobody}"))
        .start()
        .await;

    let reply = gateway.ask("POST /plugged HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "abc"));
    assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/plugged"));
    let teapot = gateway.get("/wasm-teapot").await;
    assert_eq!((teapot.status(), teapot.text().as_str()), (418, "short and stout\n"));
    assert_eq!(backend.seen().len(), 1);
    assert_eq!(gateway.condition("WasmPlugin demo/plugged", "Programmed").await["status"], "True");

    assert_eq!(gateway.get("/missing").await.status(), 503, "a plugin that is not there fails closed");
    assert_eq!(gateway.condition("WasmPlugin demo/missing", "Programmed").await["status"], "False");
    assert_eq!(gateway.get("/free").await.status(), 200);
    assert_eq!(backend.last().header("x-wasm-plugin"), None);

    gateway.edit("missing-plugin", &plugin("missing", &format!("inline: {module}"))).await;
    assert_eq!(gateway.get("/missing").await.status(), 200);
    assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/missing"));
    assert_eq!(gateway.condition("WasmPlugin demo/missing", "Programmed").await["status"], "True");
}

#[tokio::test]
async fn a_filter_runs_a_plugin_on_its_rule_alone() {
    let backend = Backend::echo("a").await;
    let plugin = format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: WasmPlugin
metadata: {{name: named, namespace: demo}}
spec: {{wasm: {{inline: {}}}}}
",
        add_header()
    );
    let filter = "filters: [{type: ExtensionRef, extensionRef: {group: gateway.nantian.dev, kind: WasmPlugin, name: named}}],";
    let gateway = World::new()
        .service("a", &[&backend])
        .route("r", &[rule("/with", &format!("{filter} {}", to("a"))), rule("/without", &to("a"))])
        .manifest("plugin", &plugin)
        .start()
        .await;
    assert_eq!(gateway.get("/with").await.status(), 200);
    assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/named"));
    assert_eq!(gateway.get("/without").await.status(), 200);
    assert_eq!(backend.last().header("x-wasm-plugin"), None);
}

#[tokio::test]
async fn a_route_with_every_policy_still_streams_and_upgrades() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(request) = wire.head().await else { return };
        if request.header("upgrade").is_some() {
            wire.send(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            )
            .await;
        } else {
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        }
        while let Ok(part) = wire.exactly(8).await {
            wire.send(part).await;
        }
    })
    .await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route(
            "limited",
            &[rule("/", &format!("timeouts: {{request: 30s, backendRequest: 20s}}, {}", to("a")))],
        )
        .manifest("limits", &limits("requestsPerMinute: 100, tokensPerMinute: 100000"))
        .manifest("plugin", &plugin("limited", &format!("inline: {}", add_header())))
        .options(&["--access-log", "json"])
        .start()
        .await;
    let mut tunnel = gateway.connect().await;
    let reply =
        tunnel.ask("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!((reply.status(), reply.header("upgrade")), (101, Some("websocket")));
    let mut stream = gateway.connect().await;
    stream.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(stream.reply_head().await.status(), 200);
    for part in ["3\r\none\r\n", "3\r\ntwo\r\n"] {
        tunnel.send(part).await;
        assert_eq!(soon(tunnel.exactly(8)).await.unwrap(), part.as_bytes());
        stream.send(part).await;
        assert_eq!(soon(stream.chunk()).await.unwrap(), part.as_bytes()[3..6]);
    }
}

#[tokio::test]
async fn consistent_hashing_sends_a_key_to_one_endpoint() {
    let by_session =
        "loadBalancing: {type: ConsistentHash, consistentHash: {keyType: Header, headerName: x-session-id}}";
    let backends = [Backend::echo("a").await, Backend::echo("b").await, Backend::echo("c").await];
    let all: Vec<_> = backends.iter().collect();
    // Keys are placed by the names of pods; ports differ from run to run.
    let named = |backends: &[&Backend]| {
        let pods = (0..backends.len())
            .map(|pod| format!("[127.0.0.1], targetRef: {{kind: Pod, name: pod-{pod}}}}}]"));
        pods.fold(service("s", "http", backends), |all, pod| all.replacen("[127.0.0.1]}]", &pod, 1))
    };
    let gateway = World::new()
        .manifest("service-s", &named(&all))
        .route("r", &[rule("/", &to("s"))])
        .manifest("policy", &lb_policy("s", by_session))
        .start()
        .await;
    let endpoint = async |key: usize| {
        let reply = gateway.ask(format!("GET / HTTP/1.1\r\nHost: h\r\nX-Session-Id: {key}\r\n\r\n")).await;
        reply.header("x-backend").unwrap().to_owned()
    };
    let mut placed = Vec::new();
    for key in 0..30 {
        let first = endpoint(key).await;
        assert_eq!(endpoint(key).await, first, "on whichever worker");
        placed.push(first);
    }
    assert_eq!(placed.iter().collect::<BTreeSet<_>>().len(), 3);

    gateway.edit("service-s", &named(&all[..2])).await;
    for (key, before) in placed.iter().enumerate().filter(|(_, before)| *before != "c") {
        assert_eq!(endpoint(key).await, *before, "only the keys of what is gone move");
    }
}
