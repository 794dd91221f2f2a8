//! Bytes that flow while the exchange is not over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use tokio::{
    net::TcpSocket,
    sync::{Notify, mpsc},
};

use crate::support::{
    Backend, Wire, World, after, eventually,
    http2::{client, get},
    soon, when_stuck,
};

#[tokio::test]
async fn each_part_of_a_response_reaches_the_client_before_the_next_is_produced() {
    let next = Arc::new(Notify::new());
    let wanted = Arc::clone(&next);
    let backend = Backend::raw(move |mut wire| {
        let wanted = Arc::clone(&wanted);
        async move {
            let Ok(_) = wire.message().await else { return };
            wire.send(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .await;
            for part in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"] {
                wanted.notified().await;
                wire.send(part).await;
            }
        }
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wire.reply_head().await.status(), 200);
    for part in ["one", "two", ""] {
        next.notify_one();
        assert_eq!(soon(wire.chunk()).await.unwrap(), part.as_bytes());
    }
}

#[tokio::test]
async fn each_part_of_an_upload_reaches_the_backend_before_the_next_is_sent() {
    let (parts, mut received) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut wire| {
        let parts = parts.clone();
        async move {
            let Ok(_) = wire.head().await else { return };
            while let Ok(part) = wire.chunk().await {
                let last = part.is_empty();
                parts.send(part).unwrap();
                if last {
                    return wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        }
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for part in ["one", "two"] {
        wire.send(format!("3\r\n{part}\r\n")).await;
        assert_eq!(soon(received.recv()).await.unwrap(), part.as_bytes());
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.reply().await.status(), 200);
}

#[tokio::test]
async fn both_directions_flow_at_once() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(_) = wire.head().await else { return };
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while let Ok(part) = wire.chunk().await {
            let part = String::from_utf8(part).unwrap();
            wire.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
        }
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(wire.reply_head().await.status(), 200);
    for part in ["ping", "pong"] {
        wire.send(format!("4\r\n{part}\r\n")).await;
        assert_eq!(soon(wire.chunk()).await.unwrap(), part.as_bytes());
    }
}

/// What is sent, and more than the sockets on its way hold.
const SENT: usize = 96 << 20;
const BUFFERED: usize = 48 << 20;

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_backend_back() {
    let (backend, written) = Backend::flooding(SENT).await;
    let gateway = World::of_backend(&backend).start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(65_536).unwrap();
    let mut wire = Wire::over(soon(socket.connect(gateway.address())).await.unwrap());
    let before = gateway.memory();
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let stuck = when_stuck(&written).await;
    assert!(stuck < BUFFERED, "{stuck} bytes were taken from the backend");
    let kept = gateway.memory().saturating_sub(before);
    assert!(kept < 16 << 20, "the gateway keeps {kept} bytes that nobody reads");

    assert_eq!(wire.reply().await.body.len(), SENT, "and nothing is lost");
}

#[tokio::test]
async fn a_backend_that_does_not_read_holds_the_client_back() {
    let go_on = Arc::new(Notify::new());
    let wanted = Arc::clone(&go_on);
    let backend = Backend::raw(move |mut wire| {
        let wanted = Arc::clone(&wanted);
        async move {
            let Ok(mut request) = wire.head().await else { return };
            wanted.notified().await;
            wire.body_of(&mut request).await.unwrap();
            let length = request.body.len().to_string();
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{length}", length.len())).await;
        }
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    wire.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {SENT}\r\n\r\n")).await;
    let before = gateway.memory();
    let written = AtomicUsize::new(0);
    let upload = async {
        while written.load(Relaxed) < SENT {
            wire.write(&[b'x'; 65_536]).await.unwrap();
            written.fetch_add(65_536, Relaxed);
        }
        wire
    };
    let check = async {
        let stuck = when_stuck(&written).await;
        assert!(stuck < BUFFERED, "{stuck} bytes were taken from the client");
        let kept = gateway.memory().saturating_sub(before);
        assert!(kept < 16 << 20, "the gateway keeps {kept} bytes that nobody reads");
        go_on.notify_one();
    };
    let (mut wire, ()) = tokio::join!(upload, check);
    assert_eq!(wire.reply().await.text(), SENT.to_string());
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_ends_the_exchange_with_the_backend() {
    let left = Arc::new(Notify::new());
    let told = Arc::clone(&left);
    let backend = Backend::raw(move |mut wire| {
        let told = Arc::clone(&told);
        async move {
            let Ok(_) = wire.head().await else { return };
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
            wire.rest().await;
            told.notify_one();
        }
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut reader = gateway.connect().await;
    reader.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    reader.reply_head().await;
    drop(reader);
    soon(left.notified()).await;

    let mut writer = gateway.connect().await;
    writer.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf").await;
    writer.reply_head().await;
    drop(writer);
    soon(left.notified()).await;
    eventually("both are over", async || {
        gateway.metric("nantian_http_requests_in_flight{route=\"demo/r\"}").await == Some(0.0)
    })
    .await;
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_look_complete() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(request) = wire.message().await else { return };
        let reply = match request.start.split(' ').nth(1) {
            Some("/length") => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ",
            Some("/chunks") => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf \r\n",
            Some("/broken") => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf \r\nx\r\n",
            _ => "HTTP/1.1 200 OK\r\n\r\nhalf whole",
        };
        wire.send(reply).await;
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    for path in ["/length", "/chunks", "/broken"] {
        let mut wire = gateway.connect().await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let said = wire.rest().await;
        assert!(!said.ends_with(b"0\r\n\r\n") && !said.ends_with(b"half whole"), "{path}: {said:?}");
    }
    assert_eq!(gateway.get("/end-of-connection").await.text(), "half whole");
}

#[tokio::test]
async fn what_came_of_a_response_that_breaks_off_reaches_the_client_and_the_log() {
    const LENGTH: usize = 3_000_000;
    let backend = Backend::raw(async |mut wire| {
        let Ok(request) = wire.message().await else { return };
        let length = if request.start.contains("/large") { LENGTH } else { 4 };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", length + 1);
        wire.write(&[head.into_bytes(), vec![b'x'; length]].concat()).await.unwrap();
        wire.finish().await;
        // A socket that is closed with bytes unsent is the first that the kernel resets when its memory for
        // TCP runs short.
        let _ = wire.message().await;
    })
    .await;
    let world = World::of_backend(&backend);
    let gateway = world.options(&["--access-log", "json"]).start().await;
    for (path, length) in [("/small", 4), ("/large", LENGTH)] {
        let mut wire = gateway.connect().await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        assert_eq!(wire.reply_head().await.status(), 200);
        // The backend has ended before the client reads on.
        after(Duration::from_millis(200)).await;
        assert_eq!(wire.rest().await.len(), length, "{path}");
        let line = gateway.output.more(path, 0).await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &length.into()));
        assert!(line["error"].as_str().unwrap().contains("end of file"), "{line}");
    }
    let response = soon(client(&gateway).await.send_request(get("/small"))).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "xxxx", "over HTTP/2");
    assert!(soon(body.frame()).await.unwrap().is_err());
}
