//! Endpoints that are slow, killed, and brought back, and sets that change all the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::{Backend, Running, World, eventually, rule, service, to};

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

/// A backend that answers after `delay`, and breaks every connection while it is dead.
async fn mortal(delay: Duration) -> (Backend, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (dead, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (is_dead, count) = (Arc::clone(&dead), Arc::clone(&asked));
    let backend = Backend::raw(move |mut wire| {
        let (dead, asked) = (Arc::clone(&is_dead), Arc::clone(&count));
        async move {
            while !dead.load(Relaxed)
                && let Ok(_) = wire.message().await
            {
                asked.fetch_add(1, Relaxed);
                sleep(delay).await;
                if dead.load(Relaxed) {
                    return;
                }
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    (backend, dead, asked)
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
async fn a_backend_five_times_slower_does_not_slow_the_others_down() {
    const USUAL: Duration = Duration::from_millis(50);
    let fast = [mortal(USUAL).await, mortal(USUAL).await, mortal(USUAL).await];
    let slow = mortal(USUAL * 5).await;
    let run = async |backends: &[&Backend]| {
        let gateway = World::new()
            .service("a", backends)
            .manifest("policy", &policy("loadBalancing: {type: LeastRequest}"))
            .route("a", &[rule("/", &to("a"))])
            .start()
            .await;
        let load = Load::start(&gateway, 24).await;
        sleep(Duration::from_secs(2)).await;
        let (took, failed) = load.stop().await;
        assert_eq!((failed, in_flight(&gateway).await), (0, 0));
        took
    };
    let of_three = run(&[&fast[0].0, &fast[1].0, &fast[2].0]).await;
    let served = slow.2.load(Relaxed);
    let of_four = run(&[&fast[0].0, &fast[1].0, &fast[2].0, &slow.0]).await;
    let by_slow = slow.2.load(Relaxed) - served;
    // By turns it would have a quarter of them.
    assert!(by_slow * 6 < of_four.len(), "{by_slow} of {}", of_four.len());
    let median = |sorted: &[Duration]| sorted[sorted.len() / 2];
    assert!(
        median(&of_four) <= median(&of_three) * 2,
        "{:?} after {:?}",
        median(&of_four),
        median(&of_three)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backend_fails_what_it_had_and_with_retry_nothing() {
    const CLIENTS: usize = 16;
    let delay = Duration::from_millis(5);
    let some = [mortal(delay).await, mortal(delay).await, mortal(delay).await, mortal(delay).await];
    for (retry, most) in [("", CLIENTS + 5), ("retry: {attempts: 3, backoff: 1ms}, ", 0)] {
        let backends = some.each_ref().map(|(backend, ..)| backend);
        let gateway = World::new()
            .service("a", &backends)
            .route("a", &[rule("/", &format!("{retry}{}", to("a")))])
            .start()
            .await;
        let load = Load::start(&gateway, CLIENTS).await;
        sleep(Duration::from_millis(500)).await;
        let (killed, dead, _) = &some[1];
        dead.store(true, Relaxed);
        let series =
            format!("nantian_endpoint_healthy{{backend=\"demo/a:80\",endpoint=\"{}\"}}", killed.address);
        eventually("it is ejected", async || gateway.metric(&series).await == Some(0.0)).await;
        eventually("it is left alone", async || {
            let connections = killed.connections();
            sleep(Duration::from_millis(200)).await;
            killed.connections() == connections
        })
        .await;
        let (took, failed) = load.stop().await;
        assert!(failed <= most, "{failed} of {} failed", took.len());
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
        dead.store(false, Relaxed);
    }
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
    let session = "sessionPersistence: {sessionName: stay}";
    let gateway = World::new()
        .service("a", &set(0))
        .manifest("policy", &policy(session))
        .route("a", &[rule("/", &to("a"))])
        .start()
        .await;
    // A session with the endpoint that is in every set.
    let (mut cookie, mut tries) = (None, 0);
    while cookie.is_none() {
        let reply = gateway.get("/").await;
        let token = reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        cookie = Some(token).filter(|_| reply.header("x-backend") == Some("b"));
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
        assert_eq!(wire.ask(&request).await.header("x-backend"), Some("b"), "the session stays");
        let due = Duration::from_millis(10) * (u32::try_from(at).unwrap() + 1);
        sleep(due.saturating_sub(begun.elapsed())).await;
    }
    let (took, failed) = load.stop().await;
    assert_eq!(failed, 0, "of {}", took.len());
    eventually("nothing is in flight", async || in_flight(&gateway).await == 0).await;
}
