//! Several targets behind one route.

use std::time::Duration;

use http::Request;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use nantian_ai::route::{Choice, ModelRoute, StandIn};
use nantian_ai::usage::Outcome;
use nantian_ai::{TargetConfig, Timeouts};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Reports, Upstream, events, json as reply, layer, post};

const MESSAGE: &str = r#"{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"from claude"}],"stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":3}}"#;
const COMPLETION: &str =
    r#"{"choices":[{"message":{"content":"from gpt"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;

/// Asks a route to an OpenAI and an Anthropic provider, in this order; both report to the same observer.
async fn ask(
    openai: &Upstream,
    claude: &Upstream,
    request: Request<Full<bytes::Bytes>>,
) -> (u16, Value, Reports) {
    let (status, body, reports, _) = ask_and_see(openai, claude, request).await;
    (status, body, reports)
}

/// The same, and whether another one was asked before the one that has answered.
async fn ask_and_see(
    openai: &Upstream,
    claude: &Upstream,
    request: Request<Full<bytes::Bytes>>,
) -> (u16, Value, Reports, bool) {
    let reports = Reports::default();
    let choice = |name: &str, provider: &str, model: &str, upstream: &Upstream| {
        let config = TargetConfig::new(format!("demo/{name}"), provider, model)
            .with_timeouts(Timeouts::uniform(Duration::from_secs(5)));
        let service = layer(config).observer(reports.clone()).layer(upstream.clone());
        Choice::new(name, model, service)
    };
    let route = ModelRoute::new([
        choice("gpt", "openai", "gpt-4o", openai),
        choice("claude", "anthropic", "claude-sonnet-4-5", claude),
    ]);
    let response = route.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let stands_in = response.extensions().get::<StandIn>().is_some();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default(), reports, stands_in)
}

fn chat(model: &str) -> Request<Full<bytes::Bytes>> {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]}}"#);
    post("/v1/chat/completions", &body)
}

#[tokio::test]
async fn a_model_is_named_by_its_service_or_by_its_provider() {
    for model in ["claude", "claude-sonnet-4-5"] {
        let (openai, claude) = (Upstream::new(), Upstream::new().replies(reply(200, MESSAGE)));
        let (status, body, _) = ask(&openai, &claude, chat(model)).await;
        assert_eq!(status, 200);
        assert_eq!(body["choices"][0]["message"]["content"], "from claude");
        assert_eq!(openai.requests(), 0);
    }
}

#[tokio::test]
async fn what_the_model_that_stands_in_refuses_does_not_hide_that_the_other_one_failed() {
    let recording = r#"{"model":"gpt","messages":[{"role":"user","content":[
        {"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}]}"#;
    let refusal =
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long"}}"#;
    for (request, claude, asked) in [
        (post("/v1/chat/completions", recording), Upstream::new(), 0),
        (chat("gpt"), Upstream::new().replies(reply(400, refusal)), 1),
        (chat("gpt"), Upstream::new().replies(reply(404, refusal)), 1),
    ] {
        let failure = r#"{"error":{"message":"busy","type":"server_error","code":"x"}}"#;
        let openai = Upstream::new().replies(reply(503, failure));
        let (status, body, _) = ask(&openai, &claude, request).await;
        assert_eq!((status, &body["error"]["message"]), (503, &json!("busy")));
        assert_eq!(claude.requests(), asked);
    }
    // A failure of both is the last one's.
    let openai = Upstream::new().replies(reply(503, "{}"));
    let claude = Upstream::new().replies(reply(429, refusal));
    assert_eq!(ask(&openai, &claude, chat("gpt")).await.0, 429);
}

#[tokio::test(start_paused = true)]
async fn where_one_fails_the_other_is_asked_in_its_own_dialect_and_reported_once() {
    let failures: [fn() -> Upstream; 12] = [
        || Upstream::new().refuses_connection(),
        || Upstream::new().replies(reply(429, "{}")),
        || Upstream::new().replies(reply(529, "{}")),
        || Upstream::new().replies(reply(401, "{}")),
        || Upstream::new().replies(reply(402, "{}")),
        // It has no such model, or not for this key, or not for so much.
        || Upstream::new().replies(reply(403, "{}")),
        || Upstream::new().replies(reply(404, "{}")),
        || Upstream::new().replies(reply(413, "{}")),
        || {
            Upstream::new()
                .replies(reply(400, r#"{"error":{"code":"billing_hard_limit_reached","message":"m"}}"#))
        },
        || {
            let gives_up =
                "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"insufficient_system_resource\"}]}\n\n";
            Upstream::new().replies(events("text/event-stream", [(Duration::ZERO, Some(gives_up))]))
        },
        || Upstream::new().hangs(),
        || {
            let error = "data: {\"error\":{\"message\":\"later\"}}\n\n";
            Upstream::new().replies(events("text/event-stream", [(Duration::ZERO, Some(error))]))
        },
    ];
    for failure in failures {
        let (openai, claude) = (failure(), Upstream::new().replies(reply(200, MESSAGE)));
        let (status, body, reports) = ask(&openai, &claude, chat("gpt")).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["choices"][0]["message"]["content"], "from claude");
        let report = reports.only();
        assert_eq!((report.outcome, report.usage.total), (Outcome::Completed, 12));
    }
}

#[tokio::test]
async fn a_model_that_is_gone_is_told_of_as_it_was_where_no_other_one_serves() {
    let gone = r#"{"error":{"message":"The model does not exist","code":"model_not_found"}}"#;
    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"bad"}}"#;
    let openai = Upstream::new().replies(reply(404, gone));
    let claude = Upstream::new().replies(reply(400, refusal));
    let (status, body, reports) = ask(&openai, &claude, chat("gpt")).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(reports.only().outcome, Outcome::NotServed);
}

#[tokio::test]
async fn whoever_counts_around_is_told_that_another_one_was_asked() {
    let recording = r#"{"model":"claude","messages":[{"role":"user","content":[
        {"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}]}"#;
    for (openai, request, stands_in) in [
        (reply(200, COMPLETION), chat("gpt"), false),
        (reply(503, "{}"), chat("gpt"), true),
        // The dialect of the other one has no words for it: it was not asked.
        (reply(200, COMPLETION), post("/v1/chat/completions", recording), false),
    ] {
        let (openai, claude) =
            (Upstream::new().replies(openai), Upstream::new().replies(reply(200, MESSAGE)));
        let (status, .., seen) = ask_and_see(&openai, &claude, request).await;
        assert_eq!((status, seen), (200, stands_in));
    }
}

#[tokio::test]
async fn what_the_dialect_of_one_has_no_words_for_is_asked_of_another() {
    let recording = r#"{"model":"claude","messages":[{"role":"user","content":[
        {"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}]}"#;
    let (openai, claude) = (Upstream::new().replies(reply(200, COMPLETION)), Upstream::new());
    let (status, body, _) = ask(&openai, &claude, post("/v1/chat/completions", recording)).await;
    assert_eq!((status, &body["choices"][0]["message"]["content"]), (200, &json!("from gpt")));
    assert_eq!(claude.requests(), 0);
}

#[tokio::test]
async fn what_the_client_did_wrong_is_not_asked_of_another() {
    let openai = Upstream::new().replies(reply(400, r#"{"error":{"message":"bad"}}"#));
    let (status, body, reports) = ask(&openai, &Upstream::new(), chat("gpt")).await;
    assert_eq!((status, &body["error"]["message"]), (400, &json!("bad")));
    assert_eq!(reports.only().outcome, Outcome::NotServed);
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_is_the_answer_and_says_that_a_prompt_was_sent() {
    let (openai, claude) = (Upstream::new().hangs(), Upstream::new().replies(reply(503, "{}")));
    let (status, body, reports) = ask(&openai, &claude, chat("gpt")).await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("overloaded")));
    assert_eq!(reports.only().outcome, Outcome::Refused);
}

#[tokio::test]
async fn an_operation_that_one_does_not_know_is_asked_of_another() {
    const VECTORS: &str = r#"{"data":[{"index":0,"embedding":[1]}]}"#;
    for _ in 0..8 {
        let (openai, claude) = (Upstream::new().replies(reply(200, VECTORS)), Upstream::new());
        let (status, body, reports) = ask(&openai, &claude, post("/v1/embeddings", r#"{"input":"a"}"#)).await;
        assert_eq!((status, &body["data"][0]["index"]), (200, &json!(0)));
        assert_eq!((reports.count(), claude.requests()), (1, 0));
    }
}

#[tokio::test]
async fn a_request_that_names_no_model_goes_to_any() {
    let (openai, claude) =
        (Upstream::new().replies(reply(200, COMPLETION)), Upstream::new().replies(reply(200, MESSAGE)));
    let (status, ..) = ask(&openai, &claude, chat("whatever")).await;
    assert_eq!(status, 200);
    assert_eq!(openai.requests() + claude.requests(), 1);
}

#[tokio::test]
async fn models_are_listed_as_each_client_expects() {
    let list = |path: &str, anthropic: bool| {
        let mut request = Request::get(path);
        if anthropic {
            request = request.header("anthropic-version", "2023-06-01");
        }
        request.body(Full::default()).unwrap()
    };
    let none = Upstream::new();
    let (status, body, _) = ask(&none, &none, list("/v1/models", false)).await;
    assert_eq!(status, 200);
    let ids: Vec<_> =
        body["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((ids, &body["object"]), (vec!["gpt", "claude"], &json!("list")));
    assert!(body.get("models").is_none());
    // Codex wants its own list, and goes by what it knows itself where that is empty.
    let (_, body, _) = ask(&none, &none, list("/v1/models?client_version=0.153.4", false)).await;
    assert_eq!((&body["models"], &body["data"][1]["id"]), (&json!([]), &json!("claude")));
    let (_, body, _) = ask(&none, &none, list("/v1/models", true)).await;
    assert_eq!((&body["data"][0]["type"], &body["last_id"]), (&json!("model"), &json!("claude")));
    let (_, body, _) = ask(&none, &none, list("/api/tags", false)).await;
    assert_eq!(body["models"][1]["model"], "claude");
    let (status, body, _) = ask(&none, &none, list("/v1/models/nothing", false)).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
    let (status, body, _) = ask(&none, &none, post("/v1/files", "{}")).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("unknown_path")));
}

/// What clients of Ollama ask before they chat, of a route to OpenAI and an Ollama server.
async fn ask_before(ollama: &Upstream, method: &str, path: &str, body: &str) -> (u16, Value, String) {
    let choice = |name: &str, provider: &str, model: &str, upstream: &Upstream| {
        let mut config = TargetConfig::new(format!("demo/{name}"), provider, model);
        if provider == "ollama" {
            config = config.with_endpoint("http://ollama.example/api");
        }
        let service = layer(config).layer(upstream.clone());
        Choice::new(name, model, service)
    };
    let route = ModelRoute::new([
        choice("gpt", "openai", "gpt-4o", &Upstream::new()),
        choice("local", "ollama", "llama3.2", ollama),
    ]);
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let response =
        route.oneshot(request.body(Full::<bytes::Bytes>::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    (status, serde_json::from_str(&text).unwrap_or_default(), text)
}

#[tokio::test]
async fn clients_of_ollama_find_a_server_before_they_chat() {
    let none = Upstream::new();
    for (method, path) in [("GET", "/"), ("HEAD", "/"), ("HEAD", "/ollama/")] {
        let (status, _, text) = ask_before(&none, method, path, "").await;
        assert_eq!((status, &*text), (200, "Ollama is running"), "{method} {path}");
    }
    for path in ["/v1/", "/ollama/api/chat/", "/ollama"] {
        assert_ne!(ask_before(&none, "GET", path, "").await.0, 200, "{path}");
    }
    let (status, body, _) = ask_before(&none, "GET", "/api/version", "").await;
    let version: Vec<u32> =
        body["version"].as_str().unwrap().split('.').map(|part| part.parse().unwrap()).collect();
    assert!(status == 200 && version >= vec![0, 6, 4], "{body}");
    assert_eq!(ask_before(&none, "GET", "/api/ps", "").await.1, json!({ "models": [] }));
    let (_, body, _) = ask_before(&none, "GET", "/ollama/api/tags", "").await;
    let model = &body["models"][0];
    assert_eq!(
        (&model["model"], &model["size"], &model["details"]["families"]),
        (&json!("gpt"), &json!(0), &json!([]))
    );
    assert_eq!(
        model["digest"].as_str().map(str::len),
        Some(64),
        "the client's list cuts it off after twelve"
    );
    for (method, path) in
        [("POST", "/"), ("DELETE", "/api/version"), ("GET", "/index.html"), ("POST", "/api/pull")]
    {
        assert_eq!(ask_before(&none, method, path, "{}").await.0, 404, "{method} {path}");
    }
}

#[tokio::test]
async fn a_model_is_described_by_its_provider_or_by_what_is_known_of_it() {
    let none = Upstream::new();
    for asked in [r#"{"model":"gpt"}"#, r#"{"name":"gpt-4o"}"#, r#"{"model":"","name":"gpt","verbose":true}"#]
    {
        let (status, body, _) = ask_before(&none, "POST", "/api/show", asked).await;
        assert_eq!((status, &body["capabilities"]), (200, &json!(["completion", "tools"])), "{body}");
        assert_eq!(body["model_info"], json!({ "general.basename": "gpt" }));
        assert_eq!((&body["details"]["family"], &body["remote_model"]), (&json!(""), &json!("gpt")));
    }
    for asked in [r#"{"model":"other"}"#, "{}", ""] {
        let (status, body, _) = ask_before(&none, "POST", "/api/show", asked).await;
        assert!(status == 404 && body["error"].as_str().unwrap().contains("no model"), "{status} {body}");
    }
    const SHOWN: &str =
        r#"{"model_info":{"llama.context_length":131072},"capabilities":["completion","vision"]}"#;
    let ollama = Upstream::new().replies(reply(200, SHOWN));
    let (status, _, text) = ask_before(&ollama, "POST", "/api/show", r#"{"model":"local"}"#).await;
    assert_eq!((status, &*text), (200, SHOWN));
    let (head, body) = ollama.request();
    assert_eq!((head.uri.path(), &*body), ("/api/show", br#"{"model":"llama3.2"}"#.as_slice()));
    let gone = Upstream::new().replies(reply(404, r#"{"error":"model 'llama3.2' not found"}"#));
    assert_eq!(ask_before(&gone, "POST", "/api/show", r#"{"model":"local"}"#).await.0, 404);
}

#[tokio::test]
async fn a_model_is_loaded_and_let_go_by_ollama_and_elsewhere_nobody_is_paid_for_that() {
    let none = Upstream::new();
    for (path, asked, reason) in [
        ("/api/chat", r#"{"model":"gpt"}"#, "load"),
        ("/api/chat", r#"{"model":"gpt-4o","messages":[],"keep_alive":"5m"}"#, "load"),
        ("/api/chat", r#"{"model":"gpt","messages":null,"keep_alive":0}"#, "unload"),
        ("/api/generate", r#"{"model":"gpt","keep_alive":-1}"#, "load"),
        ("/api/generate", r#"{"model":"gpt","prompt":"","stream":false,"keep_alive":"0s"}"#, "unload"),
    ] {
        let (status, body, _) = ask_before(&none, "POST", path, asked).await;
        assert_eq!(
            (status, &body["done_reason"], &body["done"]),
            (200, &json!(reason), &json!(true)),
            "{body}"
        );
        let said = if path == "/api/chat" { &body["message"]["content"] } else { &body["response"] };
        assert_eq!((&body["model"], said), (&json!("gpt"), &json!("")), "{asked}");
    }
    const LOADED: &str =
        r#"{"model":"llama3.2","message":{"role":"assistant"},"done_reason":"load","done":true}"#;
    let ollama = Upstream::new().replies(reply(200, LOADED));
    let (status, body, _) = ask_before(&ollama, "POST", "/api/chat", r#"{"model":"local"}"#).await;
    assert_eq!((status, &body["done_reason"]), (200, &json!("load")));
    assert_eq!(ollama.request().0.uri.path(), "/api/chat", "it loads the model");
}

/// A route to OpenAI-type providers by their models, which are asked in this order if none is named, the
/// first one first.
fn alike<'a>(
    models: impl IntoIterator<Item = (&'a str, &'a str, &'a Upstream)>,
) -> ModelRoute<
    impl Clone
    + tower::Service<
        Request<nantian_ai::body::RequestBody>,
        Response = http::Response<nantian_ai::body::ResponseBody<crate::support::Body, ()>>,
        Error = nantian_ai::BoxError,
        Future: Send,
    >,
> {
    ModelRoute::new(models.into_iter().map(|(name, model, upstream)| {
        let config = TargetConfig::new(format!("demo/{name}"), "openai", model);
        Choice::new(name, model, layer(config).layer(upstream.clone()))
    }))
}

const VECTORS: &str = r#"{"data":[{"index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":8}}"#;

#[tokio::test]
async fn vectors_of_another_model_never_stand_in() {
    let embed = || post("/v1/embeddings", r#"{"model":"small","input":"a"}"#);
    let down = || Upstream::new().replies(reply(503, "{}"));
    let (small, large, other) = (down(), Upstream::new(), Upstream::new().replies(reply(200, VECTORS)));
    let models = [("small", "embed-small", &small), ("large", "embed-large", &large)];
    let response = alike(models).oneshot(embed()).await.unwrap();
    assert_eq!((response.status().as_u16(), small.requests(), large.requests()), (503, 1, 0));

    let small = down();
    let models =
        [("small", "embed-small", &small), ("large", "embed-large", &large), ("eu", "embed-small", &other)];
    let response = alike(models).oneshot(embed()).await.unwrap();
    assert_eq!((response.status().as_u16(), large.requests(), other.requests()), (200, 0, 1));

    // One that makes no vectors has not been asked for any.
    let request = post("/v1/embeddings", r#"{"model":"claude","input":"a"}"#);
    let openai = Upstream::new().replies(reply(200, VECTORS));
    let (status, ..) = ask(&openai, &Upstream::new(), request).await;
    assert_eq!((status, openai.requests()), (200, 1));
}

#[tokio::test]
async fn vectors_of_another_model_do_not_stand_in_for_a_request_that_the_first_one_has_no_words_for() {
    let upstream = Upstream::new();
    let choice = |name: &str, provider: &str, model: &str| {
        let config = TargetConfig::new(format!("demo/{name}"), provider, model);
        Choice::new(name, model, layer(config).layer(upstream.clone()))
    };
    let route = ModelRoute::new([
        choice("gem", "gemini", "gemini-embedding-001"),
        choice("small", "openai", "text-embedding-3-small"),
    ]);
    let numbers = post("/v1/embeddings", r#"{"model":"gem","input":[[1,2]]}"#);
    let mut strict = post("/v1/embeddings", r#"{"model":"gem","input":"a","user":"u"}"#);
    strict.headers_mut().insert("x-nantian-strict", http::HeaderValue::from_static("true"));
    for request in [numbers, strict] {
        let response = route.clone().oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), upstream.requests()), (400, 0));
    }
}

#[tokio::test]
async fn a_stored_answer_is_looked_for_at_all_of_them() {
    let lost = || reply(404, r#"{"error":{"message":"not found"}}"#);
    let found = || reply(200, r#"{"id":"resp_1"}"#);
    let retrieve = || Request::get("/v1/responses/resp_1").body(Full::default()).unwrap();
    for _ in 0..20 {
        let (one, other) = (Upstream::new().replies(lost()), Upstream::new().replies(found()));
        let models = [("one", "gpt", &one), ("other", "gpt", &other)];
        let response = alike(models).oneshot(retrieve()).await.unwrap();
        assert_eq!((response.status().as_u16(), other.requests()), (200, 1));
    }
    let (one, other) = (Upstream::new().replies(lost()), Upstream::new().replies(lost()));
    let response = alike([("one", "gpt", &one), ("other", "gpt", &other)]).oneshot(retrieve()).await.unwrap();
    assert_eq!((response.status().as_u16(), one.requests(), other.requests()), (404, 1, 1));
    // It may be at the one that is down.
    for _ in 0..20 {
        let (one, other) = (Upstream::new().replies(lost()), Upstream::new().replies(reply(503, "{}")));
        let response =
            alike([("one", "gpt", &one), ("other", "gpt", &other)]).oneshot(retrieve()).await.unwrap();
        assert_eq!(response.status(), 503);
    }
    // Claude keeps none.
    for _ in 0..20 {
        let openai = Upstream::new().replies(lost());
        assert_eq!(ask(&openai, &Upstream::new(), retrieve()).await.0, 404);
    }
}

#[tokio::test]
async fn a_layer_around_can_answer_with_no_body() {
    type Provider = Full<bytes::Bytes>;
    let own = nantian_ai::route::RouteBody::<Provider>::default();
    assert!(own.is_end_stream());
    assert_eq!(own.collect().await.unwrap().to_bytes(), "");
    let own = nantian_ai::body::ResponseBody::<Provider, ()>::default();
    assert!(own.is_end_stream());
    assert_eq!(own.collect().await.unwrap().to_bytes(), "");
}
