//! What the gateway tells about itself, and what it keeps to itself.

use serde_json::Value;

use crate::support::{
    Backend, Certificate, Port, Wire, World, chat, eventually, limits::limits, rule, to, to_ai,
};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[tokio::test]
async fn health_metrics_and_configuration_are_served() {
    let backend = Backend::echo("a").await;
    let gateway = World::new().service("a", &[&backend]).route("r", &[rule("/a", &to("a"))]).start().await;
    assert_eq!(gateway.admin("/healthz").await.status(), 200);
    assert_eq!(gateway.admin("/readyz").await.status(), 200);
    assert_eq!(gateway.admin("/nowhere").await.status(), 404);

    let mut wire = gateway.connect().await;
    for number in 0..50 {
        assert_eq!(wire.get(&format!("/unknown/{number}")).await.status(), 404);
    }
    let requests = "nantian_http_requests_total";
    let failed = format!("{requests}{{route=\"demo/r\",code_class=\"5xx\"}}");
    assert_eq!(gateway.metric(&failed).await, Some(0.0), "so that the first one is an increase");
    assert_eq!(gateway.metric(&format!("{requests}{{route=\"\",code_class=\"4xx\"}}")).await, Some(50.0));
    let unused = gateway.admin("/metrics").await.text();
    for series in ["nantian_http_request_duration_seconds_bucket", "nantian_http_mirrored_requests_total"] {
        assert!(!unused.contains(&format!("{series}{{route=\"demo/r\"")), "{unused}");
    }
    assert_eq!(wire.get("/a").await.status(), 200);
    let before = gateway.admin("/metrics").await.text();
    for number in 0..50 {
        let request =
            format!("M{number} /a/{number} HTTP/1.1\r\nHost: h{number}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(wire.ask(request).await.status(), 200);
    }
    let after = gateway.admin("/metrics").await.text();
    assert_eq!(
        gateway.metric(&format!("{requests}{{route=\"demo/r\",code_class=\"2xx\"}}")).await,
        Some(51.0)
    );
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(series(&after), series(&before), "{before}\n{after}");

    for (accept, kind) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5", OPENMETRICS),
    ] {
        let mut wire = Wire::connect(gateway.admin_address().await).await;
        let reply = wire.ask(format!("GET /metrics HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n")).await;
        assert_eq!(reply.header("content-type"), Some(kind));
        assert_eq!(reply.text().ends_with("# EOF\n"), kind == OPENMETRICS);
    }

    let config = gateway.config().await;
    assert_eq!(config["generation"], 1);
    assert_eq!(config["faults"], serde_json::json!([]));
    assert!(config["ir"].to_string().contains("demo/r"));
}

#[tokio::test]
async fn what_is_not_served_is_counted_by_kind_and_reason() {
    let certificate = Certificate::new(&["example.org"]);
    let (port, secure) = (Port::reserve(), Port::reserve());
    let listeners = [
        port.listener("http", "protocol: HTTP"),
        secure.listener("https", "protocol: HTTPS, tls: {certificateRefs: [{name: tls}]}"),
    ];
    let world = World::with_listeners(port, &listeners).manifest("tls", &certificate.secret("tls"));
    let gateway = world.start().await;
    let unmet = r#"nantian_config_unmet_conditions{kind="Gateway",condition="ResolvedRefs",reason="InvalidCertificateRef"}"#;
    assert_eq!(gateway.metric(unmet).await, None);
    gateway.edit("tls", "").await;
    eventually("the Secret is missed", async || gateway.metric(unmet).await == Some(1.0)).await;
    assert_eq!(gateway.metric("nantian_config_faults").await, Some(0.0), "no object has a fault");
}

#[tokio::test]
async fn a_plugin_that_nothing_refers_to_is_not_counted_as_unserved() {
    let idle = "
apiVersion: gateway.nantian.dev/v1alpha1
kind: WasmPlugin
metadata: {name: idle, namespace: demo}
spec: {wasm: {inline: AGFzbQEAAAA=}}
";
    let gateway = World::new().manifest("idle", idle).start().await;
    let programmed = gateway.condition("WasmPlugin demo/idle", "Programmed").await;
    assert_eq!(programmed["status"], "False");
    assert_eq!(programmed["reason"], "Idle");
    let unmet = r#"nantian_config_unmet_conditions{kind="WasmPlugin",condition="Programmed",reason="Idle"}"#;
    assert_eq!(gateway.metric(unmet).await, None);
}

#[tokio::test]
async fn a_request_whose_client_leaves_before_it_is_answered_is_counted() {
    let backend = Backend::raw(async |mut wire| {
        let _ = wire.message().await;
        std::future::pending().await
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    eventually("the request has arrived", async || backend.connections() == 1).await;
    drop(wire);
    let counted = "nantian_http_requests_total{route=\"demo/r\",code_class=\"aborted\"}";
    eventually("it is counted", async || gateway.metric(counted).await == Some(1.0)).await;
}

#[tokio::test]
async fn secrets_are_shown_nowhere() {
    let certificate = Certificate::new(&["example.org"]);
    let provider = Backend::echo("llm").await;
    let manifest = format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: key, namespace: demo}}
stringData: {{token: sk-very-secret, unused: never-used}}
---
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: llm, namespace: demo}}
spec: {{provider: openai, model: m, endpoint: 'http://{}', auth: {{type: bearer, secret: key, key: token}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: broken, namespace: demo}}
stringDatta: {{token: sk-in-a-broken-secret}}
",
        provider.address
    );
    let (port, secure) = (Port::reserve(), Port::reserve());
    let listeners = [
        port.listener("http", "protocol: HTTP"),
        secure.listener("https", "protocol: HTTPS, tls: {certificateRefs: [{name: tls}]}"),
    ];
    let gateway = World::with_listeners(port, &listeners)
        .manifest("secrets", &manifest)
        .manifest("tls", &certificate.secret("tls"))
        .route("r", &[rule("/", &to_ai("llm"))])
        .options(&["--log-level", "trace"])
        .start()
        .await;
    assert_eq!(gateway.ask(chat("h", false)).await.status(), 200);
    assert_eq!(provider.last().header("authorization"), Some("Bearer sk-very-secret"));
    let config = gateway.admin("/config").await.text();
    assert!(config.contains("[redacted]") && config.contains("\"demo/llm\""), "{config}");
    let key = certificate.key_pem();
    let key = key.lines().nth(1).unwrap();
    for text in [config, gateway.admin("/metrics").await.text(), gateway.log.text()] {
        for secret in ["sk-very-secret", "never-used", "sk-in-a-broken-secret", key] {
            assert!(!text.contains(secret), "{secret} is shown");
        }
    }
}

#[tokio::test]
async fn the_access_log_says_why_nobody_was_asked() {
    let gateway = World::new()
        .service("empty", &[])
        .route("r", &[rule("/empty", &to("empty")), rule("/nowhere", &to("nowhere"))])
        .options(&["--access-log", "json"])
        .start()
        .await;
    for (path, status, why) in [
        ("/empty", 503, "no endpoint is ready and has a weight above 0"),
        ("/nowhere", 500, "this route has no valid backend"),
    ] {
        assert_eq!(gateway.get(path).await.status(), status);
        let line: Value = serde_json::from_str(&gateway.output.more(path, 0).await).unwrap();
        assert_eq!(line["error"], why, "{path}");
    }
}

#[tokio::test]
async fn the_access_log_names_the_policy_that_refuses_and_no_key() {
    let backend = Backend::echo("a").await;
    let policy = limits("quota", "kind: HTTPRoute, name: r", "requestsPerMinute: 1, scope: apiKey");
    let gateway = World::of_backend(&backend)
        .manifest("quota", &policy)
        .options(&["--access-log", "json"])
        .start()
        .await;
    let request = "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer sk-very-secret\r\n\r\n";
    assert_eq!(gateway.ask(request).await.status(), 200);
    assert_eq!(gateway.ask(request).await.status(), 429);
    let line: Value = serde_json::from_str(&gateway.output.more("\"status\":429", 0).await).unwrap();
    let why = line["error"].as_str().unwrap_or_default();
    assert!(why.starts_with("TokenPolicy demo/quota: "), "{line}");
    assert!(why.contains("requests-per-minute exhausted"), "{line}");
    assert!(!gateway.output.text().contains("sk-very-secret"));
}

#[tokio::test]
async fn the_access_log_says_why_a_request_was_refused() {
    let gateway = World::new().options(&["--access-log", "json"]).start().await;
    for (count, (request, status, why)) in [
        ("\u{16}\u{3}\u{1}\r\n\r\n", 400, "invalid HTTP method parsed"),
        ("GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", 400, "invalid HTTP header parsed"),
        ("GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400, "host"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(gateway.ask(request).await.status(), status, "{request:?}");
        let line: Value = serde_json::from_str(&gateway.output.more("\"error\"", count).await).unwrap();
        let said = line["error"].as_str().unwrap_or_default().to_lowercase();
        assert!(said.contains(&why.to_lowercase()), "{line}");
    }
}

#[tokio::test]
async fn the_access_log_says_that_a_client_has_not_taken_all() {
    let (flooding, _) = Backend::flooding(64 << 20).await;
    let world = World::of_backend(&flooding);
    let gateway = world.options(&["--access-log", "json"]).start().await;
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wire.reply_head().await.status(), 200);
    drop(wire);
    let line: Value = serde_json::from_str(&gateway.output.more("\"status\":200", 0).await).unwrap();
    assert_eq!(line["error"], "the client left or took nothing before all was sent");
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n").await;
    assert_eq!(wire.reply().await.status(), 400);
    let line: Value = serde_json::from_str(&gateway.output.more("\"status\":400", 0).await).unwrap();
    assert!(line["error"].as_str().unwrap().contains("cannot be read"), "{line}");
}

#[tokio::test]
async fn the_access_log_has_one_json_object_a_request_and_no_query() {
    let backend = Backend::echo("a").await;
    let mut gateway = World::new()
        .service("a", &[&backend])
        .route("r", &[rule("/a", &to("a"))])
        .options(&["--access-log", "json"])
        .start()
        .await;
    let mut wire = gateway.connect().await;
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = format!(
        "GET /a/b?token=hidden HTTP/1.1\r\nHost: Example.org:81\r\nUser-Agent: \"quoted\"\r\n{trace}\r\n\r\n"
    );
    assert_eq!(wire.ask(request).await.status(), 200);
    assert_eq!(wire.get("/unknown?token=hidden").await.status(), 404);
    let post = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    for _ in 0..20 {
        assert_eq!(wire.ask(post).await.status(), 200);
    }
    assert_eq!(gateway.metric("nantian_access_log_lost_lines_total").await, Some(0.0));
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let lines: Vec<Value> =
        gateway.output.all().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 22, "each request has its line, the last one too");
    let first = &lines[0];
    let expected: [(&str, Value); 10] = [
        ("route", "demo/r".into()),
        ("client", "127.0.0.1".into()),
        ("method", "GET".into()),
        ("host", "example.org".into()),
        ("path", "/a/b".into()),
        ("protocol", "HTTP/1.1".into()),
        ("endpoint", backend.address.to_string().into()),
        ("status", 200.into()),
        ("user_agent", "\"quoted\"".into()),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c".into()),
    ];
    for (field, value) in expected {
        assert_eq!(first[field], value, "{field}");
    }
    assert_eq!((&lines[1]["status"], &lines[1]["path"]), (&404.into(), &"/unknown".into()));
    assert!(lines[1]["endpoint"].is_null(), "nobody was asked");
    assert_eq!((&lines[21]["bytes"], &lines[21]["method"]), (&5.into(), &"POST".into()));
    assert!(lines[2..].iter().all(|line| line["error"].is_null()), "nothing went wrong");
    assert!(!gateway.output.text().contains("hidden"));
}

#[tokio::test]
async fn the_end_of_the_process_loses_no_line_of_the_access_log() {
    let mut gateway = World::new().options(&["--access-log", "json"]).start().await;
    let mut wire = gateway.connect().await;
    let requests = 5000;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(requests)).await;
    for _ in 0..requests {
        assert_eq!(wire.reply().await.status(), 404);
    }
    drop(wire);
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    assert_eq!(gateway.output.all().len(), requests);
    assert!(!gateway.log.text().contains("are lost"), "{}", gateway.log.text());
}

#[tokio::test]
async fn the_admin_server_can_be_left_out() {
    let backend = Backend::echo("a").await;
    let mut gateway = World::of_backend(&backend).options(&["--admin-addr", "none"]).start_as_is().await;
    eventually("it serves", async || gateway.get("/").await.status() == 200).await;
    assert_eq!(gateway.log.count("\"admin server\""), 0);
    gateway.signal("INT");
    assert!(gateway.exit().await.success());
}
