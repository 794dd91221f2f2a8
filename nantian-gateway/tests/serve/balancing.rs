//! Endpoints that are slow, killed, and brought back, and sets that change all the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::{Backend, Running, World, eventually, route, rule, service, to};

/// A BackendLBPolicy on the Service `a`.
fn policy(spec: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: BackendLBPolicy
metadata: {{name: a, namespace: demo}}
spec: {{targetRefs: [{{group: '', kind: Service, name: a}}], {spec}}}
"
    )
}

/// What `clients` see who ask one request after the other, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<(Vec<Duration>, usize)>,
}

impl Load {
    async fn start(gateway: &Running, clients: usize) -> Self {
        let (stop, mut tasks) = (Arc::<AtomicBool>::default(), JoinSet::new());
        for _ in 0..clients {
            let (stop, mut wire) = (Arc::clone(&stop), gateway.connect().await);
            tasks.spawn(async move {
                let (mut took, mut failed) = (Vec::new(), 0);
                while !stop.load(Relaxed) {
                    let begun = Instant::now();
                    failed += usize::from(wire.get("/").await.status() != 200);
                    took.push(begun.elapsed());
                }
                (took, failed)
            });
        }
        Self { stop, clients: tasks }
    }

    /// How long the requests took, in order, and how many failed.
    async fn stop(mut self) -> (Vec<Duration>, usize) {
        self.stop.store(true, Relaxed);
        let (mut all, mut failures) = (Vec::new(), 0);
        while let Some(client) = self.clients.join_next().await {
            let (took, failed) = client.unwrap();
            all.extend(took);
            failures += failed;
        }
        all.sort();
        (all, failures)
    }
}

async fn in_flight(gateway: &Running) -> u64 {
    let config = gateway.config().await;
    let endpoints = config["endpoints"]["demo/a:80"].as_array().unwrap();
    endpoints.iter().map(|endpoint| endpoint["inFlight"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_five_times_slower_gets_few_requests_while_others_have_room() {
    const USUAL: Duration = Duration::from_millis(50);
    let fast = [Backend::mortal(USUAL).await, Backend::mortal(USUAL).await, Backend::mortal(USUAL).await];
    let slow = Backend::mortal(USUAL * 5).await;
    let gateway = World::new()
        .service("a", &[&fast[0].0, &fast[1].0, &fast[2].0, &slow.0])
        .manifest("policy", &policy("loadBalancing: {type: LeastRequest}"))
        .route("a", &[rule("/", &to("a"))])
        .start()
        .await;
    // By turns it would have a quarter of them; those clients that it holds up ask less often.
    for (clients, share) in [(2, 10), (24, 8)] {
        let before = slow.1.asked();
        let load = Load::start(&gateway, clients).await;
        sleep(Duration::from_secs(3)).await;
        let (took, failed) = load.stop().await;
        let by_slow = slow.1.asked() - before;
        assert_eq!(failed, 0);
        eventually("nothing is in flight", async || in_flight(&gateway).await == 0).await;
        assert!(by_slow * share < took.len(), "{clients} clients: {by_slow} of {}", took.len());
    }
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
        sleep(Duration::from_millis(500)).await;
        let had = process.kill().await;
        let series =
            format!("nantian_endpoint_healthy{{backend=\"demo/a:80\",endpoint=\"{}\"}}", killed.address);
        eventually("it is ejected", async || gateway.metric(&series).await == Some(0.0)).await;
        process.revive();
        sleep(Duration::from_millis(500)).await;
        assert_eq!(process.asked(), 0, "it is left alone until its time is over");
        let (took, failed) = load.stop().await;
        let most = if retry.is_empty() { had } else { 0 };
        assert!(failed <= most, "{failed} of {} failed, {had} were there", took.len());
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
    for _ in 0..20 {
        let mut wire = gateway.connect().await;
        wire.send("GET /left HTTP/1.1\r\nHost: h\r\n\r\n").await;
        sleep(Duration::from_millis(20)).await;
    }
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
async fn a_hundred_sets_a_second_fail_no_request_and_lose_no_count() {
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
        .manifest("policy", &policy(session))
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
    let begun = Instant::now();
    for at in 0..200 {
        let policies = ["loadBalancing: {type: LeastRequest}", "loadBalancing: {type: Random}"];
        gateway.replace("policy", &policy(&format!("{session}, {}", policies[at % 2])));
        gateway.replace("service-a", &service("a", "http", &set(at)));
        gateway.replace("route-a", &route("a", "", &[split(at)]));
        assert_eq!(wire.ask(&request).await.header("x-backend"), Some("b"), "the session stays");
        let due = Duration::from_millis(10) * (u32::try_from(at).unwrap() + 1);
        sleep(due.saturating_sub(begun.elapsed())).await;
    }
    let (took, failed) = load.stop().await;
    assert_eq!(failed, 0, "of {}", took.len());
    eventually("nothing is in flight", async || in_flight(&gateway).await == 0).await;
}

/// An ejection lasts 30 s, a slow start 10 s, by the clock of the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn a_backend_that_is_back_is_given_its_share_gradually() {
    let delay = Duration::from_millis(2);
    let (a, b, c) =
        (Backend::mortal(delay).await, Backend::mortal(delay).await, Backend::mortal(delay).await);
    let (killed, mut process) = Backend::mortal(delay).await;
    let gateway = World::new()
        .service("a", &[&a.0, &b.0, &c.0, &killed])
        .route("a", &[rule("/", &to("a"))])
        .start()
        .await;
    let percent = async || {
        let config = gateway.config().await;
        let endpoints = config["endpoints"]["demo/a:80"].as_array().unwrap().clone();
        let address = killed.address.to_string();
        let shown = endpoints.into_iter().find(|endpoint| endpoint["address"] == *address).unwrap();
        let percent = usize::try_from(shown["weightPercent"].as_u64().unwrap()).unwrap();
        (shown["health"].as_str().unwrap().to_owned(), percent)
    };
    let load = Load::start(&gateway, 8).await;
    sleep(Duration::from_millis(200)).await;
    process.kill().await;
    eventually("it is ejected", async || percent().await.0 == "Ejected").await;
    process.revive();
    let begun = Instant::now();
    while percent().await.0 != "Healthy" {
        assert!(begun.elapsed() < Duration::from_secs(40));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(28), "{:?}", begun.elapsed());
    let mut shown = Vec::new();
    for _ in 0..4 {
        let (before, first) = ([process.asked(), a.1.asked()], percent().await.1);
        sleep(Duration::from_secs(2)).await;
        let (after, last) = ([process.asked(), a.1.asked()], percent().await.1);
        let share = (after[0] - before[0]) * 100 / (after[1] - before[1]);
        let is_between = share + 3 >= first && share <= last + 3;
        assert!(is_between, "{share} % between {first} and {last}");
        shown.push(last);
    }
    assert!(shown.is_sorted() && shown[0] < 40, "{shown:?}");
    eventually("it has its share", async || percent().await.1 == 100).await;
    let (_, failed) = load.stop().await;
    println!("{shown:?} %, {failed} failed");
}
