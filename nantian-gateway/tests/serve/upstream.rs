//! Connections to backends.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, client, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, Socket, Type};
use tokio::{net::TcpStream, sync::Notify};

use crate::support::{
    Backend, Port, World,
    http2::{
        ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, client, client_of, frame,
        get, next_frame,
    },
    rule, soon, to,
};

/// Answers the first request of each connection, and closes when it has read the second.
async fn forgetful() -> (Backend, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let backend = Backend::raw(move |mut wire| {
        let count = Arc::clone(&count);
        async move {
            for reply in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", ""] {
                let Ok(_) = wire.message().await else { return };
                count.fetch_add(1, Relaxed);
                wire.send(reply).await;
            }
        }
    })
    .await;
    (backend, requests)
}

#[tokio::test]
async fn a_pooled_connection_that_dies_is_replaced_only_where_nothing_happens_twice() {
    let (backend, requests) = forgetful().await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/").await.status(), 200);
    assert_eq!(wire.get("/").await.status(), 200, "a GET is sent again");
    assert_eq!((backend.connections(), requests.load(Relaxed)), (2, 3));

    let reply = wire.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(reply.status(), 502, "a POST may have happened");
    assert_eq!((backend.connections(), requests.load(Relaxed)), (2, 4), "and is not sent again");

    let reply = wire.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(reply.status(), 200, "the client's connection goes on");
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_is_not_used() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(request) = wire.message().await else { return };
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len())).await;
        wire.send(request.body).await;
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    for requests in 1..=20 {
        let reply = wire.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
        assert_eq!(reply.status(), 200);
        assert_eq!(backend.connections(), requests);
    }
}

#[tokio::test]
async fn a_shared_connection_that_ends_is_replaced() {
    let cut = Arc::new(Notify::new());
    let told = Arc::clone(&cut);
    let backend = Backend::raw(move |wire| {
        let told = Arc::clone(&told);
        let service = service_fn(async |request: Request<Incoming>| {
            let body = request.into_body().collect().await?;
            Ok::<_, hyper::Error>(Response::new(Full::new(body.to_bytes())))
        });
        async move {
            let connection = http2::Builder::new(TokioExecutor::new());
            let connection = connection.serve_connection(TokioIo::new(wire.into_io()), service);
            tokio::select! { _ = connection => {}, () = told.notified() => {} }
        }
    })
    .await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    let mut wire = gateway.connect().await;
    for connections in 1..=4 {
        // It may meet the connection in the moment of its death, and is idempotent.
        assert_eq!(wire.get("/").await.status(), 200);
        let reply = wire.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "abc"));
        assert_eq!(backend.connections(), connections);
        cut.notify_waiters();
    }
}

#[tokio::test]
async fn streams_that_clients_leave_end_no_connection_that_others_share() {
    const LEFT: usize = 98;
    // Begins an answer to every request, sends more of those that were left, and ends the first.
    let backend = Backend::raw(async |mut wire| {
        let Ok(_preface) = wire.exactly(24).await else { return };
        wire.send(frame(SETTINGS, 0, 0, &[])).await;
        let (mut left, mut late) = (0, Vec::new());
        let mut rounds = 60;
        while let Ok((kind, flags, stream)) = next_frame(&mut wire).await {
            match kind {
                SETTINGS if flags & ACK == 0 => wire.send(frame(SETTINGS, ACK, 0, &[])).await,
                // Of the static table of HPACK: `:status: 200`.
                HEADERS => wire.send(frame(HEADERS, END_HEADERS, stream, &[0x88])).await,
                RST_STREAM if left < LEFT => {
                    left += 1;
                    late.extend(frame(DATA, 0, stream, b"late"));
                    if left == LEFT {
                        late.extend(frame(PING, 0, 0, &[0; 8]));
                        wire.send(&late).await;
                    }
                }
                PING if rounds > 0 => {
                    rounds -= 1;
                    wire.send(&late).await;
                }
                PING => wire.send(frame(DATA, END_STREAM, 1, b"done")).await,
                _ => {}
            }
        }
    })
    .await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    let mut client = client(&gateway).await;
    let first = soon(client.send_request(get("/"))).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..LEFT {
        others.push(soon(client.send_request(get("/"))).await.unwrap());
    }
    drop(others);
    assert_eq!(soon(first.collect()).await.unwrap().to_bytes(), "done");
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn large_heads_and_trailers_of_a_backend_that_speaks_http_2_are_passed_on_whole() {
    const LARGE: usize = 100_000;
    let backend = Backend::h2c(async |_| {
        let large = HeaderValue::from_str(&"a".repeat(LARGE)).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-details", large.clone());
        trailers.insert("x-status", HeaderValue::from_static("0"));
        let frames = [Frame::data(Bytes::from("abc")), Frame::trailers(trailers)];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
        Response::builder().header("x-large", large).body(body).unwrap()
    })
    .await;
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule("/", &to("a"))]).start().await;
    let mut settings = client::conn::http2::Builder::new(TokioExecutor::new());
    let client = client_of(&gateway, settings.max_header_list_size(1 << 20)).await;
    let response = soon(client.clone().send_request(get("/"))).await.unwrap();
    assert_eq!(response.headers().get("x-large").map(HeaderValue::len), Some(LARGE));
    let body = soon(response.collect()).await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    assert_eq!(trailers.get("x-details").map(HeaderValue::len), Some(LARGE));
    assert_eq!(trailers.get("x-status").map(HeaderValue::as_bytes), Some(&b"0"[..]));
}

#[tokio::test]
async fn a_host_that_http_2_has_no_words_for_is_not_the_fault_of_the_backend() {
    let backend = Backend::h2c(async |_| Response::new(Full::new(Bytes::new()))).await;
    let host =
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: host, value: 'a]'}]}}]";
    let rule = rule("/", &format!("{host}, {}", to("a")));
    let gateway = World::new().h2c_service("a", &backend).route("r", &[rule]).start().await;
    let mut wire = gateway.connect().await;
    for _ in 0..6 {
        assert_eq!(wire.get("/").await.status(), 500);
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_backend_that_does_not_speak_http_is_answered_for() {
    let port = Port::reserve();
    let refusing = Backend::at(port.address());
    let rude = Backend::raw(async |mut wire| {
        let Ok(request) = wire.message().await else { return };
        let large = format!("HTTP/1.1 200 OK\r\nx-large: {}\r\n\r\n", "a".repeat(1_000_000));
        wire.send(match request.start.split(' ').nth(1) {
            Some("/garbage") => "SSH-2.0-OpenSSH_9.2\r\n",
            Some("/nothing") => "",
            Some("/half") => "HTTP/1.1 200 OK\r\nx-half: ",
            Some("/status") => "HTTP/1.1 9 Nine\r\n\r\n",
            Some("/lengths") => "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            Some("/twice") => "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\ncontent-length: 2\r\n\r\nab",
            Some("/empty") => "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
            Some("/folded") => "HTTP/1.1 200 OK\r\nx-a: 1\r\n 2\r\ncontent-length: 0\r\n\r\n",
            _ => &large,
        })
        .await;
    })
    .await;
    let mut gateway = World::new()
        .options(&["--access-log", "json"])
        .service("refusing", &[&refusing])
        .service("rude", &[&rude])
        .route("r", &[rule("/refusing", &to("refusing")), rule("/", &to("rude"))])
        .start()
        .await;
    let mut wire = gateway.connect().await;
    for path in ["/refusing", "/garbage", "/nothing", "/half", "/status", "/lengths", "/folded", "/large"] {
        assert_eq!(wire.get(path).await.status(), 502, "{path}");
    }
    assert_eq!(
        gateway.metric("nantian_http_requests_total{route=\"demo/r\",code_class=\"5xx\"}").await,
        Some(8.0)
    );
    let twice = wire.get("/twice").await;
    assert_eq!((twice.all("content-length"), twice.text().as_str()), (vec!["2"], "ab"));
    let empty = wire.get("/empty").await;
    assert_eq!((empty.status(), empty.all("content-length").len()), (204, 0));
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let lines: Vec<serde_json::Value> =
        gateway.output.all().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let logged = |at: usize| lines[at]["error"].as_str().unwrap_or_default();
    assert!(logged(0).contains("no connection to") && logged(0).contains("refused"), "{}", logged(0));
    assert!(logged(1).contains("broke off") && logged(1).contains("pars"), "{}", logged(1));
    assert_eq!(logged(8), "", "an answer that passes");
}

#[tokio::test]
async fn content_in_a_transfer_coding_that_is_not_known_is_not_passed_on() {
    const CODINGS: [(&str, u16); 6] = [
        ("gzip, chunked", 502),
        ("gzip", 502),
        ("chunked, gzip", 502),
        ("identity\r\nContent-Length: 3", 502),
        ("chunked\r\nTransfer-Encoding: chunked", 502),
        ("Chunked", 200),
    ];
    let backend = Backend::answering(|request| {
        let at: usize = request.header("x-at").unwrap().parse().unwrap();
        let (coding, _) = CODINGS[at];
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    for (at, (coding, status)) in CODINGS.into_iter().enumerate() {
        let reply = wire.ask(format!("GET / HTTP/1.1\r\nHost: h\r\nX-At: {at}\r\n\r\n")).await;
        assert_eq!(reply.status(), status, "{coding}");
        assert_eq!(backend.connections(), at + 1, "nothing follows on the connection of the one before");
    }
}

#[tokio::test]
async fn a_backend_that_does_not_accept_is_given_up_in_time() {
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _queued = TcpStream::connect(address).await.unwrap();
    let gateway = World::new()
        .service("full", &[&Backend::at(address)])
        .route("r", &[rule("/", &to("full"))])
        .options(&["--connect-timeout", "300ms"])
        .start()
        .await;
    assert_eq!(gateway.get("/").await.status(), 504);
}

#[tokio::test]
async fn a_request_that_reaches_no_endpoint_is_sent_to_another() {
    let (alive, gone) = (Backend::echo("alive").await, Port::reserve());
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    full.listen(0).unwrap();
    let full = full.local_addr().unwrap().as_socket().map(|address| (full, address)).unwrap();
    let _queued = TcpStream::connect(full.1).await.unwrap();
    let gateway = World::new()
        .service("a", &[&alive, &Backend::at(gone.address())])
        .service("b", &[&alive, &Backend::at(full.1)])
        .service("none", &[&Backend::at(gone.address()), &Backend::at(full.1)])
        .route("r", &[rule("/a", &to("a")), rule("/b", &to("b")), rule("/none", &to("none"))])
        .options(&["--connect-timeout", "200ms"])
        .start()
        .await;
    for path in ["/a", "/b"] {
        for _ in 0..4 {
            let mut wire = gateway.connect().await;
            assert_eq!(wire.get(path).await.status(), 200, "{path}");
            let post = format!("POST {path} HTTP/1.1\r\nHost: h\r\n");
            let reply = wire.ask(format!("{post}Content-Length: 3\r\n\r\nabc")).await;
            assert_eq!((reply.status(), reply.text().as_str()), (200, "abc"), "{path}");
            let reply =
                wire.ask(format!("{post}Transfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n")).await;
            assert_eq!((reply.status(), reply.text().as_str()), (200, "de"), "{path}");
            assert_eq!(alive.last().all("content-length").len(), 0, "{path}");
        }
    }
    let status = gateway.get("/none").await.status();
    assert!(matches!(status, 502 | 504), "{status}");
}

#[tokio::test]
async fn endpoints_come_and_go_with_their_manifest() {
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    let gateway = World::new().service("s", &[&a]).route("r", &[rule("/", &to("s"))]).start().await;
    let mut wire = gateway.connect().await;
    let mut names = async || {
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..4 {
            let reply = wire.get("/").await;
            names.insert(reply.header("x-backend").map_or(reply.status().to_string(), str::to_owned));
        }
        names.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names().await, "a");
    gateway.edit_service("s", &[&a, &b]).await;
    assert_eq!(names().await, "a b");
    gateway.edit_service("s", &[&b]).await;
    assert_eq!(names().await, "b");
    gateway.edit_service("s", &[]).await;
    assert_eq!(names().await, "503");
    gateway.edit_service("s", &[&a]).await;
    assert_eq!(names().await, "a");
}

#[tokio::test]
async fn connections_are_shared_by_the_clients_of_a_worker() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    for _ in 0..40 {
        assert_eq!(gateway.get("/").await.status(), 200);
    }
    assert!(backend.connections() <= 2, "{} connections for two workers", backend.connections());
}

#[tokio::test]
async fn a_connection_that_a_client_has_authenticated_is_not_shared() {
    let backend = Backend::answering(|request| match request.start.split(' ').nth(1) {
        Some("/ntlm") => {
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=a, NTLM\r\ncontent-length: 0\r\n\r\n"
        }
        Some("/basic") => {
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=a\r\ncontent-length: 0\r\n\r\n"
        }
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    for (path, authorization, connections) in [
        ("/", "Bearer ntlm", 1),
        ("/basic", "Basic YTpi", 1),
        ("/ntlm", "", 1),
        ("/", "NTLM TlRMTVNTUAABAAAA", 1),
        ("/", "negotiate YII=", 2),
        ("/", "Bearer t", 3),
        ("/", "Bearer t", 3),
    ] {
        wire.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {authorization}\r\n\r\n")).await;
        assert_eq!(backend.connections(), connections, "{path} {authorization}");
    }
}
