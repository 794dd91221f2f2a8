//! What happens when the server does not answer, and when it does again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use nantian_ratelimit::redis::{OnOutage, RedisStore, RedisUrl, StoreFault, Verdict};
use nantian_ratelimit::respond::{DialectResponder, Refusal, Responder};
use nantian_ratelimit::{Cost, Limit, RateLimitLayer, ScopeValues, Settlement, Unavailable};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};

use crate::server::{Replica, Server, TIMEOUT, admit, admitted, eventually, policy, reaches};

#[tokio::test]
async fn an_outage_begins_where_the_server_left_off_and_ends_without_a_burst() {
    let mut server = Server::start().await;
    let replica = server.replica_that(OnOutage::Local, Some(2)).await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(100)]));
    assert_eq!(admitted(&limiter, "alice", 30).await, 30);
    server.kill();
    replica.is_reachable(false).await;
    assert_eq!(admitted(&limiter, "alice", 100).await, 20, "the share is 50, of which 30 are used");
    server.restart().await;
    replica.is_reachable(true).await;
    // The server has forgotten the thirty, but is told of the twenty.
    assert_eq!(admitted(&limiter, "alice", 200).await, 80);
    assert_eq!(admitted(&limiter, "bob", 200).await, 100);
}

#[tokio::test]
async fn what_passed_in_an_outage_is_told_though_its_key_comes_back_elsewhere() {
    let mut server = Server::start().await;
    let one = server.replica_that(OnOutage::Local, Some(2)).await;
    let two = server.replica_that(OnOutage::Local, Some(2)).await;
    let [first, second] =
        [&one, &two].map(|replica| replica.store.limiter("quota", policy([Limit::requests_per_day(100)])));
    server.kill();
    one.is_reachable(false).await;
    two.is_reachable(false).await;
    assert_eq!(admitted(&first, "alice", 100).await, 50);
    server.restart().await;
    one.is_reachable(true).await;
    two.is_reachable(true).await;
    reaches(&second, "alice", &[50]).await;
    assert_eq!(admitted(&second, "alice", 100).await, 50);
    assert_eq!(admitted(&first, "alice", 100).await, 0, "and it is told once");
}

#[tokio::test]
async fn a_call_larger_than_a_share_passes_beside_small_ones_and_all_of_it_counts_afterwards() {
    let mut server = Server::start().await;
    let replica = server.replica_that(OnOutage::Local, Some(4)).await;
    let limiter = replica.store.limiter("quota", policy([Limit::tokens_per_day(1000)]));
    server.kill();
    replica.is_reachable(false).await;
    admit(&limiter, "alice", Cost::tokens(10)).await.unwrap();
    let large = admit(&limiter, "alice", Cost::tokens(600)).await.unwrap();
    assert_eq!(large.levels().tightest().unwrap().remaining, 0);
    let denied = admit(&limiter, "alice", Cost::tokens(600)).await.unwrap_err();
    let days = denied.retry_after().unwrap().as_secs_f64() / 86_400.0;
    // Of the share of 250 it wants more than half: all but 124 of 610 refill first.
    assert!((1.94..1.95).contains(&days), "{days}");
    large.settle(Settlement::Used(900));
    server.restart().await;
    replica.is_reachable(true).await;
    reaches(&limiter, "alice", &[1000 - 910]).await;
}

#[tokio::test]
async fn what_the_server_admitted_of_a_call_larger_than_a_share_is_known_in_an_outage() {
    let mut server = Server::start().await;
    let replica = server.replica_that(OnOutage::Local, Some(4)).await;
    let limiter = replica.store.limiter("quota", policy([Limit::tokens_per_day(1000)]));
    admit(&limiter, "alice", Cost::tokens(10)).await.unwrap();
    admit(&limiter, "alice", Cost::tokens(600)).await.unwrap();
    server.kill();
    replica.is_reachable(false).await;
    assert!(admit(&limiter, "alice", Cost::tokens(1)).await.is_err(), "its share is used up");
    server.restart().await;
    replica.is_reachable(true).await;
    reaches(&limiter, "alice", &[1000]).await;
}

/// What was used before refills on the server meanwhile, and what was used meanwhile must not refill as well.
#[tokio::test]
async fn what_refills_in_an_outage_is_admitted_once() {
    let server = Server::start().await;
    let replica = server.hasty_replica(Some(1)).await;
    let limiter = replica.store.limiter("quota", policy([Limit::tokens_per_minute(60_000)]));
    let begun = Instant::now();
    let mut used = 60_000;
    admit(&limiter, "alice", Cost::tokens(used)).await.unwrap();
    server.freeze();
    let mut ask = async || match admit(&limiter, "alice", Cost::tokens(10)).await {
        Ok(_) => used += 10,
        Err(_) => sleep(Duration::from_millis(5)).await,
    };
    while replica.store.status().unasked < 400 {
        ask().await;
    }
    server.thaw();
    replica.is_reachable(true).await;
    for _ in 0..200 {
        ask().await;
    }
    let refilled = begun.elapsed().as_secs_f64() * 1000.0;
    assert!(used as f64 <= 60_010.0 + refilled, "{used} of a bucket and {refilled}");
}

#[tokio::test]
async fn a_frozen_server_costs_a_few_timeouts_then_nothing() {
    let server = Server::start().await;
    let replica = server.hasty_replica(Some(1)).await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(10_000)]));
    assert_eq!(admitted(&limiter, "alice", 10).await, 10);
    server.freeze();
    let before = replica.store.status();
    let mut waits = Vec::new();
    for _ in 0..1000 {
        let begun = Instant::now();
        assert!(admit(&limiter, "alice", Cost::REQUEST).await.is_ok());
        waits.push(begun.elapsed());
    }
    waits.sort_unstable();
    // How long exactly is a measurement, in `measure.rs`; a machine that is busy makes anybody wait.
    assert!(waits[999] < Duration::from_secs(5), "none waits for the server: {:?}", waits[999]);
    assert!(waits[500] < TIMEOUT, "most do not even wait for the timeout: {:?}", waits[500]);
    let after = replica.store.status();
    let (waited, alone) = (after.failures - before.failures, after.unasked - before.unasked);
    assert!(waited <= 5 && waited + alone == 1000, "five open the breaker: {waited} waited, {alone} did not");

    server.thaw();
    replica.is_reachable(true).await;
    let seen = admit(&limiter, "alice", Cost::REQUEST).await.unwrap();
    let used = 10_000 - seen.levels().tightest().unwrap().remaining;
    assert!(
        (1011..=1016).contains(&used),
        "what passed meanwhile counts, and what was late may count twice: {used}"
    );
}

#[tokio::test]
async fn an_outage_may_let_everything_pass_or_nothing() {
    let mut server = Server::start().await;
    let open = server.replica_that(OnOutage::Open, None).await;
    let closed = server.replica_that(OnOutage::Closed, None).await;
    let (open_limiter, closed_limiter) = (
        open.store.limiter("quota", policy([Limit::requests_per_day(1)])),
        closed.store.limiter("quota", policy([Limit::requests_per_day(1)])),
    );
    server.kill();
    open.is_reachable(false).await;
    closed.is_reachable(false).await;
    for _ in 0..3 {
        let key = open_limiter.key(b"alice");
        assert!(matches!(open_limiter.admit(key, Cost::REQUEST).await, Verdict::Unchecked));
        let key = closed_limiter.key(b"alice");
        assert!(matches!(closed_limiter.admit(key, Cost::REQUEST).await, Verdict::Unavailable(_)));
    }
}

/// What a proxy of callbacks answers is what the layer answers.
#[tokio::test]
async fn the_core_answers_an_outage_as_the_layer_does() {
    let url = "redis://127.0.0.1:1/0".parse().unwrap();
    let (store, _driver) = RedisStore::builder(url).on_outage(OnOutage::Closed).build();
    let limiter = store.limiter("quota", policy([Limit::requests_per_day(1)]));
    let (request, ()) = Request::post("/v1/messages").body(()).unwrap().into_parts();
    let key = limiter.key_of(&ScopeValues::new(), &request).unwrap().unwrap();
    let verdict = limiter.admit(key, Cost::REQUEST).await;
    let Verdict::Unavailable(unavailable) = verdict else { panic!("{verdict:?}") };
    let mut by_core = DialectResponder.respond(Refusal::Unavailable(&unavailable), &request);
    unavailable.write_fields(by_core.headers_mut());

    let service = RateLimitLayer::shared(limiter).layer(service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let by_layer = service.oneshot(Request::from_parts(request, ())).await.unwrap();
    assert_eq!((by_core.status(), by_core.headers()), (by_layer.status(), by_layer.headers()));
    assert_eq!((by_layer.status().as_u16(), by_layer.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    assert!(by_layer.extensions().get::<Unavailable>().is_some());
}

#[tokio::test]
async fn settlements_of_an_outage_count_afterwards() {
    let mut server = Server::start().await;
    let replica = server.replica_that(OnOutage::Local, Some(1)).await;
    let tokens = Limit::tokens_per_day(1000);
    let limiter = replica.store.limiter("quota", policy([tokens]));
    let before = admit(&limiter, "alice", Cost::tokens(100)).await.unwrap();
    server.kill();
    replica.is_reachable(false).await;
    let meanwhile = admit(&limiter, "alice", Cost::tokens(100)).await.unwrap();
    before.settle(Settlement::Used(150));
    meanwhile.settle(Settlement::Used(20));
    server.restart().await;
    replica.is_reachable(true).await;
    let seen = admit(&limiter, "alice", Cost::tokens(0)).await.unwrap();
    // The server has forgotten the first hundred; fifty more and twenty were used while it was away.
    assert_eq!(seen.levels().tightest().unwrap().remaining, 930);
}

#[tokio::test]
async fn what_is_settled_in_a_moment_of_silence_counts_once() {
    let server = Server::start().await;
    // The moment is shorter than what a settlement waits, on a busy machine too.
    let builder = RedisStore::builder(server.url()).replicas(1).connect_timeout(Duration::from_secs(10));
    let (store, driver) = builder.command_timeout(TIMEOUT).build();
    let replica = Replica::new(store, driver);
    replica.is_reachable(true).await;
    let tokens = Limit::tokens_per_day(1000);
    let limiter = replica.store.limiter("quota", policy([tokens]));
    let reservation = admit(&limiter, "alice", Cost::tokens(100)).await.unwrap();
    server.freeze();
    reservation.settle(Settlement::Used(150));
    sleep(TIMEOUT * 2).await;
    server.thaw();
    replica.is_reachable(true).await;
    reaches(&limiter, "alice", &[850]).await;
    // What comes after it is told in order, and so is what was not delivered.
    admit(&limiter, "bob", Cost::tokens(100)).await.unwrap().settle(Settlement::Used(50));
    reaches(&limiter, "bob", &[950]).await;
    reaches(&limiter, "alice", &[850]).await;
}

#[tokio::test]
async fn what_an_outage_was_charged_too_much_comes_back_though_it_was_reported() {
    let mut server = Server::start().await;
    let replica = server.replica_that(OnOutage::Local, Some(1)).await;
    let tokens = Limit::tokens_per_day(1000);
    let limiter = replica.store.limiter("quota", policy([tokens, Limit::requests_per_day(10)]));
    server.kill();
    replica.is_reachable(false).await;
    let [settled, cancelled, late] = [
        admit(&limiter, "alice", Cost::tokens(300)).await.unwrap(),
        admit(&limiter, "alice", Cost::tokens(200)).await.unwrap(),
        admit(&limiter, "alice", Cost::tokens(100)).await.unwrap(),
    ];
    server.restart().await;
    replica.is_reachable(true).await;
    reaches(&limiter, "alice", &[400, 7]).await;
    settled.settle(Settlement::Used(20));
    reaches(&limiter, "alice", &[680, 7]).await;
    cancelled.cancel();
    reaches(&limiter, "alice", &[880, 8]).await;
    late.settle(Settlement::Used(150));
    reaches(&limiter, "alice", &[830, 8]).await;
}

#[tokio::test]
async fn it_is_told_why_the_server_is_away() {
    let mut server = Server::start().await;
    let replica = server.hasty_replica(None).await;
    assert_eq!(replica.store.status().fault, None);
    let url = server.url().to_string().replace("redis://", "redis://:wrong@").parse().unwrap();
    let (stranger, driver) = RedisStore::builder(url).connect_timeout(Duration::from_secs(10)).build();
    let driver = tokio::spawn(driver.run());
    eventually(|| stranger.status().fault == Some(StoreFault::Credentials)).await;
    assert!(!format!("{:?}", stranger.status()).contains("wrong"));
    driver.abort();
    server.freeze();
    eventually(|| replica.store.status().fault == Some(StoreFault::Timeout)).await;
    server.thaw();
    eventually(|| replica.store.status().fault.is_none()).await;
    server.kill();
    eventually(|| replica.store.status().fault == Some(StoreFault::Connect)).await;
}

#[test]
fn a_store_says_that_its_driver_is_gone() {
    let (store, driver) = RedisStore::builder("redis://127.0.0.1:1".parse().unwrap()).build();
    assert_eq!(store.status().fault, None);
    drop(driver);
    assert_eq!(store.status().fault, Some(StoreFault::NoDriver));
}

#[tokio::test]
async fn a_key_outlives_connections() {
    let mut server = Server::start().await;
    let replica = server.replica_that(OnOutage::Local, Some(1)).await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(100)]));
    let before = limiter.key(b"alice");
    server.kill();
    replica.is_reachable(false).await;
    let meanwhile = limiter.key(b"alice");
    server.restart().await;
    replica.is_reachable(true).await;
    let failures = replica.store.status().failures;
    for (key, left) in [(before, 99), (meanwhile, 98), (limiter.key(b"alice"), 97)] {
        let Verdict::Admitted(reservation) = limiter.admit(key, Cost::REQUEST).await else { panic!() };
        assert_eq!(reservation.levels().tightest().unwrap().remaining, left);
    }
    assert_eq!(server.calls("evalsha").await, 3, "the server was asked each time");
    assert_eq!(replica.store.status().failures, failures);
}

#[tokio::test]
async fn a_limiter_works_before_the_server_does() {
    let mut server = Server::start().await;
    let url = server.url();
    server.kill();
    let (store, driver) = RedisStore::builder(url).build();
    let driver = tokio::spawn(driver.run());
    let limiter = store.limiter("quota", policy([Limit::requests_per_day(10)]));
    assert_eq!(admitted(&limiter, "alice", 15).await, 10);
    assert_eq!(store.status().failures, 0, "nobody waits for what was never there");
    assert_eq!(store.status().replicas, None, "nobody has told");
    server.restart().await;
    eventually(|| store.status().is_reachable).await;
    assert_eq!(store.status().replicas, Some(1));
    assert_eq!(admitted(&limiter, "alice", 15).await, 0, "what was used counts");
    driver.abort();
    eventually(|| !store.status().is_reachable).await;
}

#[tokio::test]
async fn what_was_used_before_the_server_was_met_counts_though_many_share_the_limit() {
    let server = Server::start().await;
    let mut others = Vec::new();
    for _ in 0..9 {
        others.push(server.replica().await);
    }
    let (store, driver) = RedisStore::builder(server.url()).command_timeout(Duration::from_secs(5)).build();
    let limiter = store.limiter("quota", policy([Limit::requests_per_day(100)]));
    assert_eq!(admitted(&limiter, "alice", 90).await, 90, "it knows of no others yet");
    let late = Replica::new(store, driver);
    late.is_reachable(true).await;
    late.knows(10).await;
    // Its share is ten now.
    reaches(&limiter, "alice", &[10]).await;
    reaches(&others[0].store.limiter("quota", policy([Limit::requests_per_day(100)])), "alice", &[10]).await;
}

/// What comes from `one` goes to `other` after some time.
async fn carry(mut one: impl AsyncReadExt + Unpin, mut other: impl AsyncWriteExt + Unpin, delay: Duration) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = one.read(&mut bytes).await {
        sleep(delay).await;
        if other.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// An address of the server to which everything takes this long, and back again.
async fn far_away(server: &Server, delay: Duration) -> RedisUrl {
    let (listener, port) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), server.port());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (from_client, to_client) = client.into_split();
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(carry(from_client, to_server, delay));
            tokio::spawn(carry(from_server, to_client, delay));
        }
    });
    format!("redis://{address}/0").parse().unwrap()
}

#[tokio::test]
async fn a_server_that_is_too_far_away_for_decisions_is_said_to_be_and_tells_how_many_replicas_there_are() {
    let server = Server::start().await;
    let _near = server.replica().await;
    let url = far_away(&server, Duration::from_millis(50)).await;
    let store = || RedisStore::builder(url.clone()).connect_timeout(Duration::from_secs(10));
    let (store_of_hasty, driver) = store().command_timeout(Duration::from_millis(20)).build();
    let hasty = Replica::new(store_of_hasty, driver);
    hasty.knows(2).await;
    eventually(|| hasty.store.status().fault == Some(StoreFault::Timeout)).await;
    let limiter = hasty.store.limiter("quota", policy([Limit::requests_per_day(100)]));
    assert_eq!(admitted(&limiter, "alice", 100).await, 50, "its share");
    let status = hasty.store.status();
    assert_eq!((status.is_reachable, status.failures), (false, 0), "and nobody waits");

    let (store_of_patient, driver) = store().command_timeout(Duration::from_secs(5)).build();
    let patient = Replica::new(store_of_patient, driver);
    patient.is_reachable(true).await;
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_before_a_new_one_would_be() {
    let server = Server::start().await;
    let (listener, port) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), server.port());
    let url = format!("redis://{}/0", listener.local_addr().unwrap()).parse().unwrap();
    let (silence, connections) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (told, count) = (Arc::clone(&silence), Arc::clone(&connections));
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                () = told.notified() => {}
            }
            silent.push((client, server));
        }
    });
    let builder = RedisStore::builder(url).connect_timeout(Duration::from_secs(60));
    let (store, driver) = builder.command_timeout(TIMEOUT).build();
    let replica = Replica::new(store, driver);
    replica.is_reachable(true).await;
    let before = connections.load(Ordering::Relaxed);
    silence.notify_one();
    eventually(|| connections.load(Ordering::Relaxed) > before).await;
    replica.is_reachable(true).await;
}
