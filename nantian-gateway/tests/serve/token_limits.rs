//! TokenPolicy: what streams, errors and large requests cost, of an AIService and of a Service that speaks
//! like a provider.

use tokio::time::Instant;

use crate::support::{
    Backend, Port, Running, World, eventually,
    limits::{ai_service, completion, limits, on_route, post},
    rule, soon, to, to_ai,
};

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Where the policy of each route is counted, and what is asked there.
const BOTH: [(&str, &str); 2] =
    [("limits", "/v1/chat/completions"), ("plain-limits", "/plain/v1/chat/completions")];

/// An event of a stream as a chunk: twenty words.
fn words() -> String {
    let text = "counted ".repeat(20);
    chunk(&format!(
        "data: {{\"id\":\"x\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
    ))
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A chat of this much, and what else is to be in the request.
fn chat(path: &str, prompt: &str, rest: &str) -> String {
    let body = format!(r#"{{"model":"m",{rest}"messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
    post(path, "", &body)
}

/// `llm` and `plain`, an AIService and a Service of one provider, each within `spec`.
async fn both_kinds(provider: &Backend, spec: &str) -> Running {
    let rewrite = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]";
    World::new()
        .manifest("llm", &ai_service("llm", "m", provider))
        .service("plain", &[provider])
        .route("web", &[rule("/v1", &to_ai("llm"))])
        .route("plain", &[rule("/plain", &format!("{rewrite}, {}", to("plain")))])
        .manifest("limits", &on_route(spec))
        .manifest("plain-limits", &limits("plain-limits", "kind: HTTPRoute, name: plain", spec))
        .start()
        .await
}

async fn tokens(gateway: &Running, policy: &str, kind: &str) -> f64 {
    let series = format!("nantian_rate_limit_tokens_total{{policy=\"demo/{policy}\",kind=\"{kind}\"}}");
    gateway.metric(&series).await.unwrap()
}

/// What a request used, once that is known.
async fn used(gateway: &Running, policy: &str) -> f64 {
    eventually("it is settled", async || tokens(gateway, policy, "used").await > 0.0).await;
    tokens(gateway, policy, "used").await
}

#[tokio::test]
async fn a_client_that_goes_away_in_mid_stream_pays_for_what_was_generated() {
    // Some 1040 are reserved: less and more of them are used.
    for (generated, tokens) in [(10, 300.0..600.0), (50, 1500.0..3000.0)] {
        let provider = Backend::raw(move |mut wire| async move {
            if wire.message().await.is_err() {
                return;
            }
            wire.send(STREAM_HEAD).await;
            for _ in 0..generated {
                wire.send(words()).await;
            }
            // It would go on, but the client leaves.
            let _ = wire.head().await;
        })
        .await;
        let gateway = both_kinds(&provider, "tokensPerMinute: 100000").await;
        for (policy, path) in BOTH {
            let mut wire = gateway.connect().await;
            wire.send(chat(path, "hi", r#""stream":true,"#)).await;
            assert_eq!(wire.reply_head().await.status(), 200);
            let mut events = 0;
            while events < generated {
                let chunk = soon(wire.chunk()).await.unwrap();
                events += String::from_utf8_lossy(&chunk).matches("data:").count();
            }
            drop(wire);
            let used = used(&gateway, policy).await;
            assert!(tokens.contains(&used), "{policy}: twenty times {generated} words are {used} tokens");
        }
    }
}

#[tokio::test]
async fn an_error_of_the_provider_gives_the_tokens_back() {
    let provider = Backend::answering(|_| {
        "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    })
    .await;
    let gateway = both_kinds(&provider, "tokensPerMinute: 1000").await;
    for (policy, path) in BOTH {
        for _ in 0..5 {
            let reply = gateway.ask(chat(path, &"word ".repeat(400), "")).await;
            assert!(
                reply.status() >= 500,
                "{policy}: five times five hundred tokens are not used: {reply:?}"
            );
        }
        eventually("it is settled", async || tokens(&gateway, policy, "refunded").await > 2000.0).await;
        assert_eq!(tokens(&gateway, policy, "used").await, 0.0, "{policy}");
    }
}

#[tokio::test]
async fn what_is_refused_or_answered_before_any_provider_costs_no_tokens() {
    let gateway = both_kinds(&telling().await, "tokensPerMinute: 1000").await;
    let long = "word ".repeat(400);
    let counted = format!(r#"{{"messages":[{{"role":"user","content":"{long}"}}]}}"#);
    for (path, body, status) in [
        ("/v1/messages/count_tokens", counted.clone(), 200),
        ("/v1/messages", format!("no json: {long}"), 400),
        ("/v1/messages", format!(r#"{{"max_tokens":"{long}","messages":[]}}"#), 400),
        ("/v1/audio/speech", counted, 404),
    ] {
        for _ in 0..3 {
            let reply = gateway.ask(post(path, "", &body)).await;
            assert_eq!(
                reply.status(),
                status,
                "{path}: three times five hundred tokens are not used: {reply:?}"
            );
        }
    }
    eventually("it is settled", async || tokens(&gateway, "limits", "refunded").await > 2000.0).await;
    assert_eq!(tokens(&gateway, "limits", "used").await, 0.0);
}

#[tokio::test]
async fn what_is_no_call_of_a_model_costs_no_tokens_and_waits_for_none() {
    let provider = Backend::answering(|_| completion(1400)).await;
    let site = Backend::echo("site").await;
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {hostname: example.net}}]";
    let gateway = World::new()
        .manifest("llm", &ai_service("llm", "m", &provider))
        .service("site", &[&site])
        .route("web", &[rule("/v1", &to_ai("llm")), rule("/", &to("site"))])
        .route("old", &[rule("/old", redirect)])
        .manifest("1", &limits("all", "kind: Gateway, name: demo", "tokensPerMinute: 1000, scope: gateway"))
        .manifest("2", &limits("old", "kind: HTTPRoute, name: old", "tokensPerMinute: 10000"))
        .start()
        .await;
    let long = "word ".repeat(400);
    for _ in 0..25 {
        let reply = gateway.ask(chat("/old/v1/chat/completions", &long, "")).await;
        assert_eq!(reply.status(), 302, "twenty-five times five hundred tokens are not used: {reply:?}");
    }
    assert_eq!(gateway.ask(chat("/v1/chat/completions", "hi", "")).await.status(), 200);
    assert_eq!(used(&gateway, "all").await, 1400.0);
    assert_eq!(gateway.ask(chat("/v1/chat/completions", "hi", "")).await.status(), 429, "it is in debt");
    assert_eq!(gateway.get("/index.html").await.status(), 200);
    let deletion = post("/page", "", &long).replacen("POST", "DELETE", 1);
    assert_eq!(gateway.ask(deletion).await.status(), 200);
    assert_eq!(tokens(&gateway, "all", "used").await, 1400.0);
    assert_eq!(tokens(&gateway, "old", "used").await, 0.0);
}

#[tokio::test]
async fn no_spelling_of_a_path_and_no_unknown_operation_of_a_service_is_free() {
    let provider = Backend::answering(|seen| match seen.start.contains("/moved") {
        true => "HTTP/1.1 303 See Other\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_owned(),
        false => completion(1400),
    })
    .await;
    let long = "word ".repeat(400);
    for (path, charge) in [("/v1/chat%2Fcompletions", 1400.0..=1400.0), ("/v1/rerank", 800.0..=900.0)] {
        let gateway = World::new()
            .service("plain", &[&provider])
            .route("web", &[rule("/", &to("plain"))])
            .manifest("limits", &on_route("tokensPerMinute: 1200"))
            .start()
            .await;
        assert_eq!(gateway.ask(chat("/moved", &long, "")).await.status(), 303);
        eventually("a redirect is free", async || tokens(&gateway, "limits", "refunded").await > 500.0).await;
        assert_eq!(gateway.ask(chat(path, &long, "")).await.status(), 200);
        let used = used(&gateway, "limits").await;
        assert!(charge.contains(&used), "{path}: {used}");
        assert_eq!(gateway.ask(chat(path, &long, "")).await.status(), 429, "{path}: it is used up");
        assert_eq!(gateway.get("/index.html").await.status(), 200, "pages wait for no tokens");
    }
}

/// A request of this much that is no known operation, and tells no length.
fn chunked(headers: &str, text: &str) -> String {
    let head = format!("POST /v1/rerank HTTP/1.1\r\nHost: h\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    format!("{head}{}0\r\n\r\n", chunk(text))
}

#[tokio::test]
async fn no_spelling_of_a_method_and_no_unknown_length_is_free_at_a_service() {
    let provider = Backend::answering(|_| completion(1400)).await;
    let long = "word ".repeat(4000);
    let spelled = |path: &str| chat(path, &long, "").replacen("POST", "post", 1);
    for (request, charge) in [
        (spelled("/v1/chat/completions"), 1400.0..=1400.0),
        (spelled("/v1/rerank"), 6000.0..=6200.0),
        (chunked("", &long), 6024.0..=6024.0),
        // Half of a bucket, as it would cost if its length had been told.
        (chunked("", &long.repeat(25)), 50_000.0..=50_000.0),
    ] {
        let gateway = World::new()
            .service("plain", &[&provider])
            .route("web", &[rule("/", &to("plain"))])
            .manifest("limits", &on_route("tokensPerMinute: 100000"))
            .start()
            .await;
        let start = request.lines().next().unwrap_or_default().to_owned();
        assert_eq!(gateway.ask(request).await.status(), 200, "{start}");
        let used = used(&gateway, "limits").await;
        assert!(charge.contains(&used), "{start}: {used}");
    }
}

#[tokio::test]
async fn a_body_whose_length_only_the_second_of_two_policies_knows_counts_for_both() {
    let provider = Backend::answering(|_| completion(1400)).await;
    let by_user = limits("users", "kind: Service, name: plain", "tokensPerMinute: 100000, scope: user");
    let gateway = World::new()
        .service("plain", &[&provider])
        .route("web", &[rule("/", &to("plain"))])
        .manifest("1", &on_route("tokensPerMinute: 100000"))
        .manifest("2", &by_user)
        .start()
        .await;
    let request = chunked("Content-Type: application/json\r\n", &"word ".repeat(4000));
    assert_eq!(gateway.ask(request).await.status(), 200);
    for policy in ["limits", "users"] {
        assert_eq!(used(&gateway, policy).await, 6024.0, "{policy}: as if its length had been told");
    }
}

#[tokio::test]
async fn an_operation_that_spends_nothing_and_is_rewritten_to_one_that_does_is_not_free() {
    let provider = Backend::answering(|_| completion(1400)).await;
    let rewrite = "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /v1/chat/completions}}}";
    let gateway = World::new()
        .service("plain", &[&provider])
        .route(
            "web",
            &[rule("/", &format!("backendRefs: [{{name: plain, port: 80, filters: [{rewrite}]}}]"))],
        )
        .manifest("limits", &on_route("tokensPerMinute: 1200"))
        .start()
        .await;
    let count = || chat("/v1/messages/count_tokens", "hi", "");
    assert_eq!(gateway.ask(count()).await.status(), 200);
    assert_eq!(used(&gateway, "limits").await, 1400.0);
    assert_eq!(gateway.ask(count()).await.status(), 429, "it is used up");
}

#[tokio::test]
async fn what_an_ai_service_was_asked_counts_though_the_limits_of_the_next_one_deny() {
    let busy = Backend::answering(|_| {
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    })
    .await;
    let backends = "backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: busy}, \
         {group: gateway.nantian.dev, kind: AIService, name: spent}]";
    let gateway = World::new()
        .manifest("busy", &ai_service("busy", "m", &busy))
        .manifest("spent", &ai_service("spent", "other", &busy))
        .route("web", &[rule("/v1", backends)])
        .manifest("1", &limits("of-spent", "kind: AIService, name: spent", "requestsPerMinute: 0"))
        .manifest(
            "2",
            &limits("of-route", "kind: HTTPRoute, name: web", "requestsPerMinute: 3, tokensPerMinute: 1000"),
        )
        .start()
        .await;
    let begun = Instant::now();
    for _ in 0..6 {
        let reply = gateway.ask(chat("/v1/chat/completions", &"word ".repeat(100), "")).await;
        assert_eq!(reply.status(), 429, "{reply:?}");
    }
    let (asked, refilled) = (busy.seen().len() as u64, begun.elapsed().as_secs() / 20 + 1);
    assert!((3..3 + refilled).contains(&asked), "{asked}: as many as the route may ask");
    assert_eq!(tokens(&gateway, "of-route", "used").await, 0.0, "who is busy bills nothing");
}

#[tokio::test]
async fn an_ai_service_that_another_one_stands_in_for_gives_its_own_tokens_back() {
    let busy = Backend::answering(
        |_| "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    )
    .await;
    let free = Backend::answering(|_| completion(12)).await;
    let backends = "backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: busy}, \
         {group: gateway.nantian.dev, kind: AIService, name: free}]";
    let gateway = World::new()
        .manifest("busy", &ai_service("busy", "m", &busy))
        .manifest("free", &ai_service("free", "other", &free))
        .route("web", &[rule("/v1", backends)])
        .manifest("1", &limits("of-busy", "kind: AIService, name: busy", "tokensPerMinute: 1000"))
        .manifest("2", &limits("of-route", "kind: HTTPRoute, name: web", "tokensPerMinute: 100000"))
        .start()
        .await;
    for asked in 1..=5 {
        let reply = gateway.ask(chat("/v1/chat/completions", &"word ".repeat(400), "")).await;
        assert_eq!(reply.status(), 200, "{reply:?}");
        assert_eq!(busy.seen().len(), asked, "its five hundred tokens are there each time");
    }
    eventually("all is settled", async || tokens(&gateway, "of-route", "used").await == 60.0).await;
    assert_eq!(tokens(&gateway, "of-busy", "used").await, 0.0);
    assert!(tokens(&gateway, "of-busy", "refunded").await > 2000.0);
}

#[tokio::test]
async fn a_provider_that_is_not_there_gives_the_tokens_back() {
    let nobody = Port::reserve();
    let gateway = both_kinds(&Backend::at(nobody.address()), "tokensPerMinute: 1000").await;
    for (policy, path) in BOTH {
        for _ in 0..5 {
            let reply = gateway.ask(chat(path, &"word ".repeat(400), "")).await;
            assert!(reply.status() >= 500, "{policy}: {reply:?}");
        }
        eventually("it is settled", async || tokens(&gateway, policy, "refunded").await > 2000.0).await;
        assert_eq!(tokens(&gateway, policy, "used").await, 0.0, "{policy}");
    }
}

#[tokio::test]
async fn a_request_larger_than_the_bucket_is_not_refused_for_ever() {
    let provider = Backend::answering(|_| completion(12)).await;
    let gateway = both_kinds(&provider, "tokensPerMinute: 600").await;
    for (policy, path) in BOTH {
        let large = || chat(path, &"word ".repeat(4000), "");
        for asked in 0..3 {
            // Others never leave the bucket full.
            let other = gateway.ask(chat(path, "hi", r#""max_tokens":20,"#)).await;
            assert_eq!(other.status(), 200, "{policy}: {asked}");
            assert_eq!(
                gateway.ask(large()).await.status(),
                200,
                "{policy}: {asked}, half a bucket is enough"
            );
            eventually("it is settled", async || {
                tokens(&gateway, policy, "used").await == f64::from(24 * (asked + 1))
            })
            .await;
        }
    }
}

#[tokio::test]
async fn what_cannot_be_metered_and_is_larger_than_the_bucket_is_not_refused_for_ever() {
    let provider = Backend::answering(|_| completion(12)).await;
    let gateway = both_kinds(&provider, "tokensPerMinute: 600").await;
    let upload = || post("/plain/v1/audio/transcriptions", "", &"noise".repeat(10_000));
    let chat = || chat("/plain/v1/chat/completions", "hi", r#""max_tokens":20,"#);
    // Others never leave the bucket full.
    assert_eq!(gateway.ask(chat()).await.status(), 200);
    assert_eq!(gateway.ask(upload()).await.status(), 200, "half a bucket is enough");
    eventually("it is settled", async || tokens(&gateway, "plain-limits", "used").await == 312.0).await;
    assert_eq!(gateway.ask(chat()).await.status(), 200, "the other half is left to others");
    let refused = gateway.ask(upload()).await;
    if refused.status() == 429 {
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(wait < 10, "a bucket that is full is waited for {wait} s");
    }
}

#[tokio::test]
async fn a_request_larger_than_the_bucket_pays_for_all_that_it_used() {
    let provider = Backend::answering(|_| completion(3000)).await;
    let gateway = both_kinds(&provider, "tokensPerMinute: 600").await;
    for (policy, path) in BOTH {
        let ask = || chat(path, &"word ".repeat(4000), "");
        assert_eq!(gateway.ask(ask()).await.status(), 200, "{policy}");
        assert_eq!(used(&gateway, policy).await, 3000.0, "{policy}");
        let of = async |kind| tokens(&gateway, policy, kind).await;
        assert_eq!([of("reserved").await, of("debt").await, of("refunded").await], [300.0, 2700.0, 0.0]);
        let forgiven = of("forgiven").await;
        assert!((1700.0..=1800.0).contains(&forgiven), "{policy}: more than a window of debt: {forgiven}");
        let refused = gateway.ask(ask()).await;
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert_eq!(refused.status(), 429, "{policy}");
        assert!(
            (80..=120).contains(&wait),
            "{policy}: a window is owed, and calls need half or all of one: {wait}"
        );
    }
}

/// A provider whose streams tell their usage, 100 tokens, if they are asked to.
async fn telling() -> Backend {
    Backend::answering(|request| {
        let usage = match request.json()["stream_options"]["include_usage"] == true {
            true => "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":91,\"total_tokens\":100}}\n\n",
            false => "",
        };
        let end = chunk(&format!("{usage}data: [DONE]\n\n"));
        format!("{STREAM_HEAD}{}{end}0\r\n\r\n", words())
    })
    .await
}

#[tokio::test]
async fn whoever_asks_for_no_usage_is_counted_all_the_same() {
    let provider = telling().await;
    for wish in ["", r#""stream_options":{"include_usage":false},"#] {
        let gateway = both_kinds(&provider, "tokensPerMinute: 100000").await;
        for (policy, path) in BOTH {
            let reply = gateway.ask(chat(path, "hi", &format!(r#""stream":true,{wish}"#))).await;
            assert!(!reply.text().contains("total_tokens"), "{policy}: it was not asked for");
            assert_eq!(used(&gateway, policy).await, 100.0, "{policy}: it is asked all the same");
        }
    }
}

#[tokio::test]
async fn a_stream_is_settled_with_what_the_provider_says() {
    let provider = telling().await;
    let gateway = both_kinds(&provider, "tokensPerMinute: 100000").await;
    for (policy, path) in BOTH {
        let wish = r#""stream":true,"stream_options":{"include_usage":true},"#;
        let reply = gateway.ask(chat(path, "hi", wish)).await;
        assert!(reply.text().contains("total_tokens"), "{policy}: it was asked for");
        assert_eq!(used(&gateway, policy).await, 100.0, "{policy}");
    }
}

#[tokio::test]
async fn what_the_provider_reads_from_its_cache_counts_by_its_weight() {
    const ANSWER: &str = r#"{"id":"x","object":"chat.completion","model":"m",
        "choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":900}}}"#;
    let length = ANSWER.len();
    let provider = Backend::answering(move |_| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{ANSWER}"
        )
    })
    .await;
    for (weight, counted) in
        [("", 1100.0), (", cachedTokenWeight: 0.1", 290.0), (", cachedTokenWeight: 0", 200.0)]
    {
        let gateway = both_kinds(&provider, &format!("tokensPerMinute: 100000{weight}")).await;
        for (policy, path) in BOTH {
            assert_eq!(gateway.ask(chat(path, "hi", "")).await.status(), 200);
            assert_eq!(used(&gateway, policy).await, counted, "{policy}{weight}");
        }
    }
}

#[tokio::test]
async fn a_picture_is_reserved_by_what_it_costs_and_not_by_its_bytes() {
    let provider = telling().await;
    let gateway = both_kinds(&provider, "tokensPerMinute: 5000").await;
    let picture = "iVBORw0KGgo".repeat(100_000);
    let prompt =
        format!(r#""}},{{"type":"image_url","url":"data:image/png;base64,{picture}"}},{{"text":"and"#);
    for (policy, path) in BOTH {
        let wish = r#""stream":true,"stream_options":{"include_usage":true},"max_tokens":1500,"#;
        for asked in 1..=3 {
            let reply = gateway.ask(chat(path, &prompt, wish)).await;
            assert_eq!(reply.status(), 200, "{policy}: {reply:?}");
            let settled = f64::from(asked) * 100.0;
            eventually("it is settled", async || tokens(&gateway, policy, "used").await == settled).await;
        }
        let reserved = tokens(&gateway, policy, "reserved").await / 3.0;
        assert!((1000.0..3000.0).contains(&reserved), "{policy}: {reserved} each");
    }
}

#[tokio::test]
async fn requests_at_once_reserve_the_answers_they_allow_themselves() {
    let provider = Backend::raw(async |mut wire| {
        if wire.message().await.is_ok() {
            wire.send(STREAM_HEAD).await;
            wire.send(words()).await;
            // It goes on until the client leaves.
            let _ = wire.head().await;
        }
    })
    .await;
    let gateway = both_kinds(&provider, "tokensPerMinute: 3600").await;
    for (policy, path) in BOTH {
        let mut wires = Vec::new();
        let mut statuses = Vec::new();
        for _ in 0..6 {
            let mut wire = gateway.connect().await;
            wire.send(chat(path, "hi", r#""stream":true,"max_tokens":4000,"#)).await;
            statuses.push(wire.reply_head().await.status());
            wires.push(wire);
        }
        assert_eq!(
            statuses,
            [200, 200, 200, 429, 429, 429],
            "{policy}: a thousand each, until more is known"
        );
    }
}
