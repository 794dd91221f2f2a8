//! Clients that hold up one HTTP/2 stream, and backends that hold up an upload.

use std::{
    convert::Infallible,
    future::pending,
    io::{self, ErrorKind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::TokioExecutor;
use tokio::{
    sync::Notify,
    time::{interval, timeout},
};

use crate::support::{
    Backend, Running, Wire, World, after, eventually,
    http2::{client, client_of, get, reply, upload},
    rule, soon, to, when_stuck,
};

/// How many requests are over whose responses began well.
const ANSWERED: &str = "nantian_http_requests_total{route=\"demo/r\",code_class=\"2xx\"}";

/// A gateway that has little patience.
async fn impatient(world: World) -> Running {
    world.options(&["--stall-timeout", "1s"]).start().await
}

/// Sends without end, and tells when nobody takes it any more.
async fn endless() -> (Backend, Arc<Notify>) {
    let left = Arc::new(Notify::new());
    let told = Arc::clone(&left);
    let backend = Backend::raw(move |mut wire| {
        let told = Arc::clone(&told);
        async move {
            let Ok(_) = wire.message().await else { return };
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
            while wire.write(chunk.as_bytes()).await.is_ok() {}
            told.notify_one();
        }
    })
    .await;
    (backend, left)
}

/// Sends a word in each `period`.
async fn ticking(period: Duration) -> Backend {
    Backend::raw(move |mut wire| async move {
        let Ok(_) = wire.message().await else { return };
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let mut pace = interval(period);
        loop {
            pace.tick().await;
            if wire.write(b"4\r\ntick\r\n").await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn next(body: &mut Incoming) -> Bytes {
    soon(body.frame()).await.expect("the body goes on").expect("it is whole").into_data().unwrap()
}

#[tokio::test]
async fn a_response_that_nobody_takes_ends_its_own_stream() {
    let (endless, left) = endless().await;
    let busy = ticking(Duration::from_millis(100)).await;
    let quiet = ticking(Duration::from_millis(1700)).await;
    let world = World::new().service("endless", &[&endless]).service("busy", &[&busy]);
    let rules = [("/endless", "endless"), ("/busy", "busy"), ("/quiet", "quiet")];
    let rules = rules.map(|(path, service)| rule(path, &to(service)));
    let gateway = impatient(world.service("quiet", &[&quiet]).route("r", &rules)).await;

    let client = client(&gateway).await;
    let ask = async |path| soon(client.clone().send_request(get(path))).await.unwrap().into_body();
    let (mut busy, mut quiet, unread) = (ask("/busy").await, ask("/quiet").await, ask("/endless").await);
    assert_eq!(next(&mut quiet).await, "tick");
    let reading = async {
        loop {
            assert_eq!(next(&mut busy).await, "tick");
        }
    };
    tokio::select! {
        () = reading => {}
        () = soon(left.notified()) => {}
    }
    assert!(unread.collect().await.is_err(), "the stream is reset");
    assert_eq!(next(&mut busy).await, "tick", "one that is busy goes on");
    for _ in 0..2 {
        assert_eq!(next(&mut quiet).await, "tick", "and so does one whose backend is quiet");
    }
}

#[tokio::test]
async fn a_stream_without_a_window_is_ended_and_gives_its_place_back() {
    let backend = Backend::echo("a").await;
    let world = World::of_backend(&backend);
    let gateway = impatient(world).await;
    let mut settings = Builder::new(TokioExecutor::new());
    settings.initial_stream_window_size(0);
    let mut client = client_of(&gateway, &settings).await;
    let (parts, request) = upload("/");
    parts.send("content").unwrap();
    drop(parts);
    let unread = soon(client.send_request(request)).await.unwrap();
    assert_eq!(unread.status(), 200);
    eventually("it is over", async || gateway.metric(ANSWERED).await == Some(1.0)).await;
    assert!(unread.collect().await.is_err(), "the stream is reset");
    assert_eq!(soon(client.send_request(get("/"))).await.unwrap().status(), 200, "others are served");
}

#[tokio::test]
async fn a_stream_without_a_window_is_ended_in_time_though_its_upload_has_not() {
    let backend = Backend::h2c(async |_| Response::new(Full::<Bytes>::from("content"))).await;
    let world = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]);
    let gateway = impatient(world).await;
    let mut settings = Builder::new(TokioExecutor::new());
    settings.initial_stream_window_size(0);
    let mut client = client_of(&gateway, &settings).await;
    let (_parts, request) = upload("/");
    let unread = soon(client.send_request(request)).await.unwrap();
    // What is left of a request is read for half a minute.
    let ended = timeout(Duration::from_secs(15), unread.collect()).await.expect("it ends in time");
    assert!(ended.is_err(), "the stream is reset");
}

#[tokio::test]
async fn where_many_responses_are_not_taken_each_has_less_time() {
    let (endless, _) = endless().await;
    // Room for what sixteen of them hold.
    let options = ["--stall-timeout", "1h", "--max-body-memory-bytes", "4194304"];
    let gateway = World::of_backend(&endless).options(&options).start().await;
    let mut settings = Builder::new(TokioExecutor::new());
    settings.initial_stream_window_size(0);
    let mut client = client_of(&gateway, &settings).await;
    let mut unread = Vec::new();
    for _ in 0..24 {
        unread.push(soon(client.send_request(get("/"))).await.unwrap());
    }
    eventually("most are over", async || gateway.metric(ANSWERED).await >= Some(16.0)).await;
}

#[tokio::test]
async fn responses_that_are_over_and_not_taken_end_their_connection_in_time() {
    let backend = Backend::h2c(async |_| Response::new(Full::<Bytes>::from(vec![0; 16_000]))).await;
    // Enough for h2 to take the whole of each.
    let mut settings = Builder::new(TokioExecutor::new());
    settings.initial_stream_window_size(1);
    // Room for what 256 of them hold.
    let scarce = ["--header-timeout", "1s", "--stall-timeout", "1h", "--max-body-memory-bytes", "4194304"];
    let impatient = ["--header-timeout", "1s", "--stall-timeout", "1s"];
    for (options, clients, each) in [(&impatient[..], 1, 1), (&scarce[..], 3, 100)] {
        let world = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]);
        let gateway = world.options(options).start().await;
        let (mut open, mut unread) = (Vec::new(), Vec::new());
        for _ in 0..clients {
            let mut client = client_of(&gateway, &settings).await;
            for _ in 0..each {
                unread.push(soon(client.send_request(get("/"))).await.unwrap());
            }
            open.push(client);
        }
        let all = f64::from(clients * each);
        eventually("all are over", async || gateway.metric(ANSWERED).await == Some(all)).await;
        eventually("so is a connection", async || open.iter().any(SendRequest::is_closed)).await;
    }
}

#[tokio::test]
async fn a_response_that_is_over_and_not_taken_leaves_others_of_its_connection_time() {
    let over = Backend::h2c(async |_| Response::new(Full::<Bytes>::from(vec![0; 16_000]))).await;
    let busy = ticking(Duration::from_millis(100)).await;
    let world = World::new().h2c_service("over", &over).service("busy", &[&busy]);
    let rules = [rule("/over", &to("over")), rule("/busy", &to("busy"))];
    let gateway = impatient(world.route("r", &rules)).await;
    let mut settings = Builder::new(TokioExecutor::new());
    settings.initial_stream_window_size(1000);
    let mut client = client_of(&gateway, &settings).await;
    let mut busy = soon(client.send_request(get("/busy"))).await.unwrap().into_body();
    let _unread = soon(client.send_request(get("/over"))).await.unwrap();
    eventually("it is over", async || gateway.metric(ANSWERED).await == Some(1.0)).await;
    // It has four times the stall timeout while the other one is taken; then its connection is to finish.
    for _ in 0..60 {
        assert_eq!(next(&mut busy).await, "tick");
    }
}

#[tokio::test]
async fn a_response_that_is_taken_slowly_is_served() {
    let (flooding, _) = Backend::flooding(300_000).await;
    let world = World::of_backend(&flooding);
    let gateway = impatient(world).await;
    let mut settings = Builder::new(TokioExecutor::new());
    settings.initial_stream_window_size(65_536);
    let mut client = client_of(&gateway, &settings).await;
    let mut body = soon(client.send_request(get("/"))).await.unwrap().into_body();
    let mut length = 0;
    while let Some(frame) = soon(body.frame()).await {
        length += frame.expect("it is whole").into_data().unwrap().len();
        after(Duration::from_millis(150)).await;
    }
    assert_eq!(length, 300_000);
}

#[tokio::test]
async fn an_upload_that_stalls_ends_its_own_stream_with_408() {
    let http1 = Backend::echo("a").await;
    let http2 = Backend::h2c(async |request| {
        let body = request.into_body().collect().await;
        Response::new(Full::from(body.map(|body| body.to_bytes()).unwrap_or_default()))
    })
    .await;
    let world = World::new().service("a", &[&http1]).h2c_service("b", &http2);
    let gateway = impatient(world.route("r", &[rule("/a", &to("a")), rule("/b", &to("b"))])).await;
    let client = client(&gateway).await;
    for path in ["/a", "/b"] {
        let (stalled, request) = upload(path);
        stalled.send("half of").unwrap();
        let sibling = async {
            let (parts, request) = upload(path);
            let pace = async move {
                for part in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
                    parts.send(part).unwrap();
                    after(Duration::from_millis(150)).await;
                }
            };
            tokio::join!(reply(&client, request), pace).0
        };
        let (stalled, sibling) = tokio::join!(reply(&client, request), sibling);
        assert_eq!(stalled.0, StatusCode::REQUEST_TIMEOUT, "{path}");
        assert_eq!(sibling, (StatusCode::OK, Bytes::from("abcdefghij")), "{path}");
    }
    let refused = "nantian_http_requests_total{route=\"demo/r\",code_class=\"4xx\"}";
    assert_eq!(gateway.metric(refused).await, Some(2.0));
}

#[tokio::test]
async fn who_reads_slowly_holds_up_no_other_response_of_a_connection_to_a_backend() {
    let backend = Backend::h2c(async |request: Request<Incoming>| {
        let length = if request.uri().path() == "/large" { 3 << 20 } else { 1 << 16 };
        Response::new(Full::from(vec![0; length]))
    })
    .await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    let mut settings = Builder::new(TokioExecutor::new());
    settings.initial_stream_window_size(65_536);
    let mut client = client_of(&gateway, &settings).await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(soon(client.send_request(get("/large"))).await.unwrap());
    }
    for _ in 0..100 {
        let small = soon(client.send_request(get("/small"))).await.unwrap();
        assert_eq!(soon(small.collect()).await.unwrap().to_bytes().len(), 1 << 16);
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn who_takes_no_small_messages_ends_no_connection_to_a_backend() {
    let sent = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&sent);
    let backend = Backend::h2c(move |request: Request<Incoming>| {
        let count = Arc::clone(&count);
        let is_endless = request.uri().path() == "/endless";
        let message = move |()| {
            count.fetch_add(1, Relaxed);
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"twenty bytes of news")))
        };
        async move {
            let messages = stream::repeat(()).take(if is_endless { usize::MAX } else { 1 });
            Response::new(StreamBody::new(messages.map(message)))
        }
    })
    .await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    let mut settings = Builder::new(TokioExecutor::new());
    settings.initial_stream_window_size(1000);
    let mut client = client_of(&gateway, &settings).await;
    let mut unread = Vec::new();
    for _ in 0..16 {
        unread.push(soon(client.send_request(get("/endless"))).await.unwrap());
    }
    when_stuck(&sent).await;
    for _ in 0..10 {
        let news = soon(client.send_request(get("/news"))).await.unwrap();
        assert_eq!(soon(news.collect()).await.unwrap().to_bytes().len(), 20);
    }
    for unread in &mut unread {
        assert_eq!(next(unread.body_mut()).await.len(), 20);
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn an_upload_that_stalls_holds_up_no_other_one_of_its_connection() {
    let deaf = deaf().await;
    let echo =
        Backend::h2c(async |request| Response::new(request.into_body().map_err(|_| unreachable!()))).await;
    let world = World::new().service("deaf", &[&deaf]).h2c_service("echo", &echo);
    let rules = [rule("/deaf", &to("deaf")), rule("/echo", &to("echo"))];
    let gateway = world.route("r", &rules).start().await;
    let mut client = client(&gateway).await;
    let (stalled, request) = upload("/deaf");
    stalled.send(content(8 << 20)).unwrap();
    let asked = tokio::spawn(client.send_request(request));
    eventually("it is under way", async || deaf.connections() == 1).await;
    for _ in 0..100 {
        let (parts, request) = upload("/echo");
        parts.send(content(1 << 16)).unwrap();
        drop(parts);
        let echoed = soon(client.send_request(request)).await.unwrap();
        assert_eq!(soon(echoed.collect()).await.unwrap().to_bytes().len(), 1 << 16);
    }
    asked.abort();
}

#[tokio::test]
async fn a_call_of_grpc_may_be_silent_before_its_head() {
    let backend = Backend::h2c(async |request: Request<Incoming>| {
        after(Duration::from_millis(2500)).await;
        Response::new(request.into_body().map_err(|_| unreachable!()))
    })
    .await;
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: demo}
spec: {parentRefs: [{name: demo}], rules: [{backendRefs: [{name: a, port: 80}]}]}
";
    let gateway = impatient(World::new().h2c_service("a", &backend).manifest("route", route)).await;
    let mut client = client(&gateway).await;
    let (parts, mut request) = upload("/watch.Service/Watch");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    parts.send("subscribe").unwrap();
    let mut body = soon(client.send_request(request)).await.unwrap().into_body();
    assert_eq!(next(&mut body).await, "subscribe");
}

/// A backend that accepts and reads nothing.
async fn deaf() -> Backend {
    Backend::raw(|wire| async move {
        pending::<()>().await;
        drop(wire);
    })
    .await
}

#[tokio::test]
async fn an_upload_that_a_backend_does_not_take_ends_with_504() {
    let (http1, http2) = (deaf().await, deaf().await);
    let world = World::new().service("a", &[&http1]).h2c_service("b", &http2);
    let world = world.options(&["--access-log", "json", "--connect-timeout", "1s"]);
    let gateway = impatient(world.route("r", &[rule("/a", &to("a")), rule("/b", &to("b"))])).await;
    for path in ["/a", "/b"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", 32 << 20);
        let reply = gateway.ask(head + content(32 << 20)).await;
        assert_eq!(
            (reply.status(), reply.text()),
            (504, "the backend does not take the request\n".to_owned())
        );
        let line = gateway.output.more(path, 0).await;
        assert!(line.contains("takes nothing of the request for 1s"), "{line}");
    }
}

#[tokio::test]
async fn who_leaves_behind_an_upload_that_a_backend_does_not_take_is_not_waited_for() {
    let backend = deaf().await;
    let gateway = impatient(World::of_backend(&backend)).await;
    let mut wire = gateway.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4000000\r\n";
    wire.send(head).await;
    let left = timeout(Duration::from_millis(500), wire.write(content(64 << 20).as_bytes())).await;
    assert!(left.is_err(), "nobody reads it");
    drop(wire);
    let ended = "nantian_http_requests_total{route=\"demo/r\",code_class=\"5xx\"}";
    eventually("it is over", async || gateway.metric(ended).await == Some(1.0)).await;
}

#[tokio::test]
async fn a_client_that_takes_no_response_is_reset() {
    let (flooding, _) = Backend::flooding(64 << 20).await;
    let gateway = impatient(World::of_backend(&flooding)).await;
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    eventually("it is over", async || gateway.metric(ANSWERED).await == Some(1.0)).await;
    let error = soon(wire.exactly(64 << 20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the kernel keeps nothing for it");
}

/// Longer than what all buffers on its way take together.
const LONG: usize = 16 << 20;

/// Reads so much content, for three seconds no faster than 640 KiB in each.
async fn read_slowly(wire: &mut Wire) -> io::Result<()> {
    let (part, parts) = (65_536, 30);
    for _ in 0..parts {
        wire.exactly(part).await?;
        after(Duration::from_millis(100)).await;
    }
    wire.exactly(LONG - part * parts).await.map(drop)
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_taken_for_one_that_reads_nothing() {
    let (flooding, _) = Backend::flooding(LONG).await;
    let gateway = impatient(World::of_backend(&flooding)).await;
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wire.reply_head().await.status(), 200);
    read_slowly(&mut wire).await.expect("it is served to the end");
}

#[tokio::test]
async fn a_backend_that_reads_slowly_is_not_taken_for_one_that_reads_nothing() {
    let backend = Backend::raw(async |mut wire| {
        wire.head().await.unwrap();
        if read_slowly(&mut wire).await.is_ok() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = impatient(World::of_backend(&backend)).await;
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {LONG}\r\n\r\n");
    assert_eq!(gateway.ask(head + content(LONG)).await.status(), 200);
}

fn content(length: usize) -> &'static str {
    "x".repeat(length).leak()
}
