//! TokenPolicy: where it can be attached, what it counts by, and how requests wait.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Backend, World, chat,
    limits::{ai_service, completion, limits, on_route, post, statuses},
    rule, soon, to, to_ai,
};

#[tokio::test]
async fn a_policy_holds_wherever_it_is_attached() {
    let backend = Backend::echo("a").await;
    for target in [
        "kind: Gateway, name: demo",
        "kind: Gateway, name: demo, sectionName: http",
        "kind: HTTPRoute, name: web",
        "kind: HTTPRoute, name: web, sectionName: second",
        "kind: Service, name: a",
    ] {
        let named = rule("/limited", &format!("name: second, {}", to("a")));
        let gateway = World::new()
            .service("a", &[&backend])
            .route("web", &[rule("/free", &to("a")), named])
            .manifest("limits", &limits("limits", target, "requestsPerMinute: 2"))
            .start()
            .await;
        assert_eq!(statuses(&gateway, "/limited", 4).await, [200, 200, 429, 429], "{target}");
        let elsewhere = if target.contains("second") { 200 } else { 429 };
        assert_eq!(statuses(&gateway, "/free", 1).await, [elsewhere], "{target}");
        let accepted = gateway.condition("TokenPolicy demo/limits", "Accepted").await;
        assert_eq!(accepted["status"], "True", "{target}");
    }
}

#[tokio::test]
async fn a_policy_on_an_ai_service_counts_the_tokens_of_its_replies() {
    let provider = Backend::answering(|_| completion(60)).await;
    let gateway = World::new()
        .manifest("llm", &ai_service("llm", "m", &provider))
        .route("web", &[rule("/", &to_ai("llm"))])
        .manifest(
            "limits",
            &limits("limits", "kind: AIService, name: llm", "tokensPerMinute: 100, scope: model"),
        )
        .start()
        .await;
    let ask = async || gateway.ask(chat("h", false)).await;
    assert_eq!(ask().await.status(), 200);
    assert_eq!(ask().await.status(), 429, "60 of 100 are used, and 60 are typical");
    let tokens =
        |kind: &str| format!("nantian_rate_limit_tokens_total{{policy=\"demo/limits\",kind=\"{kind}\"}}");
    assert_eq!(gateway.metric(&tokens("used")).await, Some(60.0));
    let decisions = |how: &str| format!("nantian_rate_limit_decisions_total{{policy=\"demo/limits\",{how}}}");
    let admitted = decisions(r#"decision="admitted",limit="""#);
    assert_eq!(gateway.metric(&admitted).await, Some(1.0));
    let refused = decisions(r#"decision="refused",limit="tokens-per-minute""#);
    assert_eq!(gateway.metric(&refused).await, Some(1.0));
    let series = "nantian_rate_limit_limit{policy=\"demo/limits\",limit=\"tokens-per-minute\"}";
    assert_eq!(gateway.metric(series).await, Some(100.0));
    assert_eq!(gateway.metric("nantian_rate_limit_live_keys{policy=\"demo/limits\"}").await, Some(1.0));
    let raised = limits("limits", "kind: AIService, name: llm", "tokensPerMinute: 300, scope: model");
    gateway.edit("limits", &raised).await;
    assert_eq!(gateway.metric(series).await, Some(300.0));
    assert_eq!(ask().await.status(), 200);
}

#[tokio::test]
async fn what_was_used_is_known_when_the_target_of_a_policy_is_put_back() {
    let backend = Backend::echo("a").await;
    let policy = limits("limits", "kind: Service, name: a", "requestsPerMinute: 2");
    let gateway = World::new()
        .service("a", &[&backend])
        .service("b", &[&backend])
        .route("web", &[rule("/", &to("a"))])
        .manifest("limits", &policy)
        .start()
        .await;
    assert_eq!(statuses(&gateway, "/", 3).await, [200, 200, 429]);
    gateway.edit_route("web", &[rule("/", &to("b"))]).await;
    assert_eq!(gateway.get("/").await.status(), 200);
    gateway.edit_route("web", &[rule("/", &to("a"))]).await;
    assert_eq!(gateway.get("/").await.status(), 429);

    gateway.edit("limits", "").await;
    assert_eq!(gateway.get("/").await.status(), 200);
    gateway.edit("limits", &policy).await;
    assert_eq!(gateway.get("/").await.status(), 200, "another policy of this name");
}

#[tokio::test]
async fn policies_at_several_places_must_all_admit_and_a_denial_costs_nothing_at_any() {
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("web", &[rule("/", &format!("name: all, {}", to("a")))])
        .manifest("1", &limits("gateway", "kind: Gateway, name: demo", "requestsPerMinute: 100"))
        .manifest(
            "2",
            &limits("listener", "kind: Gateway, name: demo, sectionName: http", "requestsPerMinute: 90"),
        )
        .manifest("3", &limits("route", "kind: HTTPRoute, name: web", "requestsPerMinute: 80"))
        .manifest(
            "4",
            &limits("rule", "kind: HTTPRoute, name: web, sectionName: all", "requestsPerMinute: 70"),
        )
        .manifest("5", &limits("service", "kind: Service, name: a", "requestsPerMinute: 2"))
        .start()
        .await;
    assert_eq!(statuses(&gateway, "/", 30).await.iter().filter(|status| **status == 200).count(), 2);
    assert_eq!(backend.seen().len(), 2);
    gateway.edit("5", "").await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.status(), 200);
    let policies = reply.all("ratelimit-policy").join(", ");
    for (policy, max) in [("gateway", 100), ("listener", 90), ("route", 80), ("rule", 70)] {
        let told = format!("\"demo.{policy}.requests-per-minute\";q={max};w=60");
        assert!(policies.contains(&told), "{told}: {policies}");
    }
    let left: u64 = reply.header("x-ratelimit-remaining-requests").unwrap().parse().unwrap();
    assert!((67..70).contains(&left), "of the 70 of the rule, two and this one are used: {left}");
}

#[tokio::test]
async fn a_rehearsal_changes_nothing_of_what_is_reserved_and_told() {
    let provider = Backend::answering(|_| completion(60)).await;
    for target in ["kind: HTTPRoute, name: web", "kind: AIService, name: llm"] {
        let mut told = Vec::new();
        for rehearsal in [None, Some("0"), Some("400")] {
            let mut world = World::new()
                .manifest("llm", &ai_service("llm", "m", &provider))
                .route("web", &[rule("/", &to_ai("llm"))])
                .manifest("limits", &limits("limits", target, "tokensPerMinute: 100000"));
            if let Some(most) = rehearsal {
                let spec = format!("tokensPerMinute: {most}, onLimit: warn");
                world = world.manifest("rehearsal", &limits("rehearsal", "kind: Gateway, name: demo", &spec));
            }
            let reply = world.start().await.ask(chat("h", false)).await;
            assert_eq!(reply.status(), 200);
            told.push(
                ["ratelimit-policy", "x-ratelimit-remaining-tokens"]
                    .map(|name| reply.all(name).into_iter().map(str::to_owned).collect::<Vec<_>>()),
            );
        }
        assert!(told.iter().all(|with| *with == told[0] && !with[1].is_empty()), "{target}: {told:?}");
    }
}

#[tokio::test]
async fn what_the_policy_of_an_ai_service_denies_costs_nothing_around_it() {
    let provider = Backend::answering(|_| completion(10)).await;
    let gateway = World::new()
        .manifest("llm", &ai_service("llm", "m", &provider))
        .route("web", &[rule("/", &format!("name: all, {}", to_ai("llm")))])
        .manifest("1", &limits("gateway", "kind: Gateway, name: demo", "tokensPerMinute: 1000"))
        .manifest(
            "2",
            &limits("rule", "kind: HTTPRoute, name: web, sectionName: all", "requestsPerMinute: 70"),
        )
        .manifest("3", &limits("ai", "kind: AIService, name: llm", "requestsPerMinute: 2"))
        .start()
        .await;
    for status in [200, 200, 429, 429, 429, 429] {
        assert_eq!(gateway.ask(chat("h", false)).await.status(), status);
    }
    assert_eq!(provider.seen().len(), 2);
    gateway.edit("3", "").await;
    let reply = gateway.ask(chat("h", false)).await;
    let left =
        |unit: &str| reply.header(&format!("x-ratelimit-remaining-{unit}")).unwrap().parse::<u64>().unwrap();
    assert!((67..70).contains(&left("requests")), "of 70: {reply:?}");
    assert!(
        (700..800).contains(&left("tokens")),
        "of 1000, two times ten are used, and a prompt and a quarter reserved: {reply:?}"
    );
}

#[tokio::test]
async fn redirects_are_limited_like_requests_to_a_backend() {
    let backend = Backend::echo("a").await;
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {hostname: example.net}}]";
    let of_share = format!("backendRefs: [{{name: a, port: 80, {redirect}}}]");
    let gateway = World::new()
        .service("a", &[&backend])
        .route(
            "web",
            &[
                rule("/old", &format!("name: old, {redirect}")),
                rule("/share", &format!("name: share, {of_share}")),
            ],
        )
        .manifest("1", &limits("old", "kind: HTTPRoute, name: web, sectionName: old", "requestsPerMinute: 2"))
        .manifest("2", &limits("service", "kind: Service, name: a", "requestsPerMinute: 1"))
        .start()
        .await;
    assert_eq!(statuses(&gateway, "/old", 3).await, [302, 302, 429]);
    assert_eq!(statuses(&gateway, "/share", 2).await, [302, 429]);
    assert!(backend.seen().is_empty());
    let accepted = gateway.condition("TokenPolicy demo/old", "Accepted").await;
    assert_eq!(accepted["message"], "in force on HTTPRoute demo/web section old");
}

#[tokio::test]
async fn requests_wait_for_their_turn_if_the_policy_says_so() {
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("web", &[rule("/", &to("a"))])
        .manifest("limits", &on_route("requestsPerMinute: 120, onLimit: queue"))
        .start()
        .await;
    let begun = Instant::now();
    assert!(statuses(&gateway, "/", 120).await.iter().all(|status| *status == 200));
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let address = gateway.address();
        waiting.spawn(async move { crate::support::Wire::connect(address).await.get("/").await.status() });
    }
    while let Some(status) = soon(waiting.join_next()).await {
        assert_eq!(status.unwrap(), 200);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1400), "three of 120 take a second and a half: {took:?}");
}

#[tokio::test]
async fn who_would_have_to_wait_longer_than_its_time_is_told_when_to_come_back() {
    let backend = Backend::echo("a").await;
    for timed in ["timeouts: {request: 5s}, ", ""] {
        let gateway = World::new()
            .service("a", &[&backend])
            .route("web", &[rule("/", &format!("{timed}{}", to("a")))])
            .manifest("limits", &on_route("requestsPerMinute: 3, onLimit: queue"))
            .start()
            .await;
        assert_eq!(statuses(&gateway, "/", 3).await, [200; 3]);
        let mut wire = gateway.connect().await;
        if timed.is_empty() {
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert!(
                tokio::time::timeout(Duration::from_millis(300), wire.reply_head()).await.is_err(),
                "it waits"
            );
            continue;
        }
        let reply = wire.get("/").await;
        assert_eq!(reply.status(), 429, "no time-out");
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((10..=20).contains(&wait), "{wait}");
    }
}

#[tokio::test]
async fn a_model_that_some_readers_do_not_see_has_no_bucket_of_its_own() {
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("web", &[rule("/", &to("a"))])
        .manifest("limits", &on_route("requestsPerMinute: 1, scope: model"))
        .start()
        .await;
    let ask = async |body: &str| gateway.ask(post("/api/chat", "", body)).await.status();
    assert_eq!(ask(r#"{"model":"random-1","MODEL":"llama3"}"#).await, 200);
    assert_eq!(ask(r#"{"model":"random-2","Model":"llama3"}"#).await, 429, "Go reads the last of both");
    assert_eq!(ask(r#"{"model":"llama3"}"#).await, 200);
}

#[tokio::test]
async fn a_limit_by_model_counts_the_models_there_are() {
    let provider = Backend::answering(|_| completion(10)).await;
    let gateway = World::new()
        .manifest("small", &ai_service("small", "model-s", &provider))
        .manifest("large", &ai_service("large", "model-l", &provider))
        .service("plain", &[&provider])
        .route(
            "web",
            &[
                rule(
                    "/ai",
                    "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], \
                     backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: small}, \
                     {group: gateway.nantian.dev, kind: AIService, name: large}]",
                ),
                rule("/v1", &to("plain")),
                rule("/one", &to_ai("single")),
                rule(
                    "/mixed",
                    "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], \
                     backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: small}, \
                     {group: gateway.nantian.dev, kind: AIService, name: new}, {name: plain, port: 80, weight: 0}]",
                ),
                rule(
                    "/moved",
                    "backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: new}, \
                     {group: gateway.nantian.dev, kind: AIService, name: old, weight: 0}]",
                ),
            ],
        )
        .manifest("single", &ai_service("single", "model-1", &provider))
        .manifest("new", &ai_service("new", "model-2", &provider))
        .manifest("old", &ai_service("old", "model-3", &provider))
        .manifest("limits", &on_route("requestsPerMinute: 1, scope: model"))
        .start()
        .await;
    let ask = async |path: &str, model: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],"model":"{model}"}}"#);
        gateway.ask(post(path, "", &body)).await.status()
    };
    let path = "/ai/v1/chat/completions";
    assert_eq!(ask(path, "model-s").await, 200);
    assert_eq!(ask(path, "small").await, 429, "two names of one model");
    assert_eq!(ask(path, "model-l").await, 200);
    assert_eq!(ask(path, r#"x","model":"model-l"#).await, 429, "the last name is the one that is asked");
    assert_eq!(ask(path, r#"model-l","MODEL":"x"#).await, 429, "an AIService is asked for no other one");
    assert_eq!(ask(path, "invented-1").await, 200);
    assert_eq!(ask(path, "invented-2").await, 429, "who invents models invents no bucket");
    assert_eq!(ask("/v1/chat/completions", "gpt").await, 200);
    assert_eq!(ask("/v1/chat/completions", "gpt").await, 429);
    assert_eq!(ask("/v1/chat/completions", "other").await, 200);
    assert_eq!(ask("/one/v1/chat/completions", "single").await, 200);
    assert_eq!(ask("/one/v1/chat/completions", "invented").await, 429, "there is only one to be asked");
    assert_eq!(ask("/moved/v1/chat/completions", "new").await, 200);
    assert_eq!(ask("/moved/v1/chat/completions", "old").await, 429, "nobody asks that one");
    assert_eq!(ask("/mixed/v1/chat/completions", "invented-3").await, 200);
    assert_eq!(
        ask("/mixed/v1/chat/completions", "small").await,
        429,
        "it is served by weight, whatever is asked for"
    );
    let seen = provider.seen();
    assert!(seen.iter().all(|request| request.json()["messages"][0]["content"] == "hi"), "bodies pass");
}

#[tokio::test]
async fn a_limit_by_user_counts_by_credentials_or_what_the_body_says() {
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("web", &[rule("/", &to("a"))])
        .manifest("limits", &on_route("requestsPerMinute: 1, scope: user"))
        .start()
        .await;
    let ask = async |headers: &str, body: &str| gateway.ask(post("/", headers, body)).await.status();
    assert_eq!(ask("", r#"{"user":"alice"}"#).await, 200);
    assert_eq!(ask("", r#"{"user":"alice"}"#).await, 429);
    assert_eq!(ask("", r#"{"metadata":{"user_id":"bob"}}"#).await, 200);
    let carol = "Authorization: Basic Y2Fyb2w6c2VjcmV0\r\n";
    assert_eq!(ask(carol, r#"{"user":"alice"}"#).await, 200);
    assert_eq!(ask(carol, "").await, 429);
    // Python's base64 passes over the star.
    let odd = "Authorization: Basic Y2Fy*b2w6c2VjcmV0\r\n";
    assert_eq!(ask(odd, r#"{"user":"random-1"}"#).await, 200);
    assert_eq!(
        ask(odd, r#"{"user":"random-2"}"#).await,
        429,
        "who has credentials does not choose another name"
    );
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
        a\r\n{\"user\":\"d\r\n6\r\nave\"} \r\n0\r\n\r\n";
    assert_eq!(gateway.ask(chunked).await.text(), "{\"user\":\"dave\"} ");
    assert_eq!(gateway.ask(chunked).await.status(), 429);
}

#[tokio::test]
async fn a_refusal_is_in_the_words_of_the_clients_api() {
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("web", &[rule("/", &to("a"))])
        .manifest("limits", &on_route("requestsPerMinute: 0"))
        .start()
        .await;
    let ask = async |path: &str, headers: &str| gateway.ask(post(path, headers, "{}")).await;
    let openai = ask("/v1/chat/completions", "").await;
    assert_eq!((openai.status(), &openai.json()["error"]["code"]), (429, &"rate_limit_exceeded".into()));
    assert_eq!(openai.header("x-should-retry"), Some("false"), "a limit of 0 never passes");
    let anthropic = ask("/v1/messages", "anthropic-version: 2023-06-01\r\n").await;
    assert_eq!((anthropic.status(), &anthropic.json()["error"]["type"]), (429, &"rate_limit_error".into()));
    let others = ask("/", "").await;
    assert_eq!((others.status(), others.header("content-type")), (429, Some("application/problem+json")));
    assert_eq!(others.header("x-nantian-limit-source"), Some("gateway"));
    assert_eq!(others.header("x-ratelimit-retry-after-seconds"), None);
}

#[tokio::test]
async fn a_backend_of_limited_requests_has_limits_of_its_own() {
    let backend = Backend::answering(|_| {
        let source = "x-nantian-limit-source: gateway";
        format!("HTTP/1.1 429 X\r\n{source}\r\ncontent-length: 0\r\n\r\n").into_bytes()
    })
    .await;
    let world = || World::new().service("a", &[&backend]).route("web", &[rule("/", &to("a"))]);
    let limited = world().manifest("limits", &on_route("requestsPerMinute: 9")).start().await;
    assert_eq!(limited.get("/").await.header("x-nantian-limit-source"), Some("upstream"));
    let free = world().start().await;
    assert_eq!(free.get("/").await.header("x-nantian-limit-source"), Some("gateway"), "what it says passes");
}

#[tokio::test]
async fn a_client_of_ipv6_is_a_network_as_wide_as_is_told() {
    let backend = Backend::echo("a").await;
    let world = World::new().service("a", &[&backend]).route("web", &[rule("/", &to("a"))]);
    let gateway = world
        .manifest("limits", &on_route("requestsPerMinute: 1, scope: ip"))
        .options(&["--trusted-proxies", "127.0.0.0/8", "--client-ipv6-prefix", "56"])
        .start()
        .await;
    for (client, status) in
        [("2001:db8:0:1200::1", 200), ("2001:db8:0:12ff::2", 429), ("2001:db8:0:1300::1", 200)]
    {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {client}\r\n\r\n");
        assert_eq!(gateway.ask(request).await.status(), status, "{client}");
    }
}
