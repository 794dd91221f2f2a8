//! TokenPolicies whose limits several gateways share.

use std::{fs, time::Duration};

use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{
    Backend, Certificate, Message, Port, Redis, Running, World, eventually,
    limits::{ai_service, completion, limits, on_route, post, statuses},
    rule, to, to_ai, unending_provider,
};

/// A gateway with the limits of others at `store`.
async fn sharing(store: &str, backend: &Backend, spec: &str) -> Running {
    sharing_with(store, &[], backend, spec).await
}

/// The same with more options.
async fn sharing_with(store: &str, options: &[&str], backend: &Backend, spec: &str) -> Running {
    World::new()
        .service("a", &[backend])
        .route("web", &[rule("/", &to("a"))])
        .manifest("limits", &on_route(spec))
        .options(&["--ratelimit-store", store])
        .options(options)
        .start()
        .await
}

/// The same before a model.
async fn sharing_model(store: &str, provider: &Backend, policies: &[String]) -> Running {
    let world = World::new()
        .manifest("llm", &ai_service("llm", "m", provider))
        .route("web", &[rule("/v1", &to_ai("llm"))])
        .manifest("limits", &policies.join("---"));
    let gateway = world.options(&["--ratelimit-store", store]).start().await;
    is_shared(&gateway, 1.0).await;
    gateway
}

fn chat(prompt: &str, rest: &str) -> String {
    let body = format!(r#"{{"model":"m",{rest}"messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
    post("/v1/chat/completions", "", &body)
}

/// How many decisions were made like this.
async fn decided(gateway: &Running, how: &str) -> f64 {
    gateway.metric(&format!("nantian_rate_limit_store_decisions_total{{how=\"{how}\"}}")).await.unwrap()
}

const AWAY: &str = "the store of the limits does not answer: each gateway goes on with its share of them";

const PARTLY: &str = "a part of the store of the limits does not answer: for the keys there, each gateway goes on with its share of \
     them";

const ALONE: &str = "has not answered since this gateway started: it goes on with the whole limits";

/// What the status of the policy says.
async fn status(gateway: &Running) -> String {
    let accepted = gateway.condition("TokenPolicy demo/limits", "Accepted").await;
    assert_eq!(accepted["status"], "True");
    accepted["message"].as_str().unwrap().to_owned()
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
    let elapsed = begun.elapsed();
    let mut late = 0.0;
    for gateway in &gateways {
        late += decided(gateway, "failed").await;
    }
    // What the server answers too late is decided by what one gateway has seen, and may be charged twice.
    let within = 20.0 - late..=(20 + refilled) as f64 + late;
    assert!(within.contains(&(passed as f64)), "{passed} of 60 in {elapsed:?}, {late} of them late");
    for gateway in &gateways {
        eventually("they know each other", async || {
            gateway.metric("nantian_rate_limit_store_replicas").await == Some(2.0)
        })
        .await;
        let answered = decided(gateway, "answered").await;
        assert!(answered >= 1.0);
        let latency = gateway.metric("nantian_rate_limit_store_latency_seconds_count").await;
        assert_eq!(latency, Some(answered));
        eventually("it is logged", async || gateway.log.count("limits are shared") == 1).await;
        assert!(!gateway.log.text().contains("s3cret"));
        assert!(!gateway.admin("/config").await.text().contains("s3cret"));
    }
}

#[tokio::test]
async fn two_gateways_on_a_cluster_admit_together_what_one_would_whatever_node_has_the_key() {
    let nodes = Redis::cluster("s3cret").await;
    let backend = Backend::echo("a").await;
    let spec = "requestsPerMinute: 1, burst: 6, scope: 'header:x-caller'";
    let gateways = [
        sharing(&nodes[0].store("s3cret"), &backend, spec).await,
        sharing(&nodes[1].store("s3cret"), &backend, spec).await,
    ];
    for gateway in &gateways {
        is_shared(gateway, 1.0).await;
    }
    let mut passed = Vec::new();
    for caller in 0..12 {
        let mut of_caller = 0;
        for _ in 0..5 {
            for gateway in &gateways {
                let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Caller: {caller}\r\n\r\n");
                let reply = gateway.ask(request).await;
                of_caller += u64::from(reply.status() == 200);
            }
        }
        passed.push(of_caller);
    }
    let mut late = 0.0;
    for gateway in &gateways {
        late += decided(gateway, "failed").await;
    }
    let total: u64 = passed.iter().sum();
    // One may have refilled meanwhile for each; what is answered too late may be charged twice.
    let within = 72.0 - late..=84.0 + late;
    assert!(within.contains(&(total as f64)), "{passed:?}, {late} of them late");

    // Only the keys of a node that is frozen are decided by each alone.
    nodes[0].signal("STOP");
    is_shared(&gateways[0], 0.0).await;
    eventually("its status says so", async || status(&gateways[0]).await.ends_with(PARTLY)).await;
    nodes[0].signal("CONT");
    is_shared(&gateways[0], 1.0).await;
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
    let before = decided(&gateway, "failed").await;
    let mut waits = Vec::new();
    let mut wire = gateway.connect().await;
    for _ in 0..50 {
        let asked = Instant::now();
        let reply: Message = wire.get("/").await;
        assert_eq!(reply.status(), 200);
        waits.push(asked.elapsed());
    }
    waits.sort_unstable();
    assert!(waits[10] < Duration::from_millis(20), "many wait for nobody: {waits:?}");
    let waited = decided(&gateway, "failed").await - before;
    assert!(waited <= 5.0, "five that wait in vain are enough: {waited}");
    is_shared(&gateway, 0.0).await;
    eventually("it is logged", async || gateway.log.count("does not answer") == 1).await;
    eventually("its status says so", async || status(&gateway).await.ends_with(AWAY)).await;
    redis.signal("CONT");
    is_shared(&gateway, 1.0).await;
    eventually("its status says so no more", async || !status(&gateway).await.ends_with(AWAY)).await;
    let reply = wire.get("/").await;
    let left: u64 = reply.header("x-ratelimit-remaining-requests").unwrap().parse().unwrap();
    let refilled = begun.elapsed().as_secs() / 60 + 1;
    // Those whose answer was lost may count twice.
    assert!((936..=946 + refilled).contains(&left), "what passed meanwhile counts: {left}");
}

#[tokio::test]
async fn a_server_that_may_forget_limits_is_said_to() {
    let redis = Redis::start("s3cret").await;
    redis.configure("s3cret", "maxmemory 100mb").await;
    redis.configure("s3cret", "maxmemory-policy volatile-lru").await;
    let backend = Backend::echo("a").await;
    let gateway = sharing(&redis.store("s3cret"), &backend, "requestsPerMinute: 2").await;
    is_shared(&gateway, 1.0).await;
    eventually("its status says so", async || status(&gateway).await.contains("should be noeviction")).await;
    eventually("it is logged", async || gateway.log.count("should be noeviction") == 1).await;
    assert_eq!(statuses(&gateway, "/", 3).await, [200, 200, 429], "limits hold all the same");
}

#[tokio::test]
async fn a_gateway_starts_without_its_server() {
    let backend = Backend::echo("a").await;
    let nobody = Port::reserve();
    let store = format!("redis://{}/0", nobody.address());
    let gateway = sharing(&store, &backend, "requestsPerMinute: 2").await;
    assert_eq!(statuses(&gateway, "/", 4).await, [200, 200, 429, 429]);
    is_shared(&gateway, 0.0).await;
    eventually("its status says so", async || status(&gateway).await.contains(ALONE)).await;
    // One that has been told of others takes its share.
    let gateway =
        sharing_with(&store, &["--ratelimit-replicas", "2"], &backend, "requestsPerMinute: 2").await;
    assert_eq!(statuses(&gateway, "/", 2).await, [200, 429]);
    is_shared(&gateway, 0.0).await;
    eventually("its status says so", async || status(&gateway).await.ends_with(AWAY)).await;
}

#[tokio::test]
async fn without_the_store_all_requests_pass_or_none_if_that_is_the_failure_mode() {
    let backend = Backend::echo("a").await;
    let nobody = Port::reserve();
    let store = format!("redis://{}/0", nobody.address());
    for (mode, answered, decision, told) in [
        ("open", 200, "unchecked", "the store of the limits does not answer: requests pass uncounted"),
        ("closed", 503, "refused", "the store of the limits does not answer: requests are refused"),
    ] {
        let options = ["--ratelimit-store-failure-mode", mode];
        let gateway = sharing_with(&store, &options, &backend, "requestsPerMinute: 2").await;
        assert_eq!(statuses(&gateway, "/", 4).await, [answered; 4], "{mode}");
        let series = format!(
            "nantian_rate_limit_decisions_total{{policy=\"demo/limits\",decision=\"{decision}\",limit=\"\"}}"
        );
        assert_eq!(gateway.metric(&series).await, Some(4.0), "{mode}");
        eventually("its status says so", async || status(&gateway).await.ends_with(told)).await;
    }
}

#[tokio::test]
async fn two_gateways_admit_no_more_than_the_limit_while_their_server_is_frozen_nor_afterwards() {
    let redis = Redis::start("s3cret").await;
    let backend = Backend::echo("a").await;
    let store = redis.store("s3cret");
    // Ten hundreds that hardly refill.
    let spec = "requestsPerMinute: 10, burst: 10";
    let gateways = [sharing(&store, &backend, spec).await, sharing(&store, &backend, spec).await];
    let begun = Instant::now();
    for gateway in &gateways {
        is_shared(gateway, 1.0).await;
        eventually("they know each other", async || {
            gateway.metric("nantian_rate_limit_store_replicas").await == Some(2.0)
        })
        .await;
    }
    let passed = async |gateway: &Running, count| {
        statuses(gateway, "/", count).await.into_iter().filter(|status| *status == 200).count()
    };
    let mut total = passed(&gateways[0], 20).await;
    assert_eq!(total, 20);
    redis.signal("STOP");
    for gateway in &gateways {
        let alone = passed(gateway, 80).await;
        assert!(alone <= 51, "its share is fifty: {alone}");
        total += alone;
        is_shared(gateway, 0.0).await;
    }
    redis.signal("CONT");
    for gateway in &gateways {
        is_shared(gateway, 1.0).await;
    }
    for _ in 0..60 {
        for gateway in &gateways {
            total += passed(gateway, 1).await;
        }
    }
    let refilled = usize::try_from(begun.elapsed().as_secs() / 6).unwrap() + 1;
    assert!(total <= 100 + refilled, "{total} of 100 and {refilled}");
    assert!(total >= 80, "only {total} of 100");
}

#[tokio::test]
async fn a_request_of_several_policies_waits_once_for_a_server_that_does_not_answer() {
    let redis = Redis::start("s3cret").await;
    let provider = Backend::answering(|_| completion(12)).await;
    let both = "requestsPerMinute: 100, tokensPerMinute: 100000";
    let policies = [
        limits("of-all", "kind: Gateway, name: demo", both),
        on_route(both),
        limits("of-model", "kind: AIService, name: llm", both),
    ];
    let gateway = sharing_model(&redis.store("s3cret"), &provider, &policies).await;
    redis.signal("STOP");
    assert_eq!(gateway.ask(chat("hi", "")).await.status(), 200);
    let (waited, alone) = (decided(&gateway, "failed").await, decided(&gateway, "unasked").await);
    // None waits if the gateway has noticed before.
    assert!(waited <= 1.0 && waited + alone >= 4.0, "{waited} waited, {alone} did not");
    redis.signal("CONT");
}

#[tokio::test]
async fn tokens_that_a_model_used_count_for_all_gateways() {
    let redis = Redis::start("s3cret").await;
    let provider = Backend::answering(|request| {
        let is_chat = request.start.starts_with("POST");
        let prompt = is_chat.then(|| request.json()["messages"][0]["content"].as_str().unwrap().to_owned());
        match prompt.map(|prompt| prompt.parse()) {
            Some(Ok(tokens)) => completion(tokens),
            _ => "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_owned(),
        }
    })
    .await;
    let store = redis.store("s3cret");
    let policies = [on_route("tokensPerHour: 1000")];
    let one = sharing_model(&store, &provider, &policies).await;
    let two = sharing_model(&store, &provider, &policies).await;

    for _ in 0..5 {
        let failed = one.ask(chat("fail", r#""max_tokens":400,"#)).await;
        assert!(failed.status() >= 500, "what failed is not used: {failed:?}");
        eventually("what failed is given back", async || redis.used_of_an_hour("s3cret").await == 0).await;
    }
    assert_eq!(one.ask(chat("900", "")).await.status(), 200);
    // A token comes back in 3.6 s.
    eventually("it is told", async || (880..=900).contains(&redis.used_of_an_hour("s3cret").await)).await;
    let before = provider.seen().len();
    let refused = two.ask(chat("12", r#""max_tokens":400,"#)).await;
    assert_eq!((refused.status(), provider.seen().len()), (429, before), "{refused:?}");
    // What a call uses beyond what is left is owed, at whichever gateway.
    assert_eq!(two.ask(chat("600", r#""max_tokens":20,"#)).await.status(), 200);
    eventually("it is told", async || redis.used_of_an_hour("s3cret").await >= 1400).await;
    let refused = one.ask(chat("12", r#""max_tokens":20,"#)).await;
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(refused.status(), 429);
    assert!((1700..=2000).contains(&wait), "five hundred are owed: {wait}");
}

#[tokio::test]
async fn what_streams_used_that_are_cut_at_the_end_of_a_gateway_counts_for_the_others() {
    let redis = Redis::start("s3cret").await;
    let provider = unending_provider().await;
    let mut gateway = World::new()
        .manifest("llm", &ai_service("llm", "m", &provider))
        .route("web", &[rule("/v1", &to_ai("llm"))])
        .manifest("limits", &on_route("tokensPerHour: 100000"))
        .options(&["--ratelimit-store", &redis.store("s3cret"), "--drain-timeout", "100ms"])
        .start()
        .await;
    is_shared(&gateway, 1.0).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut wire = gateway.connect().await;
        wire.send(chat("hi", r#""stream":true,"max_tokens":4000,"#)).await;
        assert_eq!(wire.reply_head().await.status(), 200);
        streams.push(wire);
    }
    let reserved = redis.used_of_an_hour("s3cret").await;
    assert!(reserved > 300, "{reserved}");
    gateway.signal("TERM");
    assert_eq!(gateway.exit().await.code(), Some(0));
    let used = redis.used_of_an_hour("s3cret").await;
    assert!((1..100).contains(&used), "{used} of {reserved}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_and_gets_another_password_is_used_by_what_files_say() {
    let (files, tls) = (TempDir::new().unwrap(), Port::reserve());
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let certificate = Certificate::new(&["localhost"]);
    for (name, text) in [
        ("cert.pem", certificate.pem()),
        ("key.pem", certificate.key_pem()),
        ("password", "first\n".to_owned()),
    ] {
        fs::write(path(name), text).unwrap();
    }
    let redis = Redis::secured("first", files.path(), &tls).await;
    let store = format!("rediss://localhost:{}/0", tls.address().port());
    let [cert, key, password] = ["cert.pem", "key.pem", "password"].map(path);
    let options = [
        ["--ratelimit-store-ca", &cert],
        ["--ratelimit-store-cert", &cert],
        ["--ratelimit-store-key", &key],
        ["--ratelimit-store-password-file", &password],
        // A busy machine is no outage.
        ["--ratelimit-store-timeout", "5s"],
    ];
    let backend = Backend::echo("a").await;
    let gateway =
        sharing_with(&store, options.as_flattened(), &backend, "requestsPerMinute: 1, burst: 10").await;
    is_shared(&gateway, 1.0).await;
    assert_eq!(statuses(&gateway, "/", 3).await, [200; 3]);

    redis.configure("first", "requirepass second").await;
    redis.disconnect("second").await;
    is_shared(&gateway, 0.0).await;
    eventually("it is logged", async || gateway.log.count("the credentials are refused") > 0).await;
    fs::write(&password, "second\n").unwrap();
    is_shared(&gateway, 1.0).await;
    let answered = statuses(&gateway, "/", 10).await;
    assert_eq!(answered[9], 429, "the server still knows of the three: {answered:?}");
    assert!(!gateway.log.text().contains("second"));
}
