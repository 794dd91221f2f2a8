use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nantian_ai::{
    ConnectTimeout, Credential, Dialect, Error, TargetConfig, Timeouts, Unasked,
    retry::{Attempts, BudgetPolicy, RetryPolicy},
};
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Reports, Upstream, chat, events, html, json, layer, openai, post, send, stream_chat};

fn retrying(max_retries: u32) -> TargetConfig {
    openai().with_retry(RetryPolicy::new(max_retries, Duration::from_millis(500)))
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_repeated_with_the_same_request() {
    let upstream =
        Upstream::new().replies(json(503, "{}")).refuses_connection().replies(json(200, r#"{"id":"third"}"#));
    let started = Instant::now();
    let (head, body) = send(layer(retrying(2)), &upstream, chat()).await;
    assert_eq!(head.status, 200);
    assert_eq!(body, r#"{"id":"third"}"#);
    assert_eq!(head.extensions.get::<Attempts>(), Some(&Attempts(3)));
    assert_eq!(upstream.requests(), 3);
    assert!(started.elapsed() <= Duration::from_millis(1_510));
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    let mut limited = json(429, "{}");
    limited.headers_mut().insert("retry-after", "7".parse().unwrap());
    let upstream = Upstream::new().replies(limited).replies(json(200, "{}"));
    let started = Instant::now();
    let (head, _) = send(layer(retrying(1)), &upstream, chat()).await;
    assert_eq!(head.status, 200);
    assert!(started.elapsed() >= Duration::from_secs(7));
}

/// A 429 of Gemini's API, which has no `Retry-After`.
fn gemini_is_exhausted(delay: &str) -> http::Response<crate::support::Body> {
    let retry = format!(r#"{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delay}"}}"#);
    json(
        429,
        &format!(
            r#"{{"error":{{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{{"@type":"type.googleapis.com/google.rpc.Help","links":[]}},{retry}]}}}}"#
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_gemini_asks_for_in_its_body_is_kept_to() {
    let gemini = |max_retries| {
        TargetConfig::new("demo/gemini", "gemini", "gemini-2.5-flash").with_retry(retrying(max_retries).retry)
    };
    let answer = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}"#;
    let upstream = Upstream::new().replies(gemini_is_exhausted("7.5s")).replies(json(200, answer));
    let started = Instant::now();
    let (head, _) = send(layer(gemini(1)), &upstream, chat()).await;
    assert_eq!((head.status.as_u16(), started.elapsed().as_secs()), (200, 8));
    // Longer than is waited for.
    let upstream = Upstream::new().replies(gemini_is_exhausted("45.8s"));
    let (head, _) = send(layer(gemini(2)), &upstream, chat()).await;
    assert_eq!((head.status.as_u16(), &head.headers["retry-after"]), (429, &"46".parse().unwrap()));
    assert_eq!(upstream.requests(), 1);
    // One that says nothing is asked again as any other.
    let upstream = Upstream::new().replies(json(429, "{}")).replies(json(200, answer));
    assert_eq!(send(layer(gemini(1)), &upstream, chat()).await.0.status, 200);
}

/// A 429 of OpenRouter, which tells in its head or in its body when its window ends.
fn openrouter_is_exhausted(seconds: u64, in_head: bool) -> http::Response<crate::support::Body> {
    let end = SystemTime::now() + Duration::from_secs(seconds);
    let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis().to_string();
    let fields = [("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", end.as_str())];
    let said = fields.map(|(name, value)| format!(r#""{name}":"{value}""#)).join(",");
    let said = if in_head { String::new() } else { said };
    let message = "Rate limit exceeded: free-models-per-min. ";
    let mut limited = json(
        429,
        &format!(
            r#"{{"error":{{"message":"{message}","code":429,"metadata":{{"headers":{{{said}}}}}}},"user_id":"u"}}"#
        ),
    );
    for (name, value) in fields.into_iter().filter(|_| in_head) {
        limited.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    limited
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_window_that_openrouter_tells_is_waited_for() {
    let openrouter = || TargetConfig::new("demo/openrouter", "openrouter", "x/y:free");
    for in_head in [true, false] {
        let upstream = Upstream::new().replies(openrouter_is_exhausted(7, in_head)).replies(json(200, "{}"));
        let started = Instant::now();
        let (head, _) = send(layer(openrouter().with_retry(retrying(1).retry)), &upstream, chat()).await;
        assert_eq!(head.status, 200);
        assert!((5..=7).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
        // Longer than is waited for: it is asked once, and the client hears for how long.
        let claude = r#"{"model":"any","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
        for request in [chat(), post("/v1/messages", claude)] {
            let upstream = Upstream::new().replies(openrouter_is_exhausted(900, in_head));
            let config = openrouter().with_retry(retrying(3).retry);
            let (head, body) = send(layer(config), &upstream, request).await;
            assert_eq!((head.status.as_u16(), upstream.requests()), (429, 1), "{body}");
            let wait: u64 = head.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((890..=900).contains(&wait), "{wait}");
        }
    }
    // One that says nothing is asked again as any other.
    let upstream = Upstream::new().replies(json(429, "{}")).replies(json(200, "{}"));
    let config = openrouter().with_retry(retrying(1).retry);
    assert_eq!(send(layer(config), &upstream, chat()).await.0.status, 200);
}

#[tokio::test]
async fn a_window_that_has_ended_is_told_to_nobody_and_hides_no_other() {
    let with_past = |mut limited: http::Response<crate::support::Body>, end: &str| {
        limited.headers_mut().insert("x-ratelimit-remaining", "0".parse().unwrap());
        limited.headers_mut().insert("x-ratelimit-reset", end.parse().unwrap());
        limited
    };
    for end in ["0", "1000000000"] {
        let upstream = Upstream::new().replies(with_past(json(429, "{}"), end));
        let (head, _) = send(layer(openai()), &upstream, chat()).await;
        assert_eq!((head.status.as_u16(), head.headers.get("retry-after")), (429, None), "{end}");
        let upstream = Upstream::new().replies(with_past(openrouter_is_exhausted(900, false), end));
        let openrouter = TargetConfig::new("demo/openrouter", "openrouter", "x/y:free");
        let (head, _) = send(layer(openrouter), &upstream, chat()).await;
        let wait: u64 = head.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((890..=900).contains(&wait), "{end}: {wait}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_is_the_answer() {
    let upstream = Upstream::new().replies(json(500, r#"{"n":1}"#)).replies(json(502, r#"{"n":2}"#));
    let (head, body) = send(layer(retrying(1)), &upstream, chat()).await;
    assert_eq!(head.status, 502);
    assert_eq!(body, r#"{"n":2}"#);
    assert_eq!(upstream.requests(), 2);
}

#[tokio::test]
async fn without_retries_a_request_is_sent_once() {
    let upstream = Upstream::new().refuses_connection();
    let (head, body) = send(layer(openai()), &upstream, chat()).await;
    assert_eq!(head.status, 502);
    assert!(body.contains("provider of `demo/openai` cannot be reached"), "{body}");
    assert!(!body.contains("refused"), "{body}");
    let error = head.extensions.get::<Arc<Error>>().unwrap();
    assert!(matches!(**error, Error::Upstream { .. }));
    assert!(head.extensions.get::<Unasked>().is_none());
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn what_the_client_did_wrong_is_not_repeated() {
    for status in [400, 403, 404, 409, 422] {
        let upstream = Upstream::new().replies(json(status, "{}"));
        let (head, _) = send(layer(retrying(3)), &upstream, chat()).await;
        assert_eq!(head.status, status);
        assert_eq!(upstream.requests(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_judged_by_its_status_whether_it_passes_is_translated_or_no_json() {
    let claude = || TargetConfig::new("demo/claude", "anthropic", "claude").with_retry(retrying(1).retry);
    let titan = || {
        TargetConfig::new("demo/titan", "bedrock", "amazon.nova-pro-v1:0")
            .with_region("eu-central-1")
            .with_credential(Credential::bearer("one"))
            .with_retry(retrying(1).retry)
    };
    type Refusal = fn(u16) -> http::Response<crate::support::Body>;
    let refusals: [(fn() -> TargetConfig, Refusal); 4] = [
        (|| retrying(1), |status| json(status, "{}")),
        (|| retrying(1), |status| html(status, "<html>Not here</html>")),
        (claude, |status| json(status, r#"{"error":{"type":"api_error","message":"m"}}"#)),
        (titan, |status| json(status, r#"{"message":"m"}"#)),
    ];
    for (config, refusal) in refusals {
        for status in [301, 400, 403, 404, 409, 501, 505] {
            let upstream = Upstream::new().replies(refusal(status));
            let (head, body) = send(layer(config()), &upstream, chat()).await;
            assert!(!head.status.is_success(), "{status} {body}");
            assert_eq!(upstream.requests(), 1, "{status} {body}");
        }
        for status in [408, 429, 500, 503, 529] {
            let upstream = Upstream::new().replies(refusal(status)).replies(refusal(status));
            send(layer(config()), &upstream, chat()).await;
            assert_eq!(upstream.requests(), 2, "{status}");
        }
    }
}

#[tokio::test]
async fn a_secret_that_is_refused_by_a_400_makes_way_too() {
    const INVALID: &str = r#"{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#;
    let config = TargetConfig::new("demo/gemini", "gemini", "gemini-2.5-flash")
        .with_credential(Credential::api_key("one").or("two"))
        .with_retry(RetryPolicy::new(1, Duration::from_secs(500)));
    let answer = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}"#;
    let upstream = Upstream::new().replies(json(400, INVALID)).replies(json(200, answer));
    let (head, body) = send(layer(config), &upstream, chat()).await;
    assert!(head.status == 200 && body.contains("hi"), "{body}");
    let keys: Vec<_> =
        upstream.all().iter().map(|(head, _)| head.headers["x-goog-api-key"].clone()).collect();
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_times_out_is_repeated() {
    let upstream = Upstream::new().hangs().replies(json(200, "{}"));
    let config = retrying(1).with_timeouts(Timeouts::uniform(Duration::from_secs(5)));
    let (head, _) = send(layer(config), &upstream, chat()).await;
    assert_eq!(head.status, 200);
    assert_eq!(upstream.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_repeated_once_the_client_has_a_token() {
    let token = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let upstream = Upstream::new()
        .replies(events("text/event-stream", [(Duration::ZERO, Some(token)), (Duration::ZERO, None)]));
    let (head, body) = send(layer(retrying(3)), &upstream, stream_chat()).await;
    assert_eq!(head.status, 200);
    assert!(body.starts_with(token) && body.contains("upstream_truncated"), "{body}");
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_or_fails_before_its_first_token_is_repeated() {
    let begun = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    let failed = "data: {\"error\":{\"message\":\"later\",\"code\":503}}\n\n";
    let now = Duration::ZERO;
    let upstream = Upstream::new()
        .replies(events("text/event-stream", [(now, Some(begun)), (now, None)]))
        .replies(events("text/event-stream", [(now, Some(begun)), (now, Some(failed))]))
        .replies(events("text/event-stream", [(now, Some(begun))]))
        .replies(events("text/event-stream", [(now, Some(begun)), (now, Some("data: [DONE]\n\n"))]));
    let (head, body) = send(layer(retrying(3)), &upstream, stream_chat()).await;
    assert_eq!((head.status.as_u16(), body), (200, format!("{begun}data: [DONE]\n\n")));
    assert_eq!(upstream.requests(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_first_token_is_that_of_the_answer() {
    const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let seconds = Duration::from_secs;
    let upstream = Upstream::new()
        .replies(events("text/event-stream", [(seconds(1), Some("data: no json\n\n"))]))
        .replies(events("text/event-stream", [(seconds(8), Some(TOKEN)), (seconds(2), Some(TOKEN))]));
    let reports = Reports::default();
    let request = post(
        "/v1/messages",
        r#"{"model":"any","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#,
    );
    send(layer(retrying(1)).observer(reports.clone()), &upstream, request).await;
    let call = reports.only().call;
    assert_eq!((upstream.requests(), call.between_tokens), (2, Some(seconds(2))));
    assert!(call.first_token >= Some(seconds(9)), "{call:?}");
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_call_is_told() {
    let (token, seconds) =
        ("data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n", Duration::from_secs);
    let failed = "data: {\"error\":{\"message\":\"later\",\"code\":503}}\n\n";
    let upstream = Upstream::new()
        .replies(json(429, "{}"))
        .replies(events("text/event-stream", [(seconds(1), Some(failed))]))
        .replies(events(
            "text/event-stream",
            [(seconds(1), Some(token)), (seconds(9), Some("data: [DONE]\n\n"))],
        ));
    let reports = Reports::default();
    send(layer(retrying(3)).observer(reports.clone()), &upstream, stream_chat()).await;
    let call = reports.only().call;
    let told: Vec<_> = call
        .attempts
        .iter()
        .map(|attempt| (attempt.status.map(|status| status.as_u16()), attempt.error))
        .collect();
    assert_eq!(told, [(Some(429), None), (Some(200), Some("overloaded")), (Some(200), None)]);
    assert_eq!(call.dialect, Some(Dialect::OpenAi));
    assert!(call.attempts.iter().all(|attempt| attempt.duration < seconds(1)), "{call:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_nobody_waits_for_any_more_has_taken_its_time() {
    let (reports, waited) = (Reports::default(), Duration::from_secs(30));
    let service = layer(openai()).observer(reports.clone()).layer(Upstream::new().hangs());
    assert!(tokio::time::timeout(waited, service.oneshot(chat())).await.is_err());
    let attempts = reports.only().call.attempts;
    assert_eq!((attempts.len(), attempts[0].status, attempts[0].error), (1, None, None));
    assert!(attempts[0].duration >= waited, "{attempts:?}");
}

#[tokio::test(start_paused = true)]
async fn several_secrets_are_used_in_turn() {
    let config = openai()
        .with_credential(Credential::bearer("sk-1").or("sk-2").or("sk-3"))
        .with_retry(RetryPolicy::new(5, Duration::from_millis(1)));
    let mut upstream = Upstream::new().replies(json(401, "{}"));
    for _ in 0..4 {
        upstream = upstream.replies(json(429, "{}"));
    }
    let upstream = upstream.replies(json(200, "{}"));
    let (head, _) = send(layer(config), &upstream, chat()).await;
    assert_eq!(head.status, 200);
    let used: Vec<_> = upstream.all().iter().map(|(head, _)| head.headers["authorization"].clone()).collect();
    assert_eq!(used[..3], used[3..]);
    assert!(used[0] != used[1] && used[1] != used[2] && used[0] != used[2], "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn where_a_secret_is_refused_an_unused_one_is_taken_at_once() {
    for status in [401, 402, 403, 429] {
        let config = openai()
            .with_credential(Credential::bearer("sk-1").or("sk-2"))
            .with_retry(RetryPolicy::new(2, Duration::from_secs(1)));
        let mut refused = json(status, "{}");
        refused.headers_mut().insert("retry-after", "3600".parse().unwrap());
        let upstream = Upstream::new().replies(refused).replies(json(200, "{}"));
        let begun = Instant::now();
        let (head, _) = send(layer(config), &upstream, chat()).await;
        assert_eq!((head.status.as_u16(), begun.elapsed()), (200, Duration::ZERO), "{status}");
    }
}

#[tokio::test]
async fn a_refused_secret_is_told_of_though_another_one_is_taken() {
    const CREDIT: &str = r#"{"error":{"message":"m","code":"billing_not_active"}}"#;
    let refused = Some("upstream_auth");
    for (status, body, error) in [
        (401, "{}", refused),
        (402, "{}", refused),
        (400, CREDIT, refused),
        (403, "{}", None),
        (429, "{}", None),
    ] {
        let config = openai().with_credential(Credential::bearer("sk-1").or("sk-2"));
        let upstream = Upstream::new().replies(json(status, body)).replies(json(200, "{}"));
        let reports = Reports::default();
        let (head, _) = send(layer(config).observer(reports.clone()), &upstream, chat()).await;
        assert_eq!(head.status, 200, "{status}");
        let told: Vec<_> = reports.only().call.attempts.iter().map(|attempt| attempt.error).collect();
        assert_eq!(told, [error, None], "{status}");
    }
}

#[tokio::test]
async fn a_refused_secret_among_several_fails_no_call_without_retries_and_whatever_the_budget() {
    for (status, served) in [(401, 40), (402, 40)] {
        let refused = std::cell::Cell::new(0);
        let service = tower::service_fn(|request: http::Request<nantian_ai::body::RequestBody>| {
            let is_old = request.headers()["authorization"] == "Bearer old";
            refused.set(refused.get() + usize::from(is_old));
            let reply = if is_old { json(status, "{}") } else { json(200, "{}") };
            async move {
                tokio::task::yield_now().await;
                Ok::<_, nantian_ai::BoxError>(reply)
            }
        });
        let service = layer(openai().with_credential(Credential::bearer("old").or("new"))).layer(service);
        let calls = (0..40).map(|_| service.clone().oneshot(chat()));
        let answers = futures_util::future::join_all(calls).await;
        let fine = answers.into_iter().filter(|answer| answer.as_ref().unwrap().status() == 200);
        assert_eq!(fine.count(), served, "{status}");
        assert!(refused.get() > 0, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_whatever_the_secret_is_asked_again_within_the_budget() {
    let mut upstream = Upstream::new();
    for _ in 0..60 {
        upstream = upstream.then(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(json(403, "{}"))
        });
    }
    let config = openai().with_credential(Credential::bearer("sk-1").or("sk-2"));
    let service = layer(config).layer(upstream.clone());
    let calls = (0..30).map(|_| service.clone().oneshot(chat()));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 403));
    assert_eq!(upstream.requests(), 36, "one in five of 30 is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_provider_in_trouble_is_not_asked_ever_more_often() {
    let mut upstream = Upstream::new();
    for _ in 0..40 {
        // All are under way when the first one fails.
        upstream = upstream.then(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(json(503, "{}"))
        });
    }
    let reports = Reports::default();
    let service = layer(retrying(1)).observer(reports.clone()).layer(upstream.clone());
    let calls = (0..30).map(|_| service.clone().oneshot(chat()));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 503));
    assert_eq!(upstream.requests(), 36, "one in five of 30 is asked again");
    assert_eq!(reports.all().iter().filter(|report| report.call.over_budget).count(), 24);
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_every_call_is_asked_again() {
    let mut upstream = Upstream::new();
    for _ in 0..60 {
        upstream = upstream.replies(json(503, "{}"));
    }
    let policy = RetryPolicy::new(1, Duration::from_millis(500)).with_budget(BudgetPolicy::UNLIMITED);
    let service = layer(openai().with_retry(policy)).layer(upstream.clone());
    let calls = (0..30).map(|_| service.clone().oneshot(chat()));
    futures_util::future::join_all(calls).await;
    assert_eq!(upstream.requests(), 60);
}

#[tokio::test]
async fn the_inner_service_is_told_how_long_a_connection_may_take() {
    let expected = [Some(Duration::from_secs(5)), Some(Duration::from_secs(1)), None];
    let timeouts = [
        Timeouts::default(),
        Timeouts::none().with_connect(expected[1]),
        Timeouts::none().with_connect(None),
    ];
    for (timeouts, expected) in timeouts.into_iter().zip(expected) {
        let upstream = Upstream::new().replies(json(200, "{}"));
        send(layer(openai().with_timeouts(timeouts)), &upstream, chat()).await;
        let (sent, _) = upstream.request();
        assert_eq!(sent.extensions.get::<ConnectTimeout>().map(|limit| limit.0), expected);
    }
}
