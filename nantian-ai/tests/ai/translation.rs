use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use nantian_ai::usage::{End, Outcome};
use nantian_ai::{Credential, Dialect, Target, TargetConfig};
use serde_json::{Value, json};

use crate::support::{Reports, Upstream, chat, json as reply, layer, openai, post, send, stream_chat};
use crate::too_long::ask;

fn claude() -> TargetConfig {
    TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5")
        .with_credential(Credential::api_key("sk-ant"))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn stream(body: &'static str) -> http::Response<crate::support::Body> {
    crate::support::events("text/event-stream", [(std::time::Duration::ZERO, Some(body))])
}

const MESSAGE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"text","text":"Hi"},{"type":"tool_use","id":"toolu_1","name":"fs_read_d154e2a4","input":{"a":1}}],"stop_reason":"tool_use","usage":{"input_tokens":9,"output_tokens":3}}"#;

#[test]
fn a_proxy_without_tower_meters_what_the_provider_has_said() {
    let target = Target::new(openai()).unwrap();
    let (head, ()) = Request::post("/v1/messages").body(()).unwrap().into_parts();
    let surface = target.admit(&head).unwrap();
    let body = r#"{"model":"any","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let prepared = target.prepare(&surface, head, Bytes::from(body)).unwrap();

    // It tells no usage; the client is told an estimate.
    let said = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello.\"}}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let translated = prepared.translation().unwrap().translator().push(said);
    assert!(String::from_utf8_lossy(&translated).contains("output_tokens"));
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
    let mut meter = prepared.meter();
    meter.begin(StatusCode::OK, &headers);
    meter.push(said);
    let report = meter.report(End::Finished);
    assert_eq!(report.outcome, Outcome::Completed);
    assert!(report.usage.estimated);
}

#[tokio::test]
async fn an_openai_client_talks_to_anthropic() {
    let reports = Reports::default();
    let mut answer = reply(200, MESSAGE);
    for (name, value) in
        [("request-id", "req_1"), ("anthropic-organization-id", "o"), ("content-length", "1")]
    {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let upstream = Upstream::new().replies(answer);
    let body = r#"{"model":"any","messages":[{"role":"user","content":"Hi"}],"seed":1,"tools":[{"type":"function","function":{"name":"fs.read"}}]}"#;
    let mut request = post("/team/v1/chat/completions?trace=1", body);
    for (name, value) in
        [("authorization", "Bearer theirs"), ("openai-beta", "x"), ("user-agent", "client/1")]
    {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let (head, body) = send(layer(claude()).observer(reports.clone()), &upstream, request).await;

    let (sent, asked) = upstream.request();
    assert_eq!(sent.uri, "https://api.anthropic.com/v1/messages");
    assert_eq!(sent.headers["x-api-key"], "sk-ant");
    assert_eq!(sent.headers["anthropic-version"], "2023-06-01");
    assert_eq!(sent.headers["content-length"], asked.len().to_string());
    assert_eq!(sent.headers["user-agent"], "client/1");
    assert!(!sent.headers.contains_key("authorization") && !sent.headers.contains_key("openai-beta"));
    let asked = parsed(std::str::from_utf8(&asked).unwrap());
    assert_eq!(asked["model"], "claude-sonnet-4-5");
    assert_eq!(asked["tools"][0]["name"], "fs_read_d154e2a4");

    assert_eq!(head.status, 200);
    assert_eq!(head.headers["x-nantian-dropped"], "seed,openai-beta");
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(head.headers["request-id"], "req_1");
    assert_eq!(head.headers.len(), 3);
    let body = parsed(&body);
    let message = &body["choices"][0]["message"];
    assert_eq!(message["content"], "Hi");
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "fs.read", "arguments": "{\"a\":1}"}));
    assert_eq!(body["usage"]["total_tokens"], 12);
    let report = reports.only();
    assert_eq!((report.outcome, report.usage.input, report.usage.output), (Outcome::Completed, 9, 3));
    assert!(!report.usage.estimated);
}

#[tokio::test]
async fn an_anthropic_client_is_told_the_model_that_it_has_asked_for() {
    const CHUNKS: &str = "data: {\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n\
                          data: [DONE]\n\n";
    const WHOLE: &str =
        r#"{"model":"gpt-4o-2024-08-06","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#;
    let ask = |more: &str| {
        let body = format!(r#"{{"model":"claude-opus-4-6","max_tokens":9,"messages":[]{more}}}"#);
        post("/v1/messages", &body)
    };
    let (_, body) = send(layer(openai()), &Upstream::new().replies(reply(200, WHOLE)), ask("")).await;
    assert_eq!(parsed(&body)["model"], "claude-opus-4-6");
    let request = ask(r#","stream":true"#);
    let (_, body) = send(layer(openai()), &Upstream::new().replies(stream(CHUNKS)), request).await;
    assert!(body.contains(r#""model":"claude-opus-4-6""#) && !body.contains("gpt-4o"), "{body}");
    // Others are told what has answered.
    let (_, body) = send(layer(claude()), &Upstream::new().replies(reply(200, MESSAGE)), chat()).await;
    assert_ne!(parsed(&body)["model"], "any");
}

#[tokio::test]
async fn an_anthropic_client_streams_from_an_openai_type_provider() {
    let reports = Reports::default();
    let upstream = Upstream::new().replies(stream(
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
         data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n\
         data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
         data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n",
    ));
    let body = r#"{"model":"any","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let request = post("/v1/messages", body);
    let (head, body) = send(layer(openai()).observer(reports.clone()), &upstream, request).await;

    let (sent, asked) = upstream.request();
    assert_eq!(sent.uri, "https://api.openai.com/v1/chat/completions");
    let asked = parsed(std::str::from_utf8(&asked).unwrap());
    assert_eq!(asked["stream_options"], json!({"include_usage": true}));
    assert_eq!(head.headers["content-type"], "text/event-stream");
    let names: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, expected);
    assert!(body.contains(r#""usage":{"input_tokens":9,"output_tokens":3}"#), "{body}");
    let report = reports.only();
    assert_eq!((report.outcome, report.usage.input, report.usage.output), (Outcome::Completed, 9, 3));
}

#[test]
fn no_tool_of_a_provider_runs_in_what_is_translated() {
    const ASKED: &str = r#"{"model":"any","max_tokens":9,"messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#;
    let target = Target::new(openai()).unwrap();
    for (path, runs_tools) in [("/v1/chat/completions", true), ("/v1/messages", false)] {
        let (head, ()) = Request::post(path).body(()).unwrap().into_parts();
        let surface = target.admit(&head).unwrap();
        let prepared = target.prepare(&surface, head, Bytes::from(ASKED)).unwrap();
        assert_eq!(prepared.facts().runs_tools, runs_tools, "{path}");
    }
}

#[tokio::test]
async fn a_responses_client_is_told_again_what_it_has_asked_for() {
    let body = r#"{"model":"any","input":"Hi","instructions":"Be brief.","temperature":0.5,"truncation":"auto",
        "tools":[{"type":"function","name":"f","parameters":{}},{"type":"web_search"}],"metadata":{"a":"b"}}"#;
    let upstream = Upstream::new().replies(reply(200, MESSAGE));
    let (head, body) = send(layer(claude()), &upstream, post("/v1/responses", body)).await;
    let dropped = head.headers["x-nantian-dropped"].to_str().unwrap();
    assert!(dropped.contains("truncation") && dropped.contains("tools.web_search"), "{dropped}");
    let response = parsed(&body);
    assert_eq!((&response["instructions"], &response["temperature"]), (&json!("Be brief."), &json!(0.5)));
    assert_eq!(response["tools"], json!([{"type": "function", "name": "f", "parameters": {}}]));
    assert_eq!((&response["truncation"], &response["metadata"]), (&json!("disabled"), &json!({"a": "b"})));
}

#[tokio::test]
async fn a_provider_that_streams_unasked_or_does_not_when_asked_is_understood() {
    let upstream = Upstream::new().replies(reply(200, MESSAGE));
    let (head, body) = send(layer(claude()), &upstream, stream_chat()).await;
    assert_eq!(head.headers["content-type"], "text/event-stream");
    assert!(body.ends_with("data: [DONE]\n\n") && body.contains("\"content\":\"Hi\""), "{body}");

    let upstream = Upstream::new().replies(stream(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n\
         data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
         data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n\
         data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\n\
         data: {\"type\":\"message_stop\"}\n\n",
    ));
    let (head, body) = send(layer(claude()), &upstream, chat()).await;
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(parsed(&body)["choices"][0]["message"]["content"], "Hi");
}

#[tokio::test]
async fn usage_is_asked_of_a_stream_and_hidden_from_a_client_that_has_not_asked() {
    const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n";
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";
    let answer = || {
        let now = std::time::Duration::ZERO;
        crate::support::events(
            "text/event-stream",
            [(now, Some(TOKEN)), (now, Some(USAGE)), (now, Some(DONE))],
        )
    };
    for (asked, sent, hidden) in [
        ("", r#","stream_options":{"include_usage":true}"#, true),
        (r#","stream_options":null"#, r#","stream_options":{"include_usage":true}"#, true),
        (
            r#","stream_options":{"include_usage": false,"x":1}"#,
            r#","stream_options":{"include_usage": true,"x":1}"#,
            true,
        ),
        (r#","stream_options":{"include_usage":true}"#, r#","stream_options":{"include_usage":true}"#, false),
    ] {
        let reports = Reports::default();
        let upstream = Upstream::new().replies(answer());
        let request = post("/v1/chat/completions", &format!(r#"{{"model":"any","stream":true{asked}}}"#));
        let (_, body) = send(layer(openai()).observer(reports.clone()), &upstream, request).await;
        let (_, seen) = upstream.request();
        let seen = parsed(std::str::from_utf8(&seen).unwrap());
        let expected = parsed(&format!(r#"{{"model":"gpt-4o","stream":true{sent}}}"#));
        assert_eq!(seen, expected, "{asked}");
        let whole = [TOKEN, USAGE, DONE].concat();
        let without = TOKEN.replace(",\"usage\":null", "") + DONE;
        assert_eq!(body, if hidden { without } else { whole }, "{asked}");
        let report = reports.only();
        assert_eq!((report.usage.input, report.usage.output, report.usage.estimated), (9, 3, false));
    }
}

#[tokio::test]
async fn a_provider_that_tells_usage_unasked_is_not_asked() {
    let upstream = Upstream::new().replies(stream("data: [DONE]\n\n"));
    let config = TargetConfig::new("demo/mistral", "mistral", "m");
    send(layer(config), &upstream, stream_chat()).await;
    let (_, body) = upstream.request();
    assert_eq!(body, r#"{"model":"m","messages":[],"stream":true}"#);
}

#[tokio::test]
async fn tokens_are_counted_here_where_the_provider_counts_none() {
    let upstream = Upstream::new();
    let body = r#"{"model":"any","messages":[{"role":"user","content":"How far is the moon?"}]}"#;
    let request = post("/v1/messages/count_tokens", body);
    let (head, body) = send(layer(openai().with_endpoint("http://vllm:8000")), &upstream, request).await;
    assert_eq!(head.status, 200);
    let count = parsed(&body)["input_tokens"].as_u64().unwrap();
    assert!((10..40).contains(&count), "{count}");
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_large_picture_is_translated_whole() {
    let picture = "A".repeat(20 * 1024 * 1024);
    let body = format!(
        r#"{{"model":"any","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{picture}"}}}}]}}]}}"#
    );
    let upstream = Upstream::new().replies(reply(200, MESSAGE));
    let request: Request<Full<_>> = post("/v1/chat/completions", &body);
    let (head, _) = send(layer(claude()), &upstream, request).await;
    assert_eq!(head.status, 200);
    let (_, asked) = upstream.request();
    assert!(asked.len() > picture.len());
}

#[tokio::test]
async fn tokens_are_counted_by_gemini_and_openai_in_their_own_words_or_else_estimated() {
    let asked = r#"{"model":"m","max_tokens":9,"temperature":0.5,"system":"Be brief.","tool_choice":{"type":"any"},"tools":[{"name":"now","input_schema":{"type":"object"}}],"messages":[{"role":"user","content":"Hi"}]}"#;
    const AT_VERTEX: &str =
        "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/publishers/google";
    const OF_OPENAI: (&str, &str, &str) = (
        "/v1/responses/input_tokens",
        r#"{"object":"response.input_tokens","input_tokens":42}"#,
        r#"{"model":"gpt-5","instructions":"Be brief.","#,
    );
    let gemini = || TargetConfig::new("demo/gemini", "gemini", "gemini-3-pro");
    let gpt = || TargetConfig::new("demo/gpt", "openai", "gpt-5");
    for (config, path, answer, begins) in [
        (
            gemini(),
            "/v1beta/models/gemini-3-pro:countTokens",
            r#"{"totalTokens":42}"#,
            r#"{"generateContentRequest":{"model":"models/gemini-3-pro","systemInstruction":"#,
        ),
        (
            gemini().with_endpoint(AT_VERTEX),
            "/v1/projects/p/locations/eu/publishers/google/models/gemini-3-pro:countTokens",
            r#"{"totalTokens":42}"#,
            r#"{"systemInstruction":"#,
        ),
        (gpt(), OF_OPENAI.0, OF_OPENAI.1, OF_OPENAI.2),
        (gpt().with_format(Dialect::Responses), OF_OPENAI.0, OF_OPENAI.1, OF_OPENAI.2),
    ] {
        for (status, counted) in [(200, true), (404, false)] {
            let upstream = Upstream::new().replies(reply(status, answer));
            let request = post("/v1/messages/count_tokens", asked);
            let (head, body) = send(layer(config.clone()), &upstream, request).await;
            assert_eq!(head.status, 200, "{body}");
            assert_eq!(
                head.headers.contains_key("x-nantian-usage"),
                !counted,
                "named where it is an estimate"
            );
            let count = parsed(&body)["input_tokens"].as_u64().unwrap();
            assert!(if counted { count == 42 } else { count > 42 }, "{count}");
            let (sent, body) = upstream.request();
            let body = std::str::from_utf8(&body).unwrap();
            assert_eq!(sent.uri.path(), path);
            assert!(body.starts_with(begins) && serde_json::from_str::<Value>(body).is_ok(), "{body}");
            for of_answers in ["toolConfig", "max_output_tokens", "store", "include", "stream"] {
                assert!(!body.contains(of_answers), "{of_answers}: {body}");
            }
        }
    }
}

#[tokio::test]
async fn tokens_are_counted_by_claude_for_clients_of_responses() {
    let asked = r#"{"model":"any","instructions":"Be brief.","input":"Hi","reasoning":{"effort":"high"}}"#;
    for (status, counted) in [(200, true), (404, false), (429, false)] {
        let upstream = Upstream::new().replies(reply(status, r#"{"input_tokens":42}"#));
        let request = post("/v1/responses/input_tokens", asked);
        let (head, body) = send(layer(claude()), &upstream, request).await;
        assert_eq!((head.status.as_u16(), head.headers.contains_key("x-nantian-usage")), (200, !counted));
        let (answer, (sent, asked)) = (parsed(&body), upstream.request());
        assert_eq!(answer["object"], "response.input_tokens");
        assert_eq!(answer["input_tokens"] == 42, counted, "{body}");
        assert_eq!(sent.uri, "https://api.anthropic.com/v1/messages/count_tokens");
        assert!(!asked.is_empty() && parsed(std::str::from_utf8(&asked).unwrap())["max_tokens"].is_null());
    }
}

#[tokio::test]
async fn a_count_that_passes_is_estimated_only_where_the_provider_has_no_such_operation() {
    let asked_of_claude = r#"{"model":"any","messages":[{"role":"user","content":"How far is the moon?"}]}"#;
    let asked_of_gpt = r#"{"model":"any","input":"How far is the moon?"}"#;
    for (config, path, asked) in [
        (claude(), "/v1/messages/count_tokens", asked_of_claude),
        (openai(), "/v1/responses/input_tokens", asked_of_gpt),
    ] {
        for (status, is_told) in
            [(404, true), (405, true), (501, true), (400, false), (429, false), (503, false)]
        {
            for (kind, said) in [
                (Some("application/json"), r#"{"error":{"message":"Not Found"}}"#),
                (Some("text/html"), "<h1>Not Found</h1>"),
                (None, ""),
            ] {
                let mut refusal = reply(status, said);
                refusal.headers_mut().remove("content-type");
                refusal.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind))));
                let upstream = Upstream::new().replies(refusal);
                let (head, body) = send(layer(config.clone()), &upstream, post(path, asked)).await;
                let is_estimate = parsed(&body)["input_tokens"].is_u64();
                let case = format!("{path}, {status}, {kind:?}");
                assert_eq!((head.status == 200, is_estimate), (is_told, is_told), "{case}");
                assert_eq!(head.headers.contains_key("x-nantian-usage"), is_estimate, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_count_is_not_estimated_where_another_model_of_the_route_may_count() {
    let asked = r#"{"model":"short","messages":[{"role":"user","content":"Hi"}]}"#;
    for kind in ["application/json", "text/html"] {
        let mut missing = reply(404, r#"{"error":{"message":"Not Found"}}"#);
        missing.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let first = Upstream::new().replies(missing);
        let counts = r#"{"object":"response.input_tokens","input_tokens":42}"#;
        let other = Upstream::new().replies(reply(200, counts));
        let request = post("/v1/messages/count_tokens", asked);
        let (status, body, _) = ask("anthropic", [&first, &other], request).await;
        assert_eq!((status, &parsed(&body)["input_tokens"]), (200, &json!(42)), "{kind}: {body}");
    }
}

#[tokio::test]
async fn openai_counts_at_each_of_its_addresses() {
    let asked = r#"{"model":"any","messages":[{"role":"user","content":"Hi"}]}"#;
    for host in ["api.openai.com", "eu.api.openai.com"] {
        let upstream = Upstream::new().replies(reply(200, r#"{"input_tokens":42}"#));
        let config = openai().with_endpoint(format!("https://{host}/v1"));
        let (_, body) = send(layer(config), &upstream, post("/v1/messages/count_tokens", asked)).await;
        assert_eq!(parsed(&body)["input_tokens"], 42, "{host}");
    }
}
