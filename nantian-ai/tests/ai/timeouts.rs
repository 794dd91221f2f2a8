use std::time::Duration;

use http_body_util::BodyExt as _;
use nantian_ai::usage::Outcome;
use nantian_ai::{Dialect, TargetConfig, Timeouts, retry::RetryPolicy};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Body, Reports, Upstream, chat, events, layer, openai, post, send, stream_chat};

const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Ten seconds for all, twenty to the first token, five between chunks.
fn hasty() -> TargetConfig {
    openai().with_timeouts(
        Timeouts::none().with_total(seconds(10)).with_first_token(seconds(20)).with_idle(seconds(5)),
    )
}

#[tokio::test(start_paused = true)]
async fn a_buffered_reply_that_does_not_come_in_time_is_504() {
    let half = events("application/json", [(seconds(6), Some("{\"id\":")), (seconds(6), Some("1}"))]);
    for upstream in [Upstream::new().hangs(), Upstream::new().replies(half)] {
        let started = Instant::now();
        let (head, body) = send(layer(hasty()), &upstream, chat()).await;
        assert_eq!(head.status, 504);
        assert!(body.contains("sent no complete reply within 10s"), "{body}");
        assert_eq!(started.elapsed().as_secs(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_begin_in_time_is_504() {
    let started = Instant::now();
    let (head, body) = send(layer(hasty()), &Upstream::new().hangs(), stream_chat()).await;
    assert_eq!(head.status, 504);
    assert!(body.contains("sent no token within 20s"), "{body}");
    assert_eq!(started.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_large_reply_that_does_not_end_in_time_is_aborted() {
    let large = format!("{{\"id\":\"{}", "x".repeat(70_000));
    let reply = events("application/json", [(seconds(6), Some(large)), (seconds(6), Some("\"}".to_owned()))]);
    let service = layer(hasty()).layer(Upstream::new().replies(reply));
    let started = Instant::now();
    let response = service.oneshot(chat()).await.unwrap();
    assert_eq!(response.status(), 200);
    let error = response.into_body().collect().await.unwrap_err();
    assert!(error.to_string().contains("complete reply"), "{error}");
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_role_is_no_first_token() {
    let reply = events("text/event-stream", [(seconds(1), Some(ROLE)), (seconds(30), Some(TOKEN))]);
    let started = Instant::now();
    let (head, body) = send(layer(hasty()), &Upstream::new().replies(reply), stream_chat()).await;
    assert_eq!(started.elapsed().as_secs(), 20);
    assert_eq!(head.status, 504);
    assert!(body.contains("sent no token within 20s"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn sound_and_pictures_are_tokens() {
    const SOUND: &str = "data: {\"choices\":[{\"delta\":{\"audio\":{\"data\":\"UklGRg==\"}}}]}\n\n";
    const PICTURE: &str = "data: {\"type\":\"response.image_generation_call.partial_image\",\"partial_image_b64\":\"iVBOR\"}\n\n";
    for (path, token) in [("/v1/chat/completions", SOUND), ("/v1/responses", PICTURE)] {
        let chunks = (0..20).map(move |_| (seconds(4), Some(token)));
        let service = layer(hasty()).layer(Upstream::new().replies(events("text/event-stream", chunks)));
        let started = Instant::now();
        let response = service.oneshot(post(path, r#"{"stream":true}"#)).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 4, "the head comes with the first one");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(token.repeat(20).as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_passes_as_long_as_chunks_come() {
    let chunks = (0..20).map(|_| (seconds(4), Some(TOKEN)));
    let reply = events("text/event-stream", chunks.chain([(seconds(4), Some(DONE))]));
    let started = Instant::now();
    let (_, body) = send(layer(hasty()), &Upstream::new().replies(reply), stream_chat()).await;
    assert_eq!(body, TOKEN.repeat(20) + DONE);
    assert_eq!(started.elapsed().as_secs(), 84);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stalls_ends_with_an_error_event_of_the_clients_dialect() {
    let anthropic_token = "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\n";
    let responses_token = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n";
    let ollama_token = "{\"message\":{\"content\":\"a\"},\"done\":false}\n";
    let sse = "text/event-stream";
    for (provider, path, kind, token, begins) in [
        ("openai", "/v1/chat/completions", sse, TOKEN, "\n\ndata: {\"error\":{"),
        (
            "openai",
            "/v1/responses",
            sse,
            responses_token,
            "\n\nevent: error\ndata: {\"type\":\"error\",\"sequence_number\":1,\"code\":\"timeout\"",
        ),
        (
            "anthropic",
            "/v1/messages",
            sse,
            anthropic_token,
            "\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"timeout_error\"",
        ),
        ("ollama", "/api/chat", "application/x-ndjson", ollama_token, "{\"error\":"),
    ] {
        let reply = events(kind, [(seconds(1), Some(token)), (seconds(99), Some(token))]);
        let config = TargetConfig::new("demo/x", provider, "m").with_timeouts(Timeouts::uniform(seconds(5)));
        let request = post(path, r#"{"stream":true}"#);
        let started = Instant::now();
        let (head, body) = send(layer(config), &Upstream::new().replies(reply), request).await;
        assert_eq!(head.status, 200);
        assert_eq!(started.elapsed().as_secs(), 6);
        let event = body.strip_prefix(token).unwrap();
        assert!(event.starts_with(begins), "{event:?}");
        assert!(event.contains("no further chunk within 5s"), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_responses_that_stalls_fails_by_the_name_that_it_has_told() {
    let begun = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\
        \"response\":{\"id\":\"resp_7\",\"model\":\"gpt-5-2025\",\"status\":\"in_progress\"}}\n\n\
        event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\
        \"sequence_number\":1,\"delta\":\"a\"}\n\n";
    let reply = events("text/event-stream", [(seconds(1), Some(begun)), (seconds(99), None)]);
    let config = TargetConfig::new("demo/x", "openai", "m").with_timeouts(Timeouts::uniform(seconds(5)));
    let request = post("/v1/responses", r#"{"stream":true}"#);
    let (_, body) = send(layer(config), &Upstream::new().replies(reply), request).await;
    let last = body.strip_prefix(begun).unwrap();
    let data = last.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    let [error, failed] = &*events else { panic!("{last}") };
    assert_eq!((&error["type"], &error["sequence_number"]), (&json!("error"), &json!(2)));
    assert_eq!((&failed["type"], &failed["sequence_number"]), (&json!("response.failed"), &json!(3)));
    let response = &failed["response"];
    assert_eq!(
        [&response["id"], &response["model"], &response["status"]],
        ["resp_7", "gpt-5-2025", "failed"]
    );
    assert_eq!(response["error"]["message"], error["message"], "Codex reads it there");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_complete_but_never_closed_ends_well() {
    let reply = events(
        "text/event-stream",
        [(Duration::ZERO, Some(TOKEN)), (Duration::ZERO, Some(DONE)), (seconds(99), Some("never"))],
    );
    let (_, body) = send(layer(hasty()), &Upstream::new().replies(reply), stream_chat()).await;
    assert_eq!(body, TOKEN.to_owned() + DONE);
}

#[tokio::test(start_paused = true)]
async fn without_timeouts_nothing_is_late() {
    let reply =
        events("text/event-stream", [(seconds(100_000), Some(TOKEN)), (seconds(100_000), Some(DONE))]);
    let config = openai().with_timeouts(Timeouts::none());
    let (_, body) = send(layer(config), &Upstream::new().replies(reply), stream_chat()).await;
    assert_eq!(body, TOKEN.to_owned() + DONE);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_reasons_do_not_come_is_the_refusal_and_is_not_asked_again() {
    for (provider, status, code) in
        [("openai", 400, 400), ("openai", 422, 400), ("anthropic", 403, 403), ("gemini", 404, 404)]
    {
        let reply =
            events("application/json", [(seconds(1), Some("{\"error\":{")), (seconds(99), Some("}"))]);
        let (mut head, body) = reply.into_parts();
        head.status = http::StatusCode::from_u16(status).unwrap();
        let upstream = Upstream::new().replies(http::Response::from_parts(head, body));
        let config = TargetConfig::new("demo/model", provider, "m").with_timeouts(hasty().timeouts);
        let config = config.with_retry(RetryPolicy::new(3, Duration::ZERO));
        let reports = Reports::default();
        let started = Instant::now();
        let (head, body) = send(layer(config).observer(reports.clone()), &upstream, chat()).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (code, 1), "{provider}: {body}");
        assert!(body.contains(&format!("the provider answered with status {status}")), "{body}");
        assert_eq!(started.elapsed().as_secs(), 10);
        assert_eq!(reports.only().outcome, Outcome::NotServed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_as_a_whole_is_repeated_before_its_first_token_and_ended_in_words_after_it()
 {
    let config =
        openai().with_timeouts(Timeouts::none().with_first_token(seconds(60)).with_attempt(seconds(10)));
    let config = config.with_retry(RetryPolicy::new(1, Duration::ZERO));
    let whole = events("text/event-stream", [(seconds(1), Some(TOKEN)), (seconds(1), Some(DONE))]);
    let started = Instant::now();
    let upstream = Upstream::new().hangs().replies(whole);
    let (_, body) = send(layer(config.clone()), &upstream, stream_chat()).await;
    assert_eq!((body, started.elapsed().as_secs()), (format!("{TOKEN}{DONE}"), 12));

    let started = Instant::now();
    let endless = events("text/event-stream", (0..20).map(|_| (seconds(4), Some(TOKEN))));
    let reports = Reports::default();
    let service = layer(config.clone()).observer(reports.clone());
    let (_, body) = send(service, &Upstream::new().replies(endless), stream_chat()).await;
    assert!(body.starts_with(TOKEN) && body.contains("sent no complete reply within 10s"), "{body}");
    assert_eq!((started.elapsed().as_secs(), reports.only().outcome), (10, Outcome::Truncated));

    let started = Instant::now();
    let (head, _) = send(layer(config), &Upstream::new().hangs().hangs(), chat()).await;
    assert_eq!((head.status.as_u16(), started.elapsed().as_secs()), (504, 20));
}

/// What Claude streams while it thinks and does not show it: a block without text, and pings.
fn silent_thought() -> impl Iterator<Item = (Duration, Option<&'static str>)> + Send {
    const BEGUN: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n\
        event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n";
    const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
    const SAID: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"s\"}}\n\n\
        event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":900}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    [(seconds(1), Some(BEGUN))]
        .into_iter()
        .chain((0..20).map(|_| (seconds(4), Some(PING))))
        .chain([(seconds(1), Some(SAID))])
}

#[tokio::test(start_paused = true)]
async fn a_model_that_thinks_in_silence_is_not_late_and_its_pings_reach_the_client() {
    for (path, ping) in [
        ("/v1/messages", "event: ping\ndata: {\"type\": \"ping\"}\n\n"),
        ("/v1/chat/completions", ": ping\n\n"),
        ("/v1/responses", ": ping\n\n"),
        ("/api/chat", ""),
    ] {
        let config = TargetConfig::new("demo/claude", "anthropic", "claude-opus-5-5");
        let config = config.with_timeouts(hasty().timeouts).with_retry(RetryPolicy::new(1, Duration::ZERO));
        let upstream = Upstream::new().replies(events("text/event-stream", silent_thought()));
        let reports = Reports::default();
        let service = layer(config).observer(reports.clone()).layer(upstream);
        let input = if path == "/v1/responses" { "input" } else { "messages" };
        let body = format!(r#"{{"model":"m","stream":true,"{input}":[{{"role":"user","content":"Hi"}}]}}"#);
        let started = Instant::now();
        let response = service.oneshot(post(path, &body)).await.unwrap();
        assert_eq!((response.status().as_u16(), started.elapsed().as_secs()), (200, 1), "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = std::str::from_utf8(&body).unwrap();
        assert!(ping.is_empty() || body.matches(ping).count() == 20, "{body}");
        assert!(!ping.is_empty() || !body.contains("ping"), "{body}");
        let report = reports.only();
        assert_eq!((report.outcome, report.usage.output), (Outcome::Completed, 900), "{path}: {body}");
        assert!(report.call.unseen);
    }
}

/// A stream of a provider that says nothing for a minute once it has begun, and what it says meanwhile.
fn silent(begun: &'static str, meanwhile: Option<&'static str>, end: &'static str) -> http::Response<Body> {
    let pauses = (0..6).map(move |_| (seconds(10), meanwhile)).filter(|(_, said)| said.is_some());
    let last = if meanwhile.is_some() { seconds(0) } else { seconds(62) };
    events(
        "text/event-stream",
        [(seconds(1), Some(begun))].into_iter().chain(pauses).chain([(last, Some(end))]),
    )
}

#[tokio::test(start_paused = true)]
async fn a_translated_stream_is_never_silent_for_long() {
    const CHAT: [&str; 2] = [
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    ];
    const THOUGHT: [&str; 2] = [
        "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"status\":\"in_progress\"}}\n\n\
         data: {\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[]}}\n\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"status\":\"completed\",\"output\":[]}}\n\n",
    ];
    // Nothing can be said before the answer has begun, which this one does not do.
    const UNBEGUN: [&str; 2] = [
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    ];
    const KEEPALIVE: &str = "data: {\"type\":\"keepalive\",\"sequence_number\":9}\n\n";
    let openai = || TargetConfig::new("demo/gpt", "openai", "gpt-5");
    let deepseek = || TargetConfig::new("demo/deepseek", "deepseek", "deepseek-chat");
    let claude = || TargetConfig::new("demo/claude", "anthropic", "claude-opus-5-5");
    let responses = || openai().with_format(Dialect::Responses);
    for (config, path, [begun, end], meanwhile, ping, count) in [
        (openai(), "/v1/messages", CHAT, None, "event: ping\ndata: {\"type\":\"ping\"}\n\n", 4),
        (responses(), "/v1/messages", THOUGHT, None, "event: ping\ndata: {\"type\":\"ping\"}\n\n", 4),
        (responses(), "/v1/chat/completions", THOUGHT, None, ": ping\n\n", 4),
        (deepseek(), "/v1/responses", CHAT, None, ": ping\n\n", 4),
        (openai(), "/api/chat", CHAT, None, "ping", 0),
        (claude(), "/v1/chat/completions", UNBEGUN, None, "ping", 0),
        // The client's own dialect passes as it is.
        (openai(), "/v1/chat/completions", CHAT, None, "ping", 0),
        // What keeps the connection of the provider awake is told, and does for the client as well.
        (responses(), "/v1/messages", THOUGHT, Some(KEEPALIVE), "event: ping\n", 6),
        (openai(), "/v1/messages", CHAT, Some(": OPENROUTER PROCESSING\n\n"), "event: ping\n", 6),
        (openai(), "/api/chat", CHAT, Some(": OPENROUTER PROCESSING\n\n"), "ping", 0),
    ] {
        let upstream = Upstream::new().replies(silent(begun, meanwhile, end));
        let input = if path == "/v1/responses" { "input" } else { "messages" };
        let body = format!(r#"{{"model":"m","stream":true,"{input}":[{{"role":"user","content":"Hi"}}]}}"#);
        let (head, body) = send(layer(config), &upstream, post(path, &body)).await;
        assert_eq!(
            (head.status.as_u16(), body.matches(ping).count()),
            (200, count),
            "{path} {meanwhile:?}: {body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn clients_of_ollama_are_told_how_long_an_answer_took() {
    const END: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    const WHOLE: &str = r#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}"#;
    let whole = events("application/json", [(seconds(3), Some(WHOLE))]);
    for (stream, answer, times) in [(true, silent(TOKEN, None, END), [63, 1, 62]), (false, whole, [3, 3, 3])]
    {
        let asked =
            format!(r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"Hi"}}]}}"#);
        let (_, body) =
            send(layer(openai()), &Upstream::new().replies(answer), post("/api/chat", &asked)).await;
        let last: Value = serde_json::from_str(body.lines().last().unwrap()).unwrap();
        // To the second, as timers are not exact.
        let told = ["total_duration", "prompt_eval_duration", "eval_duration"]
            .map(|name| (last[name].as_u64().unwrap() + 500_000_000) / 1_000_000_000);
        assert_eq!(told, times, "{body}");
    }
}
