//! TokenPolicy: what is decided before the body of a request is read.

use crate::support::{
    Backend, Running, Wire, World, eventually,
    limits::{ai_service, completion, limits, post},
    rule, soon, to, to_ai,
};

/// The policy on `target`, over an AIService at `/v1` and a Service that speaks like a provider at `/plain`.
async fn limited(provider: &Backend, target: &str, spec: &str) -> Running {
    let rewrite = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]";
    World::new()
        .manifest("llm", &ai_service("llm", "m", provider))
        .service("plain", &[provider])
        .route("web", &[rule("/v1", &to_ai("llm")), rule("/plain", &format!("{rewrite}, {}", to("plain")))])
        .manifest("limits", &limits("limits", target, spec))
        .start()
        .await
}

/// What a client is told that asks whether to send 30 MB, and its connection.
async fn offer(gateway: &Running, path: &str) -> (u16, Wire) {
    let mut wire = gateway.connect().await;
    wire.send(format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 30000000\r\n\r\n"
    ))
    .await;
    let status = soon(wire.reply_head()).await.status();
    (status, wire)
}

#[tokio::test]
async fn whoever_is_over_a_limit_of_requests_gets_no_body_read() {
    let provider = Backend::answering(|_| completion(60)).await;
    for (target, path) in [
        ("kind: Gateway, name: demo", "/v1/chat/completions"),
        ("kind: Gateway, name: demo", "/plain/v1/chat/completions"),
        ("kind: HTTPRoute, name: web", "/v1/messages"),
        ("kind: AIService, name: llm", "/v1/chat/completions"),
    ] {
        for spec in ["requestsPerMinute: 2", "requestsPerMinute: 2, tokensPerMinute: 100000"] {
            let gateway = limited(&provider, target, spec).await;
            let (first, _first) = offer(&gateway, path).await;
            let (second, second_wire) = offer(&gateway, path).await;
            assert_eq!((first, second), (100, 100), "{target} {path} {spec}");
            let (third, _third) = offer(&gateway, path).await;
            assert_eq!(third, 429, "{target} {path} {spec}: though nobody has sent a body yet");
            drop(second_wire);
            let (fourth, _fourth) = offer(&gateway, path).await;
            assert_eq!(fourth, 429, "{target} {path} {spec}: who leaves has made a request");
        }
    }
}

#[tokio::test]
async fn an_ai_service_beside_a_service_gets_no_body_read_either() {
    let provider = Backend::answering(|_| completion(60)).await;
    let shares = "backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: llm}, {name: plain, port: 80, weight: 0}]";
    let spec = "requestsPerMinute: 2, tokensPerMinute: 100000";
    let gateway = World::new()
        .manifest("llm", &ai_service("llm", "m", &provider))
        .service("plain", &[&provider])
        .route("web", &[rule("/v1", shares)])
        .manifest("limits", &limits("limits", "kind: AIService, name: llm", spec))
        .start()
        .await;
    let mut offers = Vec::new();
    for _ in 0..3 {
        offers.push(offer(&gateway, "/v1/chat/completions").await);
    }
    let statuses: Vec<_> = offers.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [100, 100, 429]);
}

#[tokio::test]
async fn whoever_is_in_debt_gets_no_body_read() {
    let provider = Backend::answering(|_| completion(160)).await;
    for path in ["/v1/chat/completions", "/plain/v1/chat/completions"] {
        let gateway = limited(&provider, "kind: Gateway, name: demo", "tokensPerMinute: 100").await;
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
        assert_eq!(gateway.ask(post(path, "", body)).await.status(), 200, "{path}");
        let used = "nantian_rate_limit_tokens_total{policy=\"demo/limits\",kind=\"used\"}";
        eventually("it is settled", async || gateway.metric(used).await == Some(160.0)).await;
        assert_eq!(offer(&gateway, path).await.0, 429, "{path}");
        assert_eq!(gateway.get("/plain/page").await.status(), 200, "what uses no tokens needs none");
    }
}

#[tokio::test]
async fn whoever_waits_for_a_request_sends_no_body_meanwhile() {
    let provider = Backend::answering(|_| completion(60)).await;
    let spec = "requestsPerMinute: 60, tokensPerMinute: 100000, onLimit: queue";
    let gateway = limited(&provider, "kind: AIService, name: llm", spec).await;
    let mut offers = Vec::new();
    for _ in 0..62 {
        offers.push(offer(&gateway, "/v1/chat/completions").await);
    }
    assert!(offers.iter().all(|(status, _)| *status == 100), "the last ones waited for their turn");
    for limit in ["requests-per-minute", "tokens-per-minute"] {
        let refused = format!(
            "nantian_rate_limit_decisions_total{{policy=\"demo/limits\",decision=\"refused\",limit=\"{limit}\"}}"
        );
        assert_eq!(gateway.metric(&refused).await, Some(0.0));
    }
}
