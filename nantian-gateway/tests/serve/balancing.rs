//! Endpoints that are slow, killed, and brought back, and sets that change all the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};

use crate::support::{Backend, Running, World, eventually, lb_policy, route, rule, service, to};

/// Clients who ask one request after the other, until they are stopped.
struct Load {
    seen: Arc<Seen>,
    clients: JoinSet<()>,
}

/// What they see.
#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    answered: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    async fn start(gateway: &Running, clients: usize) -> Self {
        let (seen, mut tasks) = (Arc::<Seen>::default(), JoinSet::new());
        for _ in 0..clients {
            let (seen, mut wire) = (Arc::clone(&seen), gateway.connect().await);
            tasks.spawn(async move {
                while !seen.is_over.load(Relaxed) {
                    let is_failure = wire.get("/").await.status() != 200;
                    seen.failed.fetch_add(usize::from(is_failure), Relaxed);
                    seen.answered.fetch_add(1, Relaxed);
                }
            });
        }
        Self { seen, clients: tasks }
    }

    /// Waits until so many more requests are answered.
    async fn goes_on(&self, requests: usize) {
        let before = self.seen.answered.load(Relaxed);
        eventually("they are answered", async || self.seen.answered.load(Relaxed) >= before + requests).await;
    }

    /// How many requests failed.
    async fn stop(self) -> usize {
        self.seen.is_over.store(true, Relaxed);
        self.clients.join_all().await;
        self.seen.failed.load(Relaxed)
    }
}

async fn in_flight(gateway: &Running) -> u64 {
    let config = gateway.config().await;
    let endpoints = config["endpoints"]["demo/a:80"].as_array().unwrap();
    endpoints.iter().map(|endpoint| endpoint["inFlight"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_still_busy_is_passed_over_while_others_are_idle() {
    let asked = Arc::<AtomicUsize>::default();
    let (release, released) = watch::channel(false);
    let count = Arc::clone(&asked);
    let busy = Backend::raw(move |mut wire| {
        let (count, mut released) = (Arc::clone(&count), released.clone());
        async move {
            while wire.message().await.is_ok() {
                count.fetch_add(1, Relaxed);
                released.wait_for(|is_released| *is_released).await.unwrap();
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let idle = [Backend::echo("a").await, Backend::echo("b").await, Backend::echo("c").await];
    let gateway = World::new()
        .service("a", &[&idle[0], &idle[1], &idle[2], &busy])
        .manifest("policy", &lb_policy("a", "loadBalancing: {type: LeastRequest}"))
        .route("a", &[rule("/", &to("a"))])
        .start()
        .await;
    // Of endpoints that are all idle it is asked, sooner or later.
    let first = Load::start(&gateway, 1).await;
    eventually("it is asked", async || asked.load(Relaxed) == 1).await;
    let others = Load::start(&gateway, 1).await;
    others.goes_on(500).await;
    assert_eq!(asked.load(Relaxed), 1);
    release.send_replace(true);
    first.goes_on(1).await;
    eventually("it is asked again", async || asked.load(Relaxed) > 1).await;
    assert_eq!((first.stop().await, others.stop().await), (0, 0));
    eventually("nothing is in flight", async || in_flight(&gateway).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backend_fails_what_it_had_and_with_retry_nothing() {
    const CLIENTS: usize = 16;
    let delay = Duration::from_millis(5);
    for retry in ["", "retry: {attempts: 3, backoff: 1ms}, "] {
        let (a, b, c) =
            (Backend::mortal(delay).await, Backend::mortal(delay).await, Backend::mortal(delay).await);
        let (killed, mut process) = Backend::mortal(delay).await;
        let gateway = World::new()
            .service("a", &[&a.0, &b.0, &c.0, &killed])
            .route("a", &[rule("/", &format!("{retry}{}", to("a")))])
            .start()
            .await;
        let load = Load::start(&gateway, CLIENTS).await;
        // Retries are a part of the requests, so there have to be some.
        load.goes_on(50 * CLIENTS).await;
        process.kill().await;
        let series =
            format!("nantian_endpoint_healthy{{backend=\"demo/a:80\",endpoint=\"{}\"}}", killed.address);
        eventually("it is ejected", async || gateway.metric(&series).await == Some(0.0)).await;
        process.revive();
        load.goes_on(50 * CLIENTS).await;
        assert_eq!(process.asked(), 0, "it is left alone until its time is over");
        let failed = load.stop().await;
        // Each client had at most one request there, and no other one fails.
        let most = if retry.is_empty() { CLIENTS } else { 0 };
        assert!(failed <= most, "{failed} failed");
        let ejections = series.replace("healthy", "ejections_total");
        assert_eq!(gateway.metric(&ejections).await, Some(1.0));
        let config = gateway.config().await;
        let endpoints = config["endpoints"]["demo/a:80"].as_array().unwrap();
        let address = killed.address.to_string();
        let shown = endpoints.iter().find(|endpoint| endpoint["address"] == *address).unwrap();
        assert_eq!(
            (&shown["health"], &shown["ejections"], &shown["inFlight"]),
            (&"Ejected".into(), &1.into(), &0.into())
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_late_is_ejected_and_one_that_clients_leave_is_not() {
    // Nobody gets an answer.
    let silent = Backend::raw(|mut wire| async move { while wire.message().await.is_ok() {} }).await;
    let echo = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&silent, &echo])
        .route(
            "a",
            &[
                rule("/late", &format!("timeouts: {{backendRequest: 400ms}}, {}", to("a"))),
                rule("/left", &to("a")),
            ],
        )
        .start()
        .await;
    let series =
        format!("nantian_endpoint_ejections_total{{backend=\"demo/a:80\",endpoint=\"{}\"}}", silent.address);
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = gateway.connect().await;
        wire.send("GET /left HTTP/1.1\r\nHost: h\r\n\r\n").await;
        wires.push(wire);
    }
    // More than the failures in a row that would be too many.
    eventually("some wait", async || in_flight(&gateway).await > 5).await;
    drop(wires);
    eventually("they are gone", async || in_flight(&gateway).await == 0).await;
    assert_eq!(gateway.metric(&series).await, Some(0.0));
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(gateway.get("/late").await.status());
    }
    assert_eq!(statuses.iter().filter(|&&status| status == 504).count(), 5, "{statuses:?}");
    assert_eq!(gateway.metric(&series).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_that_change_all_the_time_fail_no_request_and_lose_no_count() {
    let backends = [Backend::echo("a").await, Backend::echo("b").await, Backend::echo("c").await];
    let set = |at: usize| {
        let all = backends.each_ref();
        match at % 3 {
            0 => all.to_vec(),
            1 => vec![all[0], all[1]],
            _ => vec![all[1], all[2]],
        }
    };
    // The backend of the session has any weight, and none.
    let split = |at: usize| {
        let weight = [50, 1, 0, 99][at % 4];
        let backends = format!("{{name: a, port: 80, weight: {weight}}}, {{name: b, port: 80, weight: 3}}");
        rule("/", &format!("backendRefs: [{backends}]"))
    };
    let session = "sessionPersistence: {sessionName: stay}";
    let gateway = World::new()
        .service("a", &set(0))
        .manifest("policy", &lb_policy("a", session))
        .service("b", &[&backends[0]])
        .route("a", &[split(0)])
        .start()
        .await;
    // A session with the endpoint that is in every set.
    let (mut cookie, mut tries) = (None, 0);
    while cookie.is_none() {
        let reply = gateway.get("/").await;
        let token = reply.header("set-cookie").and_then(|set| set.split(';').next()).map(str::to_owned);
        cookie = token.filter(|_| reply.header("x-backend") == Some("b"));
        tries += 1;
        assert!(tries < 100);
    }
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\nCookie: {}\r\n\r\n", cookie.unwrap());
    let load = Load::start(&gateway, 8).await;
    let mut wire = gateway.connect().await;
    for at in 0..20 {
        let strategy = ["LeastRequest", "Random"][at % 2];
        gateway
            .edit_all(&[
                ("policy", lb_policy("a", &format!("{session}, loadBalancing: {{type: {strategy}}}"))),
                ("service-a", service("a", "http", &set(at))),
                ("route-a", route("a", "", &[split(at)])),
            ])
            .await;
        for _ in 0..10 {
            assert_eq!(wire.ask(&request).await.header("x-backend"), Some("b"), "the session stays");
        }
    }
    assert_eq!(load.stop().await, 0);
    eventually("nothing is in flight", async || in_flight(&gateway).await == 0).await;
}
