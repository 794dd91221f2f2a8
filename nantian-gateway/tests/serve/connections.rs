//! Connections of clients: how many there are, and how they end.

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use tokio::{sync::Notify, time::timeout};

use crate::support::{Backend, Running, World, after, eventually, http2, soon};

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

async fn gateway(backend: &Backend, options: &[&str]) -> Running {
    World::of_backend(backend).options(options).start().await
}

#[tokio::test]
async fn over_the_limit_a_connection_waits_until_another_one_ends() {
    let backend = Backend::echo("a").await;
    let gateway = gateway(&backend, &["--max-connections", "3"]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut wire = gateway.connect().await;
        assert_eq!(wire.get("/").await.status(), 200);
        open.push(wire);
    }
    let mut waiting = gateway.connect().await;
    waiting.send(GET).await;
    assert!(timeout(Duration::from_millis(500), waiting.reply()).await.is_err(), "it has to wait");
    assert_eq!(gateway.metric("nantian_connections").await, Some(3.0));
    gateway.log.more("new connections wait", 0).await;
    for wire in &mut open {
        assert_eq!(wire.get("/").await.status(), 200, "the others are served");
    }
    drop(open.pop());
    assert_eq!(waiting.reply().await.status(), 200);
    drop((open, waiting));
    eventually("the log says that it is over", async || {
        gateway.get("/").await;
        gateway.log.count("new connections need not wait any more") == 1
    })
    .await;
    assert_eq!(gateway.log.count("new connections wait"), 1);
}

#[tokio::test]
async fn that_there_are_no_files_for_sockets_is_told_once_and_so_is_its_end() {
    let gateway = World::new().limited("-n 256").start().await;
    let mut open = Vec::new();
    eventually("there are too many", async || {
        open.push(gateway.connect().await);
        gateway.log.count("there is no socket for a client") > 0
    })
    .await;
    // They are looked for a hundred times a second.
    after(Duration::from_millis(300)).await;
    assert_eq!(gateway.log.count("there is no socket for a client"), 1);
    assert!(gateway.log.text().contains("ulimit -n"), "the log says what to do");
    drop(open);
    eventually("the log says that it is over", async || {
        assert_eq!(gateway.get("/").await.status(), 404);
        gateway.log.count("there are sockets for clients again") == 1
    })
    .await;
    assert_eq!(gateway.log.count("there is no socket for a client"), 1);
}

#[tokio::test]
async fn peers_that_vanish_are_noticed_on_both_sides() {
    let backend = Backend::echo("a").await;
    let gateway = gateway(&backend, &[]).await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/").await.status(), 200);
    // The timer 02 of an established connection (state 01) is that of keep-alive, see proc(5).
    let kept_alive = |local: u16, remote: u16| {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().skip(1).any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let has_port = |field: &str, port: u16| port == 0 || field.ends_with(&format!(":{port:04X}"));
            has_port(fields[1], local)
                && has_port(fields[2], remote)
                && fields[3] == "01"
                && fields[5].starts_with("02:")
        })
    };
    let (listener, backend) = (gateway.address().port(), backend.address.port());
    eventually("the client is watched", async || kept_alive(listener, 0)).await;
    eventually("the backend is watched", async || kept_alive(0, backend)).await;
}

#[tokio::test]
async fn a_client_that_has_ended_its_side_gets_its_answers() {
    let backend = Backend::raw(async |mut wire| {
        while wire.message().await.is_ok() {
            after(Duration::from_millis(150)).await;
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            // Longer together than a silent backend would be waited for.
            for _ in 0..8 {
                after(Duration::from_millis(150)).await;
                wire.send("4\r\npart\r\n").await;
            }
            wire.send("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway(&backend, &[]).await;
    let mut wire = gateway.connect().await;
    wire.send(GET.repeat(2)).await;
    wire.finish().await;
    for _ in 0..2 {
        let reply = wire.reply().await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "part".repeat(8).as_str()));
    }
    assert!(wire.is_closed().await);
}

/// A backend that tells when it is asked for `/slow`, and answers that when it is told to.
async fn slow_backend() -> (Backend, Arc<Notify>, Arc<Notify>) {
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let shared = (Arc::clone(&asked), Arc::clone(&answer));
    let backend = Backend::raw(move |mut wire| {
        let (asked, told) = shared.clone();
        async move {
            while let Ok(request) = wire.message().await {
                if request.start.starts_with("GET /slow") {
                    asked.notify_one();
                    told.notified().await;
                }
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    (backend, asked, answer)
}

#[tokio::test]
async fn idle_connections_make_room_where_there_is_little_left() {
    let (backend, asked, answer) = slow_backend().await;
    let options = ["--max-connections", "16", "--header-timeout", "1s", "--stall-timeout", "1s"];
    let gateway = gateway(&backend, &options).await;
    let mut busy = gateway.connect().await;
    busy.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await;
    soon(asked.notified()).await;
    let mut idle = Vec::new();
    for _ in 0..15 {
        // They do not even answer what asks them to leave.
        let mut wire = http2::raw(&gateway).await;
        soon(http2::next_frame(&mut wire)).await.expect("it has a place");
        idle.push(wire);
    }
    // Long before an idle connection ends by itself.
    assert_eq!(gateway.get("/").await.status(), 200);
    answer.notify_one();
    assert_eq!(busy.reply().await.status(), 200, "who is served is left alone");
}

#[tokio::test]
async fn a_connection_of_the_greatest_age_ends_and_loses_no_request() {
    let (backend, asked, answer) = slow_backend().await;
    let gateway = gateway(&backend, &["--max-connection-age", "3s"]).await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/").await.header("connection"), None);
    eventually("an answer is the last", async || {
        let reply = wire.get("/").await;
        assert_eq!(reply.status(), 200);
        reply.header("connection") == Some("close")
    })
    .await;
    assert!(wire.is_closed().await);

    let client = http2::client(&gateway).await;
    let slow = tokio::spawn({
        let client = client.clone();
        async move { http2::reply(&client, http2::get("/slow")).await }
    });
    soon(asked.notified()).await;
    eventually("it takes no more requests", async || {
        soon(client.clone().send_request(http2::get("/"))).await.is_err()
    })
    .await;
    answer.notify_one();
    assert_eq!(soon(slow).await.unwrap(), (StatusCode::OK, Bytes::from("ok")));
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_call_whatever_the_backend_does() {
    let left = Arc::new(Notify::new());
    let told = Arc::clone(&left);
    let backend = Backend::raw(move |mut wire| {
        let told = Arc::clone(&told);
        async move {
            let Ok(request) = wire.message().await else { return };
            if request.start.starts_with("GET /begun") {
                wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n").await;
            }
            wire.rest().await;
            told.notify_one();
        }
    })
    .await;
    let gateway = gateway(&backend, &[]).await;
    for path in ["/silent", "/begun"] {
        let known = backend.connections();
        let mut wire = gateway.connect().await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        eventually("the backend is asked", async || backend.connections() > known).await;
        if path == "/begun" {
            wire.reply_head().await;
        }
        drop(wire);
        soon(left.notified()).await;
    }
}

#[tokio::test]
async fn a_request_that_is_refused_before_it_has_a_route_is_counted_and_logged() {
    let backend = Backend::echo("a").await;
    let options =
        ["--access-log", "json", "--max-request-head-bytes", "8192", "--max-request-body-bytes", "10"];
    let gateway = gateway(&backend, &options).await;
    let large = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Large: {}\r\n\r\n", "a".repeat(9000));
    let cases: [(&str, u16, Option<&str>); 5] = [
        ("GET /a/..%2fb HTTP/1.1\r\nHost: h\r\nUser-Agent: me\r\n\r\n", 400, Some("/a/..%2fb")),
        ("GET / HTTP/1.1\r\nHost: h\r\nbad header\r\n\r\n", 400, None),
        ("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n", 405, Some("")),
        ("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n", 413, Some("/up")),
        (&large, 431, None),
    ];
    for (number, (request, status, path)) in cases.into_iter().enumerate() {
        let reply = gateway.ask(request).await;
        assert_eq!(reply.status(), status, "{request}");
        let allow = reply.header("allow").is_some_and(|allow| allow.contains("GET"));
        assert_eq!(allow, status == 405, "{request}");
        let line = gateway.output.more("\"route\":\"\"", number).await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["status"], &line["client"]), (&status.into(), &"127.0.0.1".into()), "{line}");
        assert_eq!(line["path"].as_str(), path, "{line}");
    }
    let counted = "nantian_http_requests_total{route=\"\",code_class=\"4xx\"}";
    assert_eq!(gateway.metric(counted).await, Some(5.0));
    assert!(backend.seen().is_empty());
}
