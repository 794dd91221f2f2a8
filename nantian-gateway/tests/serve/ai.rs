//! AIService: an OpenAI-type provider behind the gateway.

use serde_json::json;

use crate::support::{
    Backend, Message, Port, Running, World, chat, limits::limits, llm, provider, rule, said,
};

const BUFFERED: &str = r#"{"id":"x","object":"chat.completion","model":"fake-large","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":91,"total_tokens":100},"odd":  1}"#;

/// A stream with what a parser may not like: comments, odd spacing, an event that spans chunks.
const STREAM: &str = ": hello\n\ndata: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\u{e9}\"}}]}\n\n\
    data:{\"id\":\"x\", \"choices\":[{\"index\":0,\"delta\":{\"content\":\"llo\"},\"finish_reason\":\"stop\"}]}\r\n\r\n\
    data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":91,\"total_tokens\":100}}\n\n\
    data: [DONE]\n\n";

/// The event of the stream that only the gateway has asked for.
const USAGE: &str = "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":91,\"total_tokens\":100}}\n\n";

/// An OpenAI-type provider.
async fn gpt() -> Backend {
    provider(BUFFERED, STREAM).await
}

/// The AIService `llm` at `provider`.
async fn gateway(provider: &Backend) -> Running {
    llm(provider, "").start().await
}

async fn ask(gateway: &Running, stream: bool) -> Message {
    gateway.ask(chat("llm.example", stream)).await
}

#[tokio::test]
async fn the_provider_sees_its_own_credential_and_model_and_the_client_its_bytes() {
    let provider = gpt().await;
    let gateway = gateway(&provider).await;

    let reply = ask(&gateway, false).await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, BUFFERED));
    let seen = provider.last();
    assert_eq!(seen.start, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(seen.all("authorization"), ["Bearer sk-provider"]);
    assert_eq!(seen.all("host"), [provider.address.to_string()]);
    assert_eq!(seen.json()["model"], "fake-large");
    assert!(seen.text().ends_with(r#""seed":  7}"#), "the rest of the request is untouched");
    assert!(seen.headers.iter().all(|(_, value)| !value.contains("sk-client")));

    let reply = ask(&gateway, true).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.text(), STREAM.replace(USAGE, ""));
    assert_eq!(provider.last().json()["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn clients_of_ollama_find_a_server_and_its_models_before_they_chat() {
    let provider = gpt().await;
    let gateway = gateway(&provider).await;
    let mut wire = gateway.connect().await;
    wire.send("HEAD / HTTP/1.1\r\nhost: llm.example\r\n\r\n").await;
    assert_eq!(wire.reply_head().await.status(), 200);
    assert_eq!(wire.get("/").await.text(), "Ollama is running");
    assert!(wire.get("/api/version").await.json()["version"].is_string());
    assert_eq!(wire.get("/api/ps").await.json(), json!({ "models": [] }));
    assert_eq!(wire.get("/api/tags").await.json()["models"][0]["model"], "llm");
    let show = |model: &str| {
        let body = format!(r#"{{"model":"{model}"}}"#);
        format!("POST /api/show HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let shown = wire.ask(show("llm")).await;
    assert_eq!((shown.status(), &shown.json()["capabilities"][1]), (200, &json!("tools")));
    let unknown = wire.ask(show("other")).await;
    assert_eq!((unknown.status(), unknown.json()["error"].is_string()), (404, true));
    assert_eq!(provider.connections(), 0, "nobody is asked");
}

#[tokio::test]
async fn the_usage_of_replies_counts_against_a_limit_on_tokens() {
    let provider = gpt().await;
    let limits = limits("limits", "kind: HTTPRoute, name: llm", "tokensPerHour: 250");
    let gateway = llm(&provider, "").manifest("limits", &limits).start().await;
    for stream in [false, true] {
        assert_eq!(ask(&gateway, stream).await.status(), 200);
    }
    let refused = ask(&gateway, false).await;
    assert_eq!(refused.status(), 429, "50 tokens are left, and a reply takes 100");
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("50"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(provider.seen().len(), 2);
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_answered_for() {
    let nobody = Port::reserve();
    let gateway = gateway(&Backend::at(nobody.address())).await;
    let reply = ask(&gateway, false).await;
    assert!(matches!(reply.status(), 502 | 503), "{reply:?}");
    assert!(!reply.text().contains("sk-provider"));
}

/// A provider of Anthropic's dialect that gives one answer, or refuses with a status.
async fn claude(status: u16) -> Backend {
    Backend::answering(move |_| {
        let body = match status {
            200 => {
                r#"{"id":"msg_1","type":"message","role":"assistant","model":"opus","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":91}}"#
            }
            _ => r#"{"type":"error","error":{"type":"overloaded_error","message":"later"}}"#,
        };
        let length = body.len();
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    })
    .await
}

/// A route to two AIServices: `gpt` at an OpenAI-type provider, `claude` at an Anthropic-type one.
async fn both(gpt: &Backend, claude: &Backend) -> Running {
    let service = |name: &str, provider: &str, model: &str, backend: &Backend| {
        format!(
            "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: {name}, namespace: demo}}
spec: {{provider: {provider}, model: {model}, endpoint: \"http://{}/v1\"}}
",
            backend.address
        )
    };
    let services =
        [service("gpt", "openai", "fake-large", gpt), service("claude", "anthropic", "opus", claude)]
            .join("---\n");
    let backends = "backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: gpt}, \
                    {group: gateway.nantian.dev, kind: AIService, name: claude}]";
    World::new().manifest("services", &services).route("llm", &[rule("/v1", backends)]).start().await
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: llm.example\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn an_anthropic_client_talks_to_an_openai_type_provider() {
    let provider = gpt().await;
    let gateway = gateway(&provider).await;
    let body = |stream: bool| {
        format!(
            r#"{{"model":"any","max_tokens":9,"stream":{stream},"top_k":3,"messages":[{{"role":"user","content":"hi"}}]}}"#
        )
    };
    let reply = gateway.ask(post("/v1/messages", &body(false))).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.header("x-nantian-dropped"), Some("top_k,odd"));
    let message = reply.json();
    assert_eq!((&message["type"], &message["content"][0]["text"]), (&"message".into(), &"hi".into()));
    assert_eq!(provider.last().start, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(provider.last().all("authorization"), ["Bearer sk-provider"]);

    let reply = gateway.ask(post("/v1/messages", &body(true))).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let text = reply.text();
    assert!(text.starts_with("event: message_start") && text.contains("event: message_stop"), "{text}");
    assert!(text.contains(r#"{"type":"text_delta","text":"llo"}"#), "{text}");
}

#[tokio::test]
async fn a_request_goes_to_the_model_that_it_names_and_on_to_the_other_where_that_fails() {
    let gpt = gpt().await;
    let ask = |model: &str| {
        post(
            "/v1/chat/completions",
            &format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#),
        )
    };
    let healthy = claude(200).await;
    let gateway = both(&gpt, &healthy).await;
    for (model, answers) in
        [("claude", "opus"), ("opus", "opus"), ("gpt", "fake-large"), ("fake-large", "fake-large")]
    {
        assert_eq!(gateway.ask(ask(model)).await.json()["model"], answers, "{model}");
    }
    let listed = gateway.ask("GET /v1/models HTTP/1.1\r\nHost: llm.example\r\n\r\n".to_owned()).await.json();
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["gpt", "claude"]);

    let overloaded = claude(529).await;
    let gateway = both(&gpt, &overloaded).await;
    let reply = gateway.ask(ask("claude")).await;
    assert_eq!((reply.status(), &reply.json()["model"]), (200, &"fake-large".into()));
    assert_eq!(overloaded.seen().len(), 1);
}

#[tokio::test]
async fn an_ai_service_that_cannot_be_used_is_passed_over() {
    let gpt = gpt().await;
    let service = |name: &str, auth: &str| {
        format!(
            "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: {name}, namespace: demo}}
spec: {{provider: openai, model: fake-{name}, endpoint: \"http://{}/v1\"{auth}}}
",
            gpt.address
        )
    };
    let services =
        [service("large", ""), service("small", ", auth: {type: bearer, secret: gone}")].join("---\n");
    let reference = |name: &str, weight: u8| {
        format!("{{group: gateway.nantian.dev, kind: AIService, name: {name}, weight: {weight}}}")
    };
    let backends = |weight: u8| {
        let references = [reference("large", weight), reference("small", 1), reference("canary", 0)];
        format!("backendRefs: [{}]", references.join(", "))
    };
    // What a Service was to get is for no provider.
    let mixed = format!("backendRefs: [{{name: absent, port: 80}}, {}]", reference("large", 0));
    let rules = [rule("/v1", &backends(1)), rule("/none/v1", &backends(0)), rule("/mixed/v1", &mixed)];
    let gateway = World::new().manifest("services", &services).route("llm", &rules).start().await;
    let ask = |path: &str, model: &str| {
        post(path, &format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#))
    };
    for model in ["large", "small", "canary", "any"].repeat(5) {
        let reply = gateway.ask(ask("/v1/chat/completions", model)).await;
        assert_eq!((reply.status(), &reply.json()["model"]), (200, &"fake-large".into()), "{model}");
    }
    let listed = gateway.ask("GET /v1/models HTTP/1.1\r\nHost: llm.example\r\n\r\n".to_owned()).await.json();
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["large"]);
    // Where no other can be asked nothing is.
    assert_eq!(gateway.ask(ask("/none/v1/chat/completions", "small")).await.status(), 500);
    assert_eq!(gateway.ask(ask("/mixed/v1/chat/completions", "large")).await.status(), 500);
}

#[tokio::test]
async fn an_attempt_that_takes_longer_than_the_rule_gives_it_makes_way_for_another_ai_service() {
    let gpt = gpt().await;
    let silent = Backend::raw(|mut wire| async move { while wire.message().await.is_ok() {} }).await;
    let service = |name: &str, backend: &Backend| {
        format!(
            "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: {name}, namespace: demo}}
spec: {{provider: openai, model: fake-{name}, endpoint: \"http://{}/v1\"}}
",
            backend.address
        )
    };
    let services = [service("silent", &silent), service("large", &gpt)].join("---\n");
    let backends = "timeouts: {backendRequest: 3s}, \
      backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: silent}, \
      {group: gateway.nantian.dev, kind: AIService, name: large}]";
    let gateway =
        World::new().manifest("services", &services).route("llm", &[rule("/v1", backends)]).start().await;
    let body = r#"{"model":"silent","messages":[{"role":"user","content":"hi"}]}"#;
    let reply = gateway.ask(post("/v1/chat/completions", body)).await;
    assert_eq!((reply.status(), &reply.json()["model"]), (200, &"fake-large".into()));
}

#[tokio::test]
async fn long_prompts_and_large_pictures_pass() {
    let provider = gpt().await;
    let gateway = gateway(&provider).await;
    for (path, size) in
        [("/v1/chat/completions", 400_000), ("/v1/messages", 400_000), ("/v1/messages", 24 << 20)]
    {
        let picture = "A".repeat(size);
        let content = match path {
            "/v1/messages" => format!(
                r#"[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{picture}"}}}}]"#
            ),
            _ => format!(r#""{picture}""#),
        };
        let body =
            format!(r#"{{"model":"any","max_tokens":9,"messages":[{{"role":"user","content":{content}}}]}}"#);
        let reply = gateway.ask(post(path, &body)).await;
        assert_eq!(reply.status(), 200, "{path} {size}");
        assert!(provider.last().body.len() > size);
    }
}

#[tokio::test]
async fn vectors_come_of_a_provider_that_speaks_another_dialect_and_count_against_a_limit() {
    const VECTORS: &str =
        r#"{"model":"nomic","embeddings":[[0.5,-0.25]],"total_duration":9,"prompt_eval_count":80}"#;
    let ollama = Backend::answering(|_| said("application/json", VECTORS)).await;
    let service = format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: nomic, namespace: demo}}
spec: {{provider: ollama, model: nomic, endpoint: 'http://{}'}}
",
        ollama.address
    );
    let backend = "backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: nomic}]";
    let gateway = World::new()
        .manifest("service", &service)
        .manifest("limits", &limits("limits", "kind: HTTPRoute, name: llm", "tokensPerMinute: 100"))
        .route("llm", &[rule("/", backend)])
        .start()
        .await;
    let reply = gateway.ask(post("/v1/embeddings", r#"{"model":"any","input":"a","user":"u"}"#)).await;
    assert_eq!((reply.status(), reply.header("x-nantian-dropped")), (200, Some("user")));
    assert_eq!(reply.json()["data"][0]["embedding"], json!([0.5, -0.25]));
    assert_eq!(reply.json()["usage"]["prompt_tokens"], 80);
    let seen = ollama.last();
    assert_eq!(seen.start, "POST /api/embed HTTP/1.1");
    assert_eq!(seen.json(), json!({"model": "nomic", "input": ["a"], "truncate": false}));

    let refused = gateway.ask(post("/v1/embeddings", &format!(r#"{{"input":"{}"}}"#, "a".repeat(200)))).await;
    assert_eq!(refused.status(), 429, "20 tokens are left, and the text has 50");
}

#[tokio::test]
async fn what_a_stream_loses_is_named_in_a_trailer() {
    const CITED: &str = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\",\"annotations\":[{}]},\"finish_reason\":\"stop\"}]}\n\n\
        data: [DONE]\n\n";
    let provider = provider(BUFFERED, CITED).await;
    let gateway = gateway(&provider).await;
    let ask = r#"{"max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    for (te, named) in [("TE: trailers\r\n", vec!["annotations".to_owned()]), ("", Vec::new())] {
        let request = post("/v1/messages", ask).replacen("\r\n", &format!("\r\n{te}"), 1);
        let reply = gateway.ask(request).await;
        assert!(reply.text().ends_with("data: {\"type\":\"message_stop\"}\n\n"), "{reply:?}");
        let trailers =
            reply.trailers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-nantian-dropped"));
        assert_eq!(trailers.map(|(_, value)| value.clone()).collect::<Vec<_>>(), named);
    }
    let lossy = r#"nantian_ai_lossy_calls_total{ai_service="demo/llm"}"#;
    assert_eq!(gateway.metric(lossy).await, Some(2.0));
}
