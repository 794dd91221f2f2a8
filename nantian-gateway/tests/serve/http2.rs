//! HTTP/2 on either side.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{future::join_all, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use crate::support::{
    Backend, Running, World, after, eventually,
    http2::{
        Body, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, PREFACE, RST_STREAM, SETTINGS,
        client, frame, get, next_frame, raw, reply, upload,
    },
    rule, soon, to, when_stuck,
};

#[tokio::test]
async fn many_streams_are_served_at_once_over_one_connection() {
    let backend = Backend::echo("a").await;
    let gateway = World::new().service("a", &[&backend]).route("r", &[rule("/a", &to("a"))]).start().await;
    let client = client(&gateway).await;
    let replies = join_all((0..200).map(|number| {
        let body = Full::from(number.to_string()).boxed();
        let request = Request::post("http://example.org/a").body(body).unwrap();
        reply(&client, request)
    }))
    .await;
    for (number, (status, body)) in replies.into_iter().enumerate() {
        assert_eq!((status, body), (StatusCode::OK, Bytes::from(number.to_string())));
    }
    assert_eq!(reply(&client, get("/b")).await.0, StatusCode::NOT_FOUND);
    let connections = async || gateway.metric("nantian_connections").await;
    eventually("one connection is counted", async || connections().await == Some(1.0)).await;
}

#[tokio::test]
async fn a_request_becomes_one_of_http_1_1_for_a_backend_that_speaks_that() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    let client = client(&gateway).await;
    let mut request = get("/x/../y?q=1");
    request.headers_mut().append("cookie", "a=1".parse().unwrap());
    request.headers_mut().append("cookie", "b=2".parse().unwrap());
    request.headers_mut().append("te", "trailers".parse().unwrap());
    assert_eq!(reply(&client, request).await.0, StatusCode::OK);
    let seen = backend.last();
    assert_eq!(seen.start, "GET /y?q=1 HTTP/1.1");
    assert_eq!(seen.all("host"), ["example.org"]);
    assert_eq!(seen.all("cookie"), ["a=1; b=2"], "RFC 9113, section 8.2.3");
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.header("transfer-encoding"), None);

    let (parts, request) = upload("/upload");
    parts.send("abc").unwrap();
    drop(parts);
    assert_eq!(reply(&client, request).await.1, "abc");
    assert_eq!(backend.last().header("transfer-encoding"), Some("chunked"));

    let (status, _) = reply(&client, get("/a/..%2fb")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "one stream is refused");
    assert_eq!(reply(&client, get("/")).await.0, StatusCode::OK, "and the others go on");
}

#[tokio::test]
async fn response_to_head_has_no_content_wherever_it_is_made() {
    let backend = Backend::echo("a").await;
    let gateway = World::new().service("a", &[&backend]).route("r", &[rule("/a", &to("a"))]).start().await;
    let mut client = client(&gateway).await;
    for (path, status) in [("/a", 200), ("/nobody", 404), ("/a/..%2fb", 400)] {
        let length = reply(&client, get(path)).await.1.len().to_string();
        let head = Request::head(format!("http://example.org{path}")).body(Empty::new().boxed()).unwrap();
        let response = soon(client.send_request(head)).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-length"], *length, "{path}");
        // A client takes bytes behind such a head for an error.
        assert_eq!(soon(response.collect()).await.unwrap().to_bytes(), "", "{path}");
    }
}

#[tokio::test]
async fn response_whose_status_has_no_content_has_none() {
    let backend = Backend::h2c(async |request| {
        let content = Full::from("ok");
        let (status, body) = match request.uri().path() {
            "/204" => (204, content.boxed()),
            "/304" => (304, content.boxed()),
            _ => (204, StreamBody::new(stream::iter([Ok(Frame::data("ok".into()))])).boxed()),
        };
        Response::builder().status(status).body(body).unwrap()
    })
    .await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    let client = client(&gateway).await;
    for (path, status) in [("/204", 204), ("/304", 304), ("/streamed", 204)] {
        // A client takes bytes behind such a head for an error.
        assert_eq!(reply(&client, get(path)).await, (status.try_into().unwrap(), Bytes::new()), "{path}");
    }
}

#[tokio::test]
async fn trailers_of_http_1_that_http_2_does_not_have_leave_a_response_whole() {
    let backend = Backend::answering(|_| {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nConnection: close\r\nx-sum: 7\r\n\r\n"
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut client = client(&gateway).await;
    let response = client.send_request(get("/")).await.unwrap();
    let body = soon(response.into_body().collect()).await.expect("it is complete");
    assert_eq!(body.trailers().map(|trailers| trailers["x-sum"].clone()).unwrap(), "7");
    assert_eq!(body.to_bytes(), "ok");
}

#[tokio::test]
async fn content_and_trailers_pass_both_ways_to_a_backend_that_speaks_http_2() {
    let backend = Backend::h2c(async |request| {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap();
        let mut trailers = body.trailers().cloned().unwrap_or_default();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [
            Frame::data(Bytes::from(format!("{} {:?} ", parts.uri, parts.headers.get("te")))),
            Frame::data(body.to_bytes()),
            Frame::trailers(trailers),
        ];
        let frames = stream::iter(frames.map(Ok::<_, Infallible>));
        Response::builder().header("content-type", "application/grpc").body(StreamBody::new(frames)).unwrap()
    })
    .await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    let client = client(&gateway).await;
    for _ in 0..2 {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "3".parse().unwrap());
        let frames = [Frame::data(Bytes::from("abc")), Frame::trailers(trailers)];
        let frames = stream::iter(frames.map(Ok));
        let request = Request::post("http://example.org:81/pkg.Service/Method")
            .header("te", "trailers")
            .body(StreamBody::new(frames).boxed())
            .unwrap();
        let response = soon(client.clone().send_request(request)).await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &"application/grpc".parse().unwrap())
        );
        let body = soon(response.collect()).await.unwrap();
        let trailers = body.trailers().cloned().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["x-sum"]),
            (&"0".parse().unwrap(), &"3".parse().unwrap())
        );
        assert_eq!(body.to_bytes(), "http://example.org:81/pkg.Service/Method Some(\"trailers\") abc");
    }
    assert_eq!(backend.connections(), 1);

    let reply = gateway.ask("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(
        reply.text(),
        format!("http://{}/ None ", backend.address),
        "a request without a host gets one"
    );
}

#[tokio::test]
async fn both_directions_of_a_stream_flow_at_once() {
    let backend =
        Backend::h2c(async |request| Response::new(request.into_body().map_err(|_| unreachable!()))).await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    let (upload, request) = upload("/");
    let response = soon(client(&gateway).await.send_request(request)).await.unwrap();
    let mut body = response.into_body();
    for part in ["ping", "pong"] {
        upload.send(part).unwrap();
        assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), part);
    }
    drop(upload);
    assert_eq!(soon(body.collect()).await.unwrap().to_bytes(), "");
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_its_backend_back_and_no_other_stream() {
    let (flooding, written) = Backend::flooding(96 << 20).await;
    let echo = Backend::echo("a").await;
    let gateway = World::new()
        .service("flooding", &[&flooding])
        .service("a", &[&echo])
        .route("r", &[rule("/flood", &to("flooding")), rule("/", &to("a"))])
        .start()
        .await;
    let client = client(&gateway).await;
    let unread = soon(client.clone().send_request(get("/flood"))).await.unwrap();
    let stuck = when_stuck(&written).await;
    assert!(stuck < 48 << 20, "{stuck} bytes were taken from the backend");
    assert_eq!(reply(&client, get("/")).await.0, StatusCode::OK);
    assert_eq!(soon(unread.collect()).await.unwrap().to_bytes().len(), 96 << 20, "and nothing is lost");
}

#[tokio::test]
async fn a_backend_has_no_more_streams_on_a_connection_than_it_allows() {
    let mut settings = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    settings.max_concurrent_streams(2);
    let echo =
        async |request: Request<Incoming>| Response::new(request.into_body().map_err(|_| unreachable!()));
    let backend = Backend::h2c_of(settings, echo).await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    let client = client(&gateway).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let (upload, request) = upload("/");
        let response = soon(client.clone().send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        open.push((upload, response));
    }
    assert_eq!(backend.connections(), 3);
}

/// A client that sends pings all the time, and its connection.
async fn pinging(gateway: &Running) -> (http2::SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let stream = soon(TcpStream::connect(gateway.address())).await.unwrap();
    let mut settings = http2::Builder::new(TokioExecutor::new());
    settings
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(100))
        .keep_alive_while_idle(true);
    let (client, connection) = soon(settings.handshake(TokioIo::new(stream))).await.unwrap();
    (client, tokio::spawn(connection))
}

#[tokio::test]
async fn quiet_connections_and_streams_are_kept() {
    let backend =
        Backend::h2c(async |request| Response::new(request.into_body().map_err(|_| unreachable!()))).await;
    let gateway = World::new()
        .h2c_service("a", &backend)
        .route("r", &[rule("/", &to("a"))])
        .options(&["--header-timeout", "1s", "--stall-timeout", "1s"])
        .start()
        .await;
    let (mut client, _) = pinging(&gateway).await;
    after(Duration::from_millis(1500)).await;

    let (upload, request) = upload("/");
    let response =
        soon(client.send_request(request)).await.expect("a ping is not the beginning of a request");
    let mut body = response.into_body();
    for part in ["ping", "pong"] {
        after(Duration::from_millis(1500)).await;
        upload.send(part).unwrap();
        let echoed = soon(body.frame()).await.unwrap().expect("a stream may be quiet");
        assert_eq!(echoed.into_data().unwrap(), part);
    }
}

#[tokio::test]
async fn a_connection_on_which_there_are_only_pings_is_closed() {
    let backend = Backend::echo("a").await;
    let world = World::of_backend(&backend);
    let gateway = world.options(&["--idle-timeout", "1s"]).start().await;
    let (mut client, connection) = pinging(&gateway).await;
    assert_eq!(soon(client.send_request(get("/"))).await.unwrap().status(), 200);
    soon(connection).await.unwrap().expect("it ends well");
}

#[tokio::test]
async fn a_stream_that_is_reset_ends_the_request_to_the_backend() {
    let left = Arc::new(Notify::new());
    let told = Arc::clone(&left);
    let backend = Backend::raw(move |mut wire| {
        let told = Arc::clone(&told);
        async move {
            let _ = wire.message().await;
            wire.rest().await;
            told.notify_one();
        }
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut client = client(&gateway).await;
    {
        let mut pending = std::pin::pin!(client.send_request(get("/")));
        let asked = eventually("the backend is asked", async || backend.connections() == 1);
        tokio::select! { _ = &mut pending => panic!("nobody answers"), () = asked => {} }
    }
    soon(left.notified()).await;
}

#[tokio::test]
async fn half_an_upload_is_no_upload_whatever_it_is_reset_with() {
    let (told, mut came) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut wire| {
        let told = told.clone();
        async move {
            let Ok(_) = wire.head().await else { return };
            let _ = told.send(wire.chunk().await.unwrap());
            let _ = told.send(wire.rest().await);
        }
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = raw(&gateway).await;
    let post = [&b"\x83"[..], &GET[1..]].concat();
    wire.send(frame(HEADERS, END_HEADERS, 1, &post)).await;
    wire.send(frame(DATA, 0, 1, b"half")).await;
    assert_eq!(soon(came.recv()).await.unwrap(), b"half");
    wire.send(frame(RST_STREAM, 0, 1, &[0; 4])).await;
    assert_eq!(soon(came.recv()).await.unwrap(), b"", "there is no last chunk");
}

#[tokio::test]
async fn half_an_answer_is_no_answer_whatever_it_is_reset_with() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(_) = wire.exactly(PREFACE.len()).await else { return };
        wire.send(frame(SETTINGS, 0, 0, &[])).await;
        while let Ok((kind, _, stream)) = next_frame(&mut wire).await {
            if kind == HEADERS {
                wire.send(frame(HEADERS, END_HEADERS, stream, b"\x88")).await;
                wire.send(frame(DATA, 0, stream, b"half")).await;
                wire.send(frame(RST_STREAM, 0, stream, &[0; 4])).await;
            }
        }
    })
    .await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    // The head may be lost with what follows it.
    let mut client = client(&gateway).await;
    soon(async { client.send_request(get("/")).await?.collect().await }).await.unwrap_err();

    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let came = wire.rest().await;
    assert!(!came.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&came));
}

/// A literal header in HPACK, without Huffman coding; the lengths are of at most 126 bytes.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut literal = vec![0, u8::try_from(name.len()).unwrap()];
    literal.extend(name.bytes());
    literal.push(u8::try_from(value.len()).unwrap());
    literal.extend(value.bytes());
    literal
}

async fn world_of_one() -> (Backend, Running) {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    (backend, gateway)
}

#[tokio::test]
async fn a_head_in_many_frames_is_one_head() {
    let (backend, gateway) = world_of_one().await;
    let mut wire = raw(&gateway).await;
    wire.send(frame(HEADERS, END_STREAM, 1, GET)).await;
    wire.send(frame(CONTINUATION, 0, 1, &literal("x-one", "1"))).await;
    wire.send(frame(CONTINUATION, END_HEADERS, 1, &literal("x-two", "2"))).await;
    eventually("the backend is asked", async || backend.seen().len() == 1).await;
    assert_eq!((backend.last().header("x-one"), backend.last().header("x-two")), (Some("1"), Some("2")));

    let client = client(&gateway).await;
    let mut large = get("/");
    large.headers_mut().insert("x-large", "a".repeat(40_000).parse().unwrap());
    assert_eq!(reply(&client, large).await.0, StatusCode::OK);
    let mut too_large = get("/");
    too_large.headers_mut().insert("x-large", "a".repeat(80_000).parse().unwrap());
    let refused = soon(client.clone().send_request(too_large)).await;
    assert!(refused.is_err() || refused.is_ok_and(|response| response.status() == 431));
    assert_eq!(backend.seen().len(), 2);
}

#[tokio::test]
async fn a_flood_of_frames_ends_the_connection_and_nothing_else() {
    let (backend, gateway) = world_of_one().await;
    let before = gateway.memory();

    let mut resets = raw(&gateway).await;
    let mut flood = BytesMut::new();
    for stream in (1..40_000).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET));
        flood.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    resets.send(flood).await;
    resets.rest().await;
    assert!(backend.seen().len() < 2000, "{} requests reached the backend", backend.seen().len());

    let mut endless = raw(&gateway).await;
    endless.send(frame(HEADERS, END_STREAM, 1, GET)).await;
    let header = literal("x-endless", &"a".repeat(100));
    let headers = header.repeat(100);
    let mut flood = BytesMut::new();
    for _ in 0..500 {
        flood.extend(frame(CONTINUATION, 0, 1, &headers));
    }
    endless.send(flood).await;
    endless.rest().await;

    for (what, bytes) in [
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(100_000)),
        ("pings", frame(6, 0, 0, &[0; 8]).repeat(100_000)),
        ("garbage", b"\xff".repeat(100_000)),
    ] {
        let mut wire = raw(&gateway).await;
        wire.send(bytes).await;
        drop(wire);
        assert_eq!(gateway.get("/").await.status(), 200, "after {what}");
    }
    assert!(gateway.memory() < before + (32 << 20), "{} bytes more", gateway.memory() - before);
}

#[tokio::test]
async fn responses_that_nobody_takes_are_held_in_little_memory() {
    let (flooding, written) = Backend::flooding(8 << 20).await;
    let gateway = World::of_backend(&flooding).start().await;
    let before = gateway.memory();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut wire = raw(&gateway).await;
        // Windows without an end, for each stream and for all.
        wire.send(frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await;
        wire.send(frame(8, 0, 0, &[0x7f, 0xff, 0, 0])).await;
        for stream in (1..200).step_by(2) {
            wire.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)).await;
        }
        clients.push(wire);
    }
    when_stuck(&written).await;
    let more = gateway.memory().saturating_sub(before);
    assert!(more < 100 << 20, "{} KiB for a response", more / 400 / 1024);
}

#[tokio::test]
async fn malformed_heads_reset_their_stream_and_reach_no_backend() {
    let (backend, gateway) = world_of_one().await;
    for (what, fields) in [
        ("a connection header", literal("connection", "close")),
        ("a transfer coding", literal("transfer-encoding", "chunked")),
        ("a name in upper case", literal("X-Upper", "1")),
        ("a line feed in a value", literal("x-a", "1\r\nx-b: 2")),
        ("a pseudo-header after the others", [literal("x-a", "1"), literal(":path", "/b")].concat()),
        ("two paths", literal(":path", "/b")),
        ("another host", literal("host", "a, b")),
    ] {
        let mut wire = raw(&gateway).await;
        let head = [GET, &fields].concat();
        wire.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)).await;
        wire.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, GET)).await;
        drop(wire);
        assert_eq!(gateway.get("/alive").await.status(), 200, "after {what}");
    }
    let seen = backend.seen();
    assert!(seen.iter().all(|seen| seen.all("host") == ["example.org"]), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.header("x-b").is_none() && !seen.start.contains("/b")), "{seen:?}");
}

#[tokio::test]
async fn a_value_is_what_stands_between_blanks() {
    let backend = Backend::echo("a").await;
    let admins = format!("{{matches: [{{headers: [{{name: x-role, value: admin}}]}}], {}}}", to("a"));
    let gateway = World::new().service("a", &[&backend]).route("r", &[admins]).start().await;
    let client = client(&gateway).await;
    // A backend of HTTP/1.1 would leave blanks off, and read what no rule has seen.
    for value in ["admin", " admin", "admin ", "\tadmin", "admin\t", " \tadmin \t"] {
        let mut request = get("/");
        request.headers_mut().insert("x-role", HeaderValue::from_static(value));
        assert_eq!(reply(&client, request).await.0, 200, "{value:?}");
    }
    for value in ["an admin", " ", ""] {
        let mut request = get("/");
        request.headers_mut().insert("x-role", HeaderValue::from_static(value));
        assert_eq!(reply(&client, request).await.0, 404, "{value:?}");
    }
}

#[tokio::test]
async fn a_length_that_is_said_twice_reaches_a_backend_once() {
    let (backend, gateway) = world_of_one().await;
    let request =
        Request::post("http://example.org/").header("content-length", 3).header("content-length", 3);
    let request = request.body(Full::from("abc").boxed()).unwrap();
    assert_eq!(reply(&client(&gateway).await, request).await, (StatusCode::OK, "abc".into()));
    assert_eq!(backend.last().all("content-length"), ["3"]);
}
