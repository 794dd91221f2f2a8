//! Bytes that are meant to confuse a proxy.

use crate::support::{Backend, Running, World, eventually};

/// Sends `bytes`; they must be refused with `status`, the connection closed, and nothing more said.
async fn assert_refused(gateway: &Running, what: &str, bytes: &[u8], status: u16) {
    let mut wire = gateway.connect().await;
    let reply = wire.ask(bytes).await;
    assert_eq!(reply.status(), status, "{what}: {reply:?}");
    assert!(wire.is_closed().await, "{what} must end the connection");
}

#[tokio::test]
async fn a_head_that_two_parsers_could_read_differently_is_refused() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    for (what, head, status) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("no host beside a whole URI", "GET http://h/ HTTP/1.1\r\n\r\n", 400),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("a host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("a host with a bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        ("a host with a bracket", "GET / HTTP/1.1\r\nHost: a]\r\n\r\n", 400),
        ("two hosts in one", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        (
            "length and chunks",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "chunks and length",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
        ),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2, 3\r\n\r\nab", 400),
        ("a signed length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\nab", 400),
        ("a negative length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -2\r\n\r\nab", 400),
        ("a hexadecimal length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x2\r\n\r\nab", 400),
        (
            "a huge length",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\nab",
            400,
        ),
        (
            "a coding before chunks",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            501,
        ),
        ("chunks twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 501),
        (
            "chunks on two lines",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            501,
        ),
        (
            "chunks that are not last",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            400,
        ),
        ("an unknown coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        (
            "a coding with a control",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            400,
        ),
        ("chunks in 1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("a folded header", "GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n 2\r\n\r\n", 400),
        ("a space before the colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        ("a space in a name", "GET / HTTP/1.1\r\nHost: h\r\nX A: 1\r\n\r\n", 400),
        ("a header without a name", "GET / HTTP/1.1\r\nHost: h\r\n: 1\r\n\r\n", 400),
        ("a header without a colon", "GET / HTTP/1.1\r\nHost: h\r\nX-A\r\n\r\n", 400),
        ("a space before the first header", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
        ("a zero byte in a value", "GET / HTTP/1.1\r\nHost: h\r\nX-A: a\0b\r\n\r\n", 400),
        ("a zero byte in a name", "GET / HTTP/1.1\r\nHost: h\r\nX\0A: 1\r\n\r\n", 400),
        ("a carriage return in a value", "GET / HTTP/1.1\r\nHost: h\r\nX-A: a\rb\r\n\r\n", 400),
        ("an unknown version", "GET / HTTP/3.7\r\nHost: h\r\n\r\n", 400),
        ("a scheme of another protocol", "GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("no version", "GET /\r\n\r\n", 400),
        ("a tunnel", "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n", 405),
    ] {
        assert_refused(&gateway, what, format!("{head}{smuggled}").as_bytes(), status).await;
    }
    assert_eq!(backend.connections(), 0, "nothing of it may reach a backend");
    assert_eq!(gateway.get("/").await.status(), 200);
}

#[tokio::test]
async fn a_body_with_broken_chunks_is_refused() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    for (what, body) in [
        ("no size", "x\r\nabc\r\n0\r\n\r\n"),
        ("a signed size", "+3\r\nabc\r\n0\r\n\r\n"),
        ("a hexadecimal prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("a size that overflows", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("a chunk that is longer", "2\r\nabc\r\n0\r\n\r\n"),
        ("a chunk without an end", "3\r\nabc0\r\n\r\n"),
        ("a line feed alone after a size", "3\nabc\r\n0\r\n\r\n"),
        ("a line feed in an extension", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_refused(&gateway, what, request.as_bytes(), 400).await;
    }
    eventually("its connections are over", async || gateway.metric("nantian_connections").await == Some(0.0))
        .await;
    assert_eq!(backend.seen(), [], "no backend may take it for complete");
}

#[tokio::test]
async fn a_pipelined_request_is_looked_at_as_closely_as_the_first() {
    let ambiguous = "POST /second HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    for first in [
        "GET /first HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /first HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "POST /first HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut wire = gateway.connect().await;
        assert_eq!(wire.ask(format!("{first}{ambiguous}")).await.status(), 200, "{first:?}");
        assert_eq!(wire.reply().await.status(), 400, "after {first:?}");
        assert!(wire.is_closed().await);
    }
    assert!(backend.seen().iter().all(|seen| seen.start.contains("/first")));
}

#[tokio::test]
async fn no_spelling_of_an_upgrade_to_http_2_opens_a_tunnel_to_a_backend() {
    let backend = Backend::answering(|request| match request.header("upgrade") {
        Some(_) => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        None => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    for upgrade in ["h2c", "H2C", "websocket, h2c"] {
        let reply = gateway
            .ask(format!(
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
                 HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
            ))
            .await;
        assert_eq!(reply.status(), 200, "{upgrade}");
        assert_eq!(backend.last().header("upgrade"), None, "{upgrade}");
    }
}
