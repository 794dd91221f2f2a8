//! AIService: what becomes of a provider's refusals.

use serde_json::Value;

use crate::support::{
    Backend, Wire, World, chat,
    limits::{ai_service, limits, post},
    llm, provider, rule, said, soon, to_ai,
};

const STREAM: &str = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"four score and seven\"},\"finish_reason\":\"stop\"}]}\n\n\
    data: [DONE]\n\n";

const MESSAGES: &str = "{\"model\":\"any\",\"max_tokens\":9,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";

/// A provider that always refuses with a status.
async fn refusing(status: u16, content_type: &'static str, body: &'static str) -> Backend {
    Backend::answering(move |_| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    })
    .await
}

/// A route to one AIService that is asked up to three times.
fn asked_thrice(provider: &Backend, spec: &str) -> World {
    const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata: {name: account, namespace: demo}
stringData: {token: 'AKID:secret'}
";
    let service = format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: llm, namespace: demo}}
spec: {{{spec}, endpoint: 'http://{}', retry: {{maxRetries: 2, backoff: 1ms}}}}
",
        provider.address
    );
    World::new()
        .manifest("secret", SECRET)
        .manifest("service", &service)
        .route("llm", &[rule("/", &to_ai("llm"))])
}

#[tokio::test]
async fn a_refusal_is_judged_by_its_status_alone() {
    const HTML: &str = "<html>Not here</html>";
    const JSON: &str = r#"{"message":"m","error":{"type":"api_error","message":"m"}}"#;
    const BEDROCK: &str = "provider: bedrock, model: amazon.nova-pro-v1, region: eu-central-1, \
                           auth: {type: aws, secret: account, key: token}";
    for (spec, content_type, body) in [
        ("provider: openai, model: m, auth: {type: none}", "text/html", HTML),
        ("provider: openai, model: m, auth: {type: none}", "application/json", JSON),
        ("provider: anthropic, model: m, auth: {type: none}", "application/json", JSON),
        (BEDROCK, "application/json", JSON),
    ] {
        for (status, times) in [(302, 1), (403, 1), (404, 1), (501, 1), (503, 3), (529, 3)] {
            let provider = refusing(status, content_type, body).await;
            let gateway = asked_thrice(&provider, spec).start().await;
            let reply = gateway.ask(chat("llm.example", false)).await;
            assert!(reply.status() >= 300, "{reply:?}");
            assert_eq!(provider.seen().len(), times, "{spec} {status} {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_refuses_to_tell_usage_is_asked_without_from_then_on() {
    const REFUSAL: &str = r#"{"error":{"message":"Unrecognized request argument supplied: stream_options","type":"invalid_request_error"}}"#;
    let older = Backend::answering(|request| {
        if request.json().get("stream_options").is_none() {
            return said("text/event-stream", STREAM);
        }
        let length = REFUSAL.len();
        format!(
            "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{REFUSAL}"
        )
        .into_bytes()
    })
    .await;
    let gateway = llm(&older, "").start().await;
    for _ in 0..2 {
        let reply = gateway.ask(chat("llm.example", true)).await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, STREAM));
    }
    let reply = gateway.ask(post("/v1/messages", "", MESSAGES)).await;
    assert!(reply.text().contains("four score and seven"), "{reply:?}");
    assert_eq!(older.seen().len(), 4, "only the first request was refused");
    let counted = r#"nantian_ai_tokens_total{ai_service="demo/llm",kind="output"}"#;
    assert!(gateway.metric(counted).await > Some(0.0), "what is not told is estimated");
    for (result, count) in [("2xx", 3.0), ("4xx", 1.0), ("credential", 0.0)] {
        let attempts = format!("nantian_ai_attempts_total{{ai_service=\"demo/llm\",result=\"{result}\"}}");
        assert_eq!(gateway.metric(&attempts).await, Some(count), "{result}");
    }
}

#[tokio::test]
async fn a_credential_that_the_provider_refuses_is_counted_and_said_once() {
    let strict = refusing(401, "application/json", "{}").await;
    let gateway = llm(&strict, "").start().await;
    for _ in 0..3 {
        assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 502);
    }
    let refused = r#"nantian_ai_attempts_total{ai_service="demo/llm",result="credential"}"#;
    assert_eq!(gateway.metric(refused).await, Some(3.0));
    assert_eq!(gateway.log.count("does not take the AIService's credential"), 1, "{}", gateway.log.text());
}

#[tokio::test]
async fn what_the_provider_forbids_is_not_blamed_on_the_credential() {
    const FORBIDDEN: &str = r#"{"error":{"message":"Project has no access to the model","type":"invalid_request_error","code":"model_not_found"}}"#;
    let strict = refusing(403, "application/json", FORBIDDEN).await;
    let gateway = llm(&strict, "").start().await;
    assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 403);
    let forbidden = r#"nantian_ai_attempts_total{ai_service="demo/llm",result="4xx"}"#;
    assert_eq!(gateway.metric(forbidden).await, Some(1.0));
    assert_eq!(gateway.log.count("does not take the AIService's credential"), 0, "{}", gateway.log.text());
}

#[tokio::test]
async fn a_provider_that_tells_usage_is_asked_for_it() {
    let newer = provider("{}", STREAM).await;
    let gateway = llm(&newer, "").start().await;
    let reply = gateway.ask(post("/v1/messages", "", MESSAGES)).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(newer.last().json()["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn the_access_log_names_the_ai_services_that_were_asked_and_what_they_took() {
    const ANSWER: &str = r#"{"id":"x","model":"m-0","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":91,"total_tokens":100,"completion_tokens_details":{"reasoning_tokens":50}}}"#;
    let (full, answering) = (refusing(503, "application/json", "{}").await, provider(ANSWER, STREAM).await);
    let both = to_ai("llm}, {group: gateway.nantian.dev, kind: AIService, name: other");
    let mut gateway = asked_thrice(&full, "provider: openai, model: first, auth: {type: none}")
        .manifest("other", &ai_service("other", "m", &answering))
        .route("both", &[rule("/both", &both)])
        .options(&["--access-log", "json"])
        .start()
        .await;
    let ask = r#"{"model":"llm","max_tokens":9,"top_k":3,"messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(gateway.ask(post("/both/v1/messages", "", ask)).await.status(), 200);
    assert_eq!(gateway.get("/unknown").await.status(), 404);
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let lines: Vec<Value> =
        gateway.output.all().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let asked = lines[0]["ai"].as_array().unwrap();
    let told = |at: usize, field: &str| asked[at][field].clone();
    assert_eq!((told(0, "service"), told(1, "service")), ("demo/llm".into(), "demo/other".into()));
    let statuses = |at: usize| -> Vec<Value> {
        told(at, "attempts").as_array().unwrap().iter().map(|attempt| attempt["status"].clone()).collect()
    };
    assert_eq!((statuses(0), statuses(1)), (vec![503.into(); 3], vec![200.into()]));
    for (field, first, second) in [
        ("client_dialect", "anthropic", "anthropic"),
        ("provider_dialect", "openai", "openai"),
        ("original_model", "llm", "llm"),
        ("request_model", "first", "m"),
    ] {
        assert_eq!((told(0, field), told(1, field)), (first.into(), second.into()), "{field}");
    }
    assert_eq!((told(0, "outcome"), told(1, "outcome")), ("not_served".into(), "completed".into()));
    assert_eq!((told(0, "error"), told(1, "response_model")), ("overloaded".into(), "m-0".into()));
    assert_eq!((told(1, "input_tokens"), told(1, "output_tokens")), (9.into(), 91.into()));
    assert_eq!((told(1, "reasoning_tokens"), told(1, "dropped")), (50.into(), "top_k".into()));
    assert_eq!((asked.len(), lines[1].get("ai")), (2, None));
    assert_eq!(lines[0]["endpoint"], answering.address.to_string(), "the one that has answered");
}

#[tokio::test]
async fn the_access_log_says_why_no_answer_came_or_why_it_broke_off() {
    let provider = Backend::raw(async |mut wire: Wire| {
        let Ok(request) = wire.message().await else { return };
        match request.start.split('/').nth(1) {
            Some("fails") => {
                wire.send("HTTP/1.1 500 X\r\nx-should-retry: false\r\ncontent-length: 0\r\n\r\n").await;
            }
            Some("breaks") => {
                let event =
                    "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"four\"}}]}\n\n";
                let head = "content-type: text/event-stream\r\ncontent-length: 9999";
                wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{event}")).await;
            }
            _ => {}
        }
    })
    .await;
    let mut world = World::new().options(&["--access-log", "json"]);
    for name in ["fails", "breaks", "dies"] {
        let endpoint = format!("http://{}/{name}", provider.address);
        let spec = format!(
            "{{provider: openai, model: m, endpoint: \"{endpoint}\", auth: {{type: none}}, retry: {{maxRetries: 0}}}}"
        );
        let service = format!(
            "apiVersion: gateway.nantian.dev/v1alpha1\nkind: AIService\nmetadata: {{name: {name}, namespace: demo}}\nspec: {spec}"
        );
        world = world.manifest(name, &service).route(name, &[rule(&format!("/{name}"), &to_ai(name))]);
    }
    let mut gateway = world.start().await;
    for (name, status) in [("fails", 502), ("breaks", 200), ("dies", 502)] {
        assert_eq!(
            gateway.ask(post(&format!("/{name}/v1/messages"), "", MESSAGES)).await.status(),
            status,
            "{name}"
        );
    }
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let lines = gateway.output.all();
    for (line, why) in lines.iter().zip([
        "demo/fails gave no whole answer: upstream_error",
        "demo/breaks gave no",
        "demo/dies",
    ]) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["error"].as_str().is_some_and(|error| error.contains(why)), "{why}: {line}");
    }
    assert_eq!(lines.len(), 3);
}

/// What a provider tells of the limits of the operator's account.
const ACCOUNT: &str = "x-ratelimit-limit-requests: 5000\r\nx-ratelimit-remaining-requests: 4999\r\n\
    x-ratelimit-remaining-tokens: 7\r\nx-ratelimit-reset-tokens: 1m0s\r\n\
    x-ratelimit-limit-project-tokens: 9\r\nanthropic-ratelimit-tokens-remaining: 7\r\n\
    ratelimit: \"account\";r=7\r\nopenai-organization: acme\r\nopenai-version: 2020-10-01\r\n";

#[tokio::test]
async fn clients_are_told_of_the_gateways_limits_alone_and_whose_limit_they_have_met() {
    let provider = Backend::answering(|request| {
        let status = if request.json()["seed"] == 1 { "429 X\r\nretry-after: 40" } else { "200 OK" };
        let kind = "content-type: application/json\r\ncontent-length: 2";
        format!("HTTP/1.1 {status}\r\n{kind}\r\n{ACCOUNT}\r\n{{}}").into_bytes()
    })
    .await;
    let limited = limits("limits", "kind: HTTPRoute, name: llm", "requestsPerMinute: 3");
    let gateway = llm(&provider, "").start().await;
    let ask = async |seed: u8| {
        let body = format!(r#"{{"model":"any","messages":[],"seed":{seed}}}"#);
        gateway.ask(post("/v1/chat/completions", "anthropic-version: 1\r\n", &body)).await
    };
    let free = ask(0).await;
    assert_eq!(free.header("x-ratelimit-remaining-tokens"), Some("7"), "there is no other limit");
    assert_eq!(
        (free.header("openai-organization"), free.header("openai-version")),
        (None, Some("2020-10-01"))
    );
    let refused = ask(1).await;
    assert_eq!((refused.status(), refused.header("x-nantian-limit-source")), (429, Some("upstream")));

    gateway.edit("limits", &limited).await;
    for (seed, status, left, source) in [
        (0, 200, "2", None),
        (1, 429, "1", Some("upstream")),
        (0, 200, "0", None),
        (0, 429, "0", Some("gateway")),
    ] {
        let reply = ask(seed).await;
        assert_eq!((reply.status(), reply.header("x-nantian-limit-source")), (status, source));
        for name in ["x-ratelimit-remaining-requests", "anthropic-ratelimit-requests-remaining"] {
            assert_eq!(reply.header(name), Some(left), "{name}");
        }
        assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("3"));
        assert!(!reply.header("ratelimit").unwrap().contains("account"));
        for name in [
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
            "x-ratelimit-limit-project-tokens",
            "anthropic-ratelimit-tokens-remaining",
        ] {
            assert_eq!(reply.header(name), None, "{name}");
        }
        match source {
            Some("upstream") => assert_eq!(reply.header("retry-after"), Some("40"), "the provider's"),
            Some(_) => {
                assert_eq!(reply.header("x-ratelimit-retry-after-seconds"), reply.header("retry-after"))
            }
            None => assert_eq!(reply.header("retry-after"), None),
        }
    }
}

#[tokio::test]
async fn responses_over_a_websocket_are_refused_by_the_status_after_which_codex_uses_http() {
    const OFFER: &str = "GET /v1/responses HTTP/1.1\r\nHost: llm.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        OpenAI-Beta: responses_websockets=2026-02-06\r\n\r\n";
    let provider = provider(r#"{"object":"response"}"#, STREAM).await;
    let gateway = llm(&provider, "").start().await;
    let mut wire = gateway.connect().await;
    let reply = wire.ask(OFFER).await;
    assert_eq!((reply.status(), reply.header("content-type")), (426, Some("application/json")));
    assert_eq!(
        (&reply.json()["error"]["code"], reply.header("allow")),
        (&"no_websocket".into(), Some("POST"))
    );
    assert!(provider.seen().is_empty());
    let reply = wire.ask(post("/v1/responses", "", r#"{"model":"any","input":"Hi"}"#)).await;
    assert_eq!(reply.status(), 200, "{reply:?}");

    let reply = gateway.ask("GET /v1/responses HTTP/1.1\r\nHost: llm.example\r\n\r\n").await;
    assert_eq!((reply.status(), reply.header("allow")), (405, Some("POST")), "{reply:?}");
}

#[tokio::test]
async fn half_of_a_large_answer_never_looks_whole() {
    let half = format!(r#"{{"choices":[{{"message":{{"content":"{}"#, "four score ".repeat(10_000));
    for ends in ["connection: close", &format!("content-length: {}", half.len())] {
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{ends}\r\n\r\n{half}");
        let provider = Backend::raw(move |mut wire| {
            let reply = reply.clone();
            async move {
                if wire.message().await.is_ok() {
                    wire.send(reply).await;
                }
            }
        })
        .await;
        let gateway = llm(&provider, "").start().await;
        let mut wire = gateway.connect().await;
        wire.send(chat("llm.example", false)).await;
        // Whether it breaks off or is refused depends on how much has come when it is judged.
        let status = soon(wire.message()).await.map(|reply| reply.status());
        assert!(matches!(status, Err(_) | Ok(502)), "{ends}: {status:?}");
    }
}
