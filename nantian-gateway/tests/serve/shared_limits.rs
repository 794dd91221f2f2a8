//! TokenPolicies whose limits several gateways share.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{
    Backend, Message, Port, Redis, Running, World, eventually,
    limits::{on_route, statuses},
    rule, to,
};

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
        let failed = gateway.metric("nantian_rate_limit_store_decisions_total{how=\"failed\"}").await;
        late += failed.unwrap();
    }
    // What the server answers too late is decided by what one gateway has seen, and may be charged twice.
    let within = 20.0 - late..=(20 + refilled) as f64 + late;
    assert!(within.contains(&(passed as f64)), "{passed} of 60 in {elapsed:?}, {late} of them late");
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
        late += gateway.metric("nantian_rate_limit_store_decisions_total{how=\"failed\"}").await.unwrap();
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
    let gateway = World::new()
        .service("a", &[&backend])
        .route("web", &[rule("/", &to("a"))])
        .manifest("limits", &on_route("requestsPerMinute: 2"))
        .options(&["--ratelimit-store", &store, "--ratelimit-replicas", "2"])
        .start()
        .await;
    assert_eq!(statuses(&gateway, "/", 2).await, [200, 429]);
    is_shared(&gateway, 0.0).await;
    eventually("its status says so", async || status(&gateway).await.ends_with(AWAY)).await;
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
