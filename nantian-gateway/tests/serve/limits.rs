//! Limits on size and on time.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    net::TcpSocket,
    time::{Instant, interval},
};

use crate::support::{
    Backend, Running, Wire, World, eventually,
    http2::{self, CONTINUATION, END_HEADERS, END_STREAM, GET, HEADERS, frame},
    soon,
};

#[tokio::test]
async fn heads_have_up_to_256_fields() {
    let fields = |count: usize| (0..count).map(|at| format!("x-{at}: 1\r\n")).collect::<String>();
    let backend = Backend::answering(move |request| {
        let count = request.header("x-want").map_or(0, |count| count.parse().unwrap());
        format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", fields(count))
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let reply = gateway.ask(head(&fields(250))).await;
    assert_eq!((reply.status(), backend.last().header("x-249")), (200, Some("1")));
    assert_eq!(gateway.ask(head(&fields(256))).await.status(), 431);
    let reply = gateway.ask(head("x-want: 255\r\n")).await;
    assert_eq!((reply.status(), reply.header("x-254")), (200, Some("1")));
    assert_eq!(gateway.ask(head("x-want: 256\r\n")).await.status(), 502);
}

#[tokio::test]
async fn heads_and_trailers_over_http2_have_as_many() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    let client = http2::client(&gateway).await;
    let fields = |name: &'static str, count: usize| -> HeaderMap {
        (0..count).map(|_| (HeaderName::from_static(name), HeaderValue::from_static("a=1"))).collect()
    };
    // The host is a field, too, and cookies in crumbs are one.
    for (name, count, status) in
        [("x-a", 255, 200), ("x-a", 256, 431), ("x-a", 1500, 431), ("cookie", 1000, 200)]
    {
        let mut request = http2::get("/");
        request.headers_mut().extend(fields(name, count));
        assert_eq!(http2::reply(&client, request).await.0, status, "{count} of {name}");
    }
    assert_eq!(backend.seen().len(), 2);

    for (count, status) in [(256, StatusCode::OK), (257, StatusCode::BAD_REQUEST)] {
        let frames = [Frame::data(Bytes::from("abc")), Frame::trailers(fields("x-a", count))];
        let frames = stream::iter(frames.map(Ok::<_, Infallible>));
        let request = Request::post("http://example.org/").body(StreamBody::new(frames).boxed()).unwrap();
        assert_eq!(http2::reply(&client, request).await.0, status, "{count} trailers");
    }
    assert_eq!(backend.seen().len(), 3, "no backend takes it for complete");
}

#[tokio::test]
async fn a_head_or_a_body_that_is_too_large_is_refused() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend)
        .options(&["--max-request-head-bytes", "16384", "--max-request-body-bytes", "100000"])
        .start()
        .await;
    let with_header =
        |bytes: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nX-Large: {}\r\n\r\n", "a".repeat(bytes));
    assert_eq!(gateway.ask(with_header(16_000)).await.status(), 200);
    for head in [
        with_header(16_384),
        with_header(1_000_000),
        format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X-Many: 1\r\n".repeat(1500)),
        format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(20_000)),
    ] {
        let mut wire = gateway.connect().await;
        assert_eq!(wire.ask(head).await.status(), 431);
        assert!(wire.is_closed().await);
    }

    let known = backend.seen().len();
    let exact =
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n{}", "a".repeat(100_000));
    assert_eq!(gateway.ask(exact).await.body.len(), 100_000);
    let chunks = |count: usize| {
        let chunks = format!("3e8\r\n{}\r\n", "a".repeat(1000)).repeat(count);
        format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    assert_eq!(gateway.ask(chunks(100)).await.body.len(), 100_000);

    let announced = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100001\r\n\r\n";
    let mut wire = gateway.connect().await;
    assert_eq!(wire.ask(announced).await.status(), 413);
    assert!(wire.is_closed().await, "nobody waits for what is not wanted");
    let disguised = chunks(101).replace("Host: h", "Host: h\r\nUpgrade: websocket");
    for request in [chunks(101), disguised, chunks(10_000)] {
        assert_eq!(gateway.ask(request).await.status(), 413);
    }
    assert_eq!(backend.seen().len(), known + 2, "no backend takes it for complete");
}

#[tokio::test]
async fn the_process_may_have_as_many_files_open_as_the_system_lets_it() {
    let gateway = World::new().limited("-S -n 64").start().await;
    let (limit, highest) = gateway.open_files();
    assert!(limit == highest && limit > 64, "{limit} of {highest}");
    gateway.log.more("\"open files\"", 0).await;
}

/// A gateway that has little patience, and a backend that is as patient as can be.
async fn impatient(backend: &Backend) -> Running {
    World::of_backend(backend)
        .options(&["--header-timeout", "1s", "--idle-timeout", "1500ms", "--stall-timeout", "1s"])
        .start()
        .await
}

/// How long it takes from `begun` until the gateway closes, and what it says before.
async fn until_closed((begun, mut wire): (Instant, Wire)) -> (Duration, Vec<u8>) {
    let rest = wire.rest().await;
    (begun.elapsed(), rest)
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_left() {
    let backend = Backend::echo("a").await;
    let gateway = impatient(&backend).await;
    // Its time begins after this.
    let begun = async |bytes: &str| {
        let begun = Instant::now();
        let mut wire = gateway.connect().await;
        wire.send(bytes).await;
        (begun, wire)
    };
    let silent = begun("").await;
    let head = begun("GET / HTTP/1.1\r\nHost: h\r\nX-").await;
    let body = begun("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf").await;
    let mut idle = begun("").await;
    idle.1.get("/").await;
    let mut second = begun("").await;
    second.1.get("/").await;
    second.1.send("GET / HTT").await;
    let preface = begun("PRI * HT").await;

    let (silent, head, body, idle, second, preface) = tokio::join!(
        until_closed(silent),
        until_closed(head),
        until_closed(body),
        until_closed(idle),
        until_closed(second),
        until_closed(preface)
    );
    for (what, (took, said)) in [
        ("says nothing", silent),
        ("does not end its head", head),
        ("does not ask again", idle),
        ("does not end its second head", second),
        ("does not end its preface", preface),
    ] {
        assert!(
            took >= Duration::from_millis(900) && took < Duration::from_secs(20),
            "one that {what}: {took:?}"
        );
        assert!(!said.starts_with(b"HTTP/1.1"), "one that {what}: {said:?}");
    }
    let (took, said) = body;
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(20), "{took:?}");
    assert!(said.starts_with(b"HTTP/1.1 408 "), "{said:?}");
    assert_eq!(gateway.get("/").await.status(), 200);
}

#[tokio::test]
async fn a_head_that_begins_behind_a_request_has_no_longer_than_others() {
    let backend = Backend::echo("a").await;
    let world = World::of_backend(&backend);
    let gateway = world.options(&["--header-timeout", "1s"]).start().await;
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTT").await;
    assert_eq!(wire.reply().await.status(), 200);
    assert!(wire.is_closed().await, "long before it would be for being idle");
}

#[tokio::test]
async fn a_head_over_http2_has_no_longer_than_others() {
    let silent = Backend::raw(async |mut wire| wire.rest().await.truncate(0)).await;
    let world = World::of_backend(&silent);
    let gateway = world.options(&["--header-timeout", "1s"]).start().await;
    let begun = async |bytes: Vec<u8>| {
        let begun = Instant::now();
        let mut wire = http2::raw(&gateway).await;
        wire.send(bytes).await;
        (begun, wire)
    };
    let request = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, GET);
    let without_end = frame(HEADERS, END_STREAM, 1, GET);
    let continued = [without_end.clone(), frame(CONTINUATION, 0, 1, b"")].concat();
    let behind_another = [request(1), request(3)[..15].to_vec()].concat();
    let mut preface = (Instant::now(), gateway.connect().await);
    preface.1.send(&http2::PREFACE[..23]).await;
    let (without_end, continued, behind_another) =
        (begun(without_end).await, begun(continued).await, begun(behind_another).await);
    let (without_end, continued, behind_another, preface) = tokio::join!(
        until_closed(without_end),
        until_closed(continued),
        until_closed(behind_another),
        until_closed(preface)
    );
    for (what, (took, _)) in [
        ("a head without an end", without_end),
        ("one that goes on with nothing", continued),
        ("one behind a request that is under way", behind_another),
        ("a preface without an end", preface),
    ] {
        // Long before the connection would be idle, or its pings unanswered.
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(20), "{what}: {took:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_on_slowly_is_served() {
    let backend = Backend::echo("a").await;
    let gateway = impatient(&backend).await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n").await;
    let mut pace = interval(Duration::from_millis(150));
    for byte in "abcdefghijkl".chars() {
        pace.tick().await;
        wire.send(byte.to_string()).await;
    }
    assert_eq!(wire.reply().await.text(), "abcdefghijkl");
}

#[tokio::test]
async fn a_client_that_only_listens_for_a_while_is_served() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(_) = wire.head().await else { return };
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let mut pace = interval(Duration::from_millis(300));
        for _ in 0..6 {
            pace.tick().await;
            wire.send("4\r\nnews\r\n").await;
        }
        while wire.chunk().await.is_ok_and(|chunk| !chunk.is_empty()) {}
        wire.send("0\r\n\r\n").await;
    })
    .await;
    let gateway = impatient(&backend).await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    wire.reply_head().await;
    for _ in 0..6 {
        assert_eq!(soon(wire.chunk()).await.unwrap(), b"news");
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(soon(wire.chunk()).await.unwrap(), b"");
}

#[tokio::test]
async fn a_backend_that_is_slow_is_not_the_clients_fault() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(_) = wire.message().await else { return };
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n").await;
        let mut pace = interval(Duration::from_millis(1300));
        for half in ["", "abc", "def"] {
            pace.tick().await;
            wire.send(half).await;
        }
    })
    .await;
    let gateway = impatient(&backend).await;
    assert_eq!(gateway.get("/").await.text(), "abcdef");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left() {
    let (endless, _) = Backend::flooding(1 << 30).await;
    let gateway = impatient(&endless).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut wire = Wire::over(soon(socket.connect(gateway.address())).await.unwrap());
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let series = "nantian_connections";
    eventually("it is connected", async || gateway.metric(series).await == Some(1.0)).await;
    eventually("it is left", async || gateway.metric(series).await == Some(0.0)).await;
}
