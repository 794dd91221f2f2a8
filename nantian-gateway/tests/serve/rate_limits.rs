//! TokenPolicy: where it can be attached, what it counts by, how requests wait, and gateways that share their limits.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Backend, Message, Port, Redis, Running, World, chat, eventually, rule, soon, to, to_ai,
};

/// The TokenPolicy `name` on `target`.
fn limits(name: &str, target: &str, spec: &str) -> String {
    let group = match target {
        target if target.contains("kind: Service") => "''",
        target if target.contains("kind: AIService") => "gateway.nantian.dev",
        _ => "gateway.networking.k8s.io",
    };
    format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {{name: {name}, namespace: demo}}
spec: {{targetRefs: [{{group: {group}, {target}}}], {spec}}}
"
    )
}

fn on_route(spec: &str) -> String {
    limits("limits", "kind: HTTPRoute, name: web", spec)
}

/// An AIService `name` for `model` of `provider`.
fn ai_service(name: &str, model: &str, provider: &Backend) -> String {
    format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: {name}, namespace: demo}}
spec: {{provider: openai, model: {model}, endpoint: 'http://{}/v1', auth: {{type: none}}}}
",
        provider.address
    )
}

/// A reply that used so many tokens.
fn completion(tokens: u64) -> String {
    let body = format!(
        r#"{{"id":"x","object":"chat.completion","model":"m","choices":[],"usage":{{"prompt_tokens":1,"completion_tokens":{},"total_tokens":{tokens}}}}}"#,
        tokens - 1
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

async fn statuses(gateway: &Running, path: &str, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gateway.get(path).await.status());
    }
    statuses
}

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
    let decisions = |how: &str| {
        format!("nantian_rate_limit_decisions_total{{policy=\"demo/limits\",decision=\"{how}\"}}")
    };
    assert_eq!(gateway.metric(&decisions("admitted")).await, Some(1.0));
    assert_eq!(gateway.metric(&decisions("refused")).await, Some(1.0));
    assert_eq!(gateway.metric("nantian_rate_limit_live_keys{policy=\"demo/limits\"}").await, Some(1.0));
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
    let left: u64 = reply.header("x-ratelimit-remaining-requests").unwrap().parse().unwrap();
    assert!((67..70).contains(&left), "of the 70 of the rule, two and this one are used: {left}");
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
            ],
        )
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
    assert_eq!(ask(path, "invented-1").await, 200);
    assert_eq!(ask(path, "invented-2").await, 429, "who invents models invents no bucket");
    assert_eq!(ask("/v1/chat/completions", "gpt").await, 200);
    assert_eq!(ask("/v1/chat/completions", "gpt").await, 429);
    assert_eq!(ask("/v1/chat/completions", "other").await, 200);
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
}

/// A gateway with the limits of others at `store`.
async fn sharing(store: &str, backend: &Backend, spec: &str) -> Running {
    World::new()
        .service("a", &[backend])
        .route("web", &[rule("/", &to("a"))])
        .manifest("limits", &on_route(spec))
        .options(&["--ratelimit-store", store])
        .start()
        .await
}

async fn is_shared(gateway: &Running, shared: f64) {
    eventually("the store comes or goes", async || {
        gateway.metric("nantian_rate_limit_store_up").await == Some(shared)
    })
    .await;
}

#[tokio::test]
async fn two_gateways_on_one_server_admit_together_what_one_would() {
    let redis = Redis::start("s3cret").await;
    let backend = Backend::echo("a").await;
    let store = redis.store("s3cret");
    let gateways = [
        sharing(&store, &backend, "requestsPerMinute: 20").await,
        sharing(&store, &backend, "requestsPerMinute: 20").await,
    ];
    for gateway in &gateways {
        is_shared(gateway, 1.0).await;
    }
    let begun = Instant::now();
    let mut passed = 0;
    for _ in 0..30 {
        for gateway in &gateways {
            let reply = gateway.get("/").await;
            passed += u64::from(reply.status() == 200);
            assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("20"));
        }
    }
    let refilled = begun.elapsed().as_secs() / 3 + 1;
    assert!((20..=20 + refilled).contains(&passed), "{passed} of 60 in {:?}", begun.elapsed());
    for gateway in &gateways {
        eventually("they know each other", async || {
            gateway.metric("nantian_rate_limit_store_replicas").await == Some(2.0)
        })
        .await;
        let answered = gateway.metric("nantian_rate_limit_store_decisions_total{how=\"answered\"}").await;
        assert!(answered.unwrap() >= 1.0);
        let latency = gateway.metric("nantian_rate_limit_store_latency_seconds_count").await;
        assert_eq!(latency, answered);
        eventually("it is logged", async || gateway.log.count("limits are shared") == 1).await;
        assert!(!gateway.log.text().contains("s3cret"));
        assert!(!gateway.admin("/config").await.text().contains("s3cret"));
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_requests_nothing_for_long() {
    let redis = Redis::start("s3cret").await;
    let backend = Backend::echo("a").await;
    // A bucket of a thousand that hardly refills.
    let gateway = sharing(&redis.store("s3cret"), &backend, "requestsPerMinute: 1, burst: 1000").await;
    let begun = Instant::now();
    is_shared(&gateway, 1.0).await;
    assert_eq!(statuses(&gateway, "/", 3).await, [200, 200, 200]);
    redis.signal("STOP");
    let mut waits = Vec::new();
    let mut wire = gateway.connect().await;
    for _ in 0..50 {
        let asked = Instant::now();
        let reply: Message = wire.get("/").await;
        assert_eq!(reply.status(), 200);
        waits.push(asked.elapsed());
    }
    waits.sort_unstable();
    assert!(waits[25] < Duration::from_millis(10), "most wait for nobody: {:?}", waits[25]);
    is_shared(&gateway, 0.0).await;
    eventually("it is logged", async || gateway.log.count("does not answer") == 1).await;
    redis.signal("CONT");
    is_shared(&gateway, 1.0).await;
    let reply = wire.get("/").await;
    let left: u64 = reply.header("x-ratelimit-remaining-requests").unwrap().parse().unwrap();
    let refilled = begun.elapsed().as_secs() / 60 + 1;
    // Those whose answer was lost may count twice.
    assert!((936..=946 + refilled).contains(&left), "what passed meanwhile counts: {left}");
}

#[tokio::test]
async fn a_gateway_starts_without_its_server() {
    let backend = Backend::echo("a").await;
    let nobody = Port::reserve();
    let store = format!("redis://{}/0", nobody.address());
    let gateway = sharing(&store, &backend, "requestsPerMinute: 2").await;
    assert_eq!(statuses(&gateway, "/", 4).await, [200, 200, 429, 429]);
    is_shared(&gateway, 0.0).await;
}
