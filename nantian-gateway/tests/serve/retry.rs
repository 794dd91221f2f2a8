//! Requests that are sent again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::support::{Backend, Port, Running, Wire, World, eventually, post, rule, soon, to};

/// Answers with each of `statuses` in turn, and with 200 from then on.
async fn answering(statuses: &'static [u16]) -> Backend {
    let turn = Arc::new(AtomicUsize::new(0));
    Backend::answering(move |request| {
        let status = statuses.get(turn.fetch_add(1, Relaxed)).unwrap_or(&200);
        let length = request.body.len();
        let mut reply = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        reply.extend(&request.body);
        reply
    })
    .await
}

async fn gateway(backends: &[&Backend], fields: &str) -> Running {
    let rule = rule("/", &format!("{fields}, {}", to("a")));
    World::new().service("a", backends).route("r", &[rule]).start().await
}

const CHUNKED: &str = "POST /x HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
    3\r\nabc\r\n3\r\ndef\r\n0\r\nx-sum: 6\r\n\r\n";

#[tokio::test]
async fn a_status_that_is_a_failure_is_tried_again_with_the_whole_body() {
    for (request, body) in
        [(post("/x", "hello"), "hello"), (CHUNKED.to_owned(), "abcdef"), (post("/x", ""), "")]
    {
        let backend = answering(&[503, 500]).await;
        let gateway = gateway(&[&backend], "retry: {attempts: 2, backoff: 100ms, codes: [500, 503]}").await;
        let begun = Instant::now();
        let reply = gateway.ask(&request).await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, body));
        assert!(begun.elapsed() >= Duration::from_millis(300), "100 ms, then 200 ms");
        let seen = backend.seen();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|seen| seen.body == body.as_bytes()));
        assert_eq!((&seen[0].headers, &seen[0].trailers), (&seen[2].headers, &seen[2].trailers));
        assert_eq!(backend.connections(), 1, "a failed answer is read, and its connection kept");
        let retries = "nantian_http_retries_total{route=\"demo/r\"}";
        assert_eq!(gateway.metric(retries).await, Some(2.0));
    }
}

#[tokio::test]
async fn the_last_failure_is_passed_on() {
    let backend = answering(&[503; 10]).await;
    let gateway = gateway(&[&backend], "retry: {attempts: 2, backoff: 1ms, codes: [503]}").await;
    let reply = gateway.ask(post("/x", "hello")).await;
    assert_eq!((reply.status(), reply.text().as_str()), (503, "hello"));
    assert_eq!(backend.seen().len(), 3);
}

#[tokio::test]
async fn a_status_that_is_no_failure_is_passed_on_at_once() {
    let backend = answering(&[500, 404, 502]).await;
    let gateway = gateway(&[&backend], "retry: {attempts: 5, codes: [503]}").await;
    for status in [500, 404, 502, 200] {
        assert_eq!(gateway.get("/").await.status(), status);
    }
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_passed_by() {
    let backend = Backend::echo("a").await;
    let gone = Port::reserve();
    let gone = Backend::at(gone.address());
    let gateway = gateway(&[&backend, &gone], "retry: {attempts: 1, backoff: 1ms}").await;
    let mut wire = gateway.connect().await;
    for _ in 0..10 {
        assert_eq!(wire.ask(post("/x", "hello")).await.text(), "hello", "nothing was sent to the other one");
    }
}

/// Breaks off, or keeps silent, at first, and answers from then on.
async fn unsteady(breaks: bool) -> Backend {
    let turn = Arc::new(AtomicUsize::new(0));
    Backend::raw(move |mut wire: Wire| {
        let turn = Arc::clone(&turn);
        async move {
            while wire.message().await.is_ok() {
                if turn.fetch_add(1, Relaxed) > 0 {
                    wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                } else if breaks {
                    return;
                } else {
                    wire.rest().await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_may_have_arrived_is_repeated_only_if_that_does_no_harm() {
    let fields = "retry: {attempts: 1, backoff: 1ms}, timeouts: {backendRequest: 300ms}";
    for (breaks, failure) in [(true, 502), (false, 504)] {
        let backend = unsteady(breaks).await;
        let gateway = gateway(&[&backend], fields).await;
        assert_eq!(gateway.get("/").await.text(), "ok", "a GET is repeated");
        let backend = unsteady(breaks).await;
        gateway.edit_service("a", &[&backend]).await;
        eventually("the other one is asked", async || {
            let status = gateway.ask(post("/x", "hello")).await.status();
            assert!(status == failure || backend.connections() == 0, "{status}");
            status == failure
        })
        .await;
    }
}

#[tokio::test]
async fn all_attempts_together_keep_within_the_time_of_the_request() {
    let backend = Backend::raw(async |mut wire| drop(wire.rest().await)).await;
    let fields = "retry: {attempts: 100, backoff: 50ms}, timeouts: {request: 1s, backendRequest: 200ms}";
    let gateway = gateway(&[&backend], fields).await;
    let begun = Instant::now();
    assert_eq!(gateway.get("/").await.status(), 504);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(20), "{took:?}");
    assert!((2..=5).contains(&backend.connections()), "{} attempts", backend.connections());
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_kept_is_sent_once() {
    let backend = answering(&[503]).await;
    let gateway = gateway(&[&backend], "retry: {attempts: 3, backoff: 1ms, codes: [503]}").await;
    assert_eq!(gateway.ask(post("/x", &"x".repeat(1_100_000))).await.status(), 503);
    assert_eq!(backend.seen().len(), 1);
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_not_repeated_as_if_it_were_whole() {
    let backend = Backend::echo("a").await;
    let world = World::new().service("a", &[&backend]).options(&["--max-request-body-bytes", "1000"]);
    let retry = "retry: {attempts: 1, backoff: 1ms}";
    let gateway = world.route("r", &[rule("/", &format!("{retry}, {}", to("a")))]).start().await;
    let put = "PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

    let mut wire = gateway.connect().await;
    wire.send(format!("{put}3\r\nabc\r\n3\r\nde")).await;
    wire.finish().await;
    assert_eq!(wire.reply().await.status(), 400, "the client has ended in the midst of it");
    let long = format!("{put}258\r\n{0}\r\n258\r\n{0}\r\n0\r\n\r\n", "x".repeat(600));
    assert_eq!(gateway.ask(long).await.status(), 413);

    assert_eq!(backend.seen(), [], "no backend takes a part of it for the whole");
    let retries = gateway.metric("nantian_http_retries_total{route=\"demo/r\"}").await;
    assert_eq!(retries.unwrap_or_default(), 0.0);
}

#[tokio::test]
async fn an_upload_that_goes_on_while_a_failed_answer_is_read_is_repeated_whole() {
    let failed = Arc::new(Notify::new());
    let (told, turn) = (Arc::clone(&failed), Arc::new(AtomicUsize::new(0)));
    let backend = Backend::raw(move |mut wire: Wire| {
        let (told, turn) = (Arc::clone(&told), Arc::clone(&turn));
        async move {
            if turn.fetch_add(1, Relaxed) == 0 {
                let Ok(_) = wire.head().await else { return };
                wire.send("HTTP/1.1 503 x\r\ncontent-length: 1\r\n\r\n").await;
                told.notify_one();
                wire.rest().await;
            } else {
                let Ok(request) = wire.message().await else { return };
                let length = request.body.len().to_string();
                wire.send(format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n{length}", length.len()))
                    .await;
            }
        }
    })
    .await;
    let gateway = gateway(&[&backend], "retry: {attempts: 1, backoff: 500ms, codes: [503]}").await;
    let mut wire = gateway.connect().await;
    let length = 1_200_000;
    wire.send(format!("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n")).await;
    soon(failed.notified()).await;
    wire.send("x".repeat(length)).await;
    assert_eq!(wire.reply().await.text(), length.to_string());
}

#[tokio::test]
async fn retries_have_a_budget() {
    let backend = answering(&[503; 10_000]).await;
    let gateway = gateway(&[&backend], "retry: {attempts: 3, backoff: 1ms, codes: [503]}").await;
    let mut wire = gateway.connect().await;
    let (requests, begun) = (300, Instant::now());
    for _ in 0..requests {
        assert_eq!(wire.get("/").await.status(), 503);
    }
    let retries = backend.seen().len() - requests;
    // Ten a second for ten seconds, what has come back since, and a fifth of the requests.
    let most = 180 + 10 * usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((100..=most).contains(&retries), "{retries} of {most}");
}
