//! HTTP/1.1 and 1.0 on both sides.

use std::{io::ErrorKind, sync::Arc};

use http::Method;
use tokio::sync::Notify;

use crate::support::{
    Backend, World, eventually,
    http2::{self, client, upload},
    rule, soon, to,
};

#[tokio::test]
async fn connections_are_kept_and_pipelined_requests_answered_in_order() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    for path in ["/1", "/2", "/3"] {
        assert_eq!(wire.get(path).await.status(), 200);
        assert_eq!(backend.last().start, format!("GET {path} HTTP/1.1"));
    }
    let bodies = ["first", "", "third"];
    let pipelined: String = bodies
        .iter()
        .map(|body| format!("POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
        .collect();
    wire.send(pipelined).await;
    for body in bodies {
        assert_eq!(wire.reply().await.text(), body);
    }
    assert_eq!(backend.connections(), 1);

    let reply = wire.ask("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn chunked_bodies_and_trailers_pass_both_ways() {
    let backend = Backend::answering(|_| {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nx-sum: 7\r\n\r\n"
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    let upload = "POST / HTTP/1.1\r\nhost: h\r\nte: trailers\r\ntransfer-encoding: chunked\r\ntrailer: x-in\r\n\r\n\
                  5\r\nhello\r\n1\r\n!\r\n0\r\nx-in: 6\r\n\r\n";
    for _ in 0..2 {
        let reply = wire.ask(upload).await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "abcdefg"));
        assert_eq!(reply.trailers, [("x-sum".to_owned(), "7".to_owned())]);
        let seen = backend.last();
        assert_eq!(seen.body, b"hello!");
        assert_eq!(seen.trailers, [("x-in".to_owned(), "6".to_owned())]);
        assert_eq!(seen.header("te"), Some("trailers"));
    }
    let reply = wire.ask("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(reply.trailers, [], "a client that takes no trailers gets none");
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn trailers_tell_a_backend_nothing_that_the_head_may_not() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    let upload = |trailers: &str| {
        format!(
            "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\
             trailer: X-Forwarded-For, Client-Cert, X-Sum\r\n\r\n1\r\n!\r\n0\r\n{trailers}\r\n"
        )
    };
    let claims = "X-Forwarded-For: 10.0.0.1\r\nClient-Cert: :MII=:\r\nConnection: close\r\n";
    let mut wire = gateway.connect().await;
    for (trailers, passed) in [
        (format!("{claims}X-Sum: 7\r\n"), vec![("x-sum".to_owned(), "7".to_owned())]),
        (claims.to_owned(), Vec::new()),
    ] {
        assert_eq!(wire.ask(upload(&trailers)).await.status(), 200);
        assert_eq!(backend.last().trailers, passed);
    }
}

#[tokio::test]
async fn content_of_unknown_length_is_passed_on_whatever_the_method_is() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST"] {
        wire.send(format!("{method} / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
        wire.send("3\r\nabc\r\n0\r\n\r\n").await;
        assert_eq!(wire.reply_head().await.status(), 200);
        if method != "HEAD" {
            assert_eq!(wire.exactly(3).await.unwrap(), b"abc");
        }
        let seen = backend.last();
        assert_eq!(
            (seen.text().as_str(), seen.all("transfer-encoding")),
            ("abc", vec!["chunked"]),
            "{method}"
        );
    }

    let broken = "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(gateway.ask(broken).await.status(), 400);

    let client = client(&gateway).await;
    let (parts, mut request) = upload("/");
    *request.method_mut() = Method::GET;
    parts.send("abc").unwrap();
    drop(parts);
    assert_eq!(http2::reply(&client, request).await.1, "abc", "from HTTP/2");
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_one_request() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    for _ in 0..2 {
        let request = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for byte in request.as_bytes() {
            wire.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(wire.reply().await.text(), "abc");
    }
    assert_eq!(backend.seen().len(), 2);
}

#[tokio::test]
async fn responses_without_content_leave_the_connection_usable() {
    let backend = Backend::answering(|request| match request.start.split(' ').nth(1) {
        Some("/204") => "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n",
        Some("/304") => "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 12\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n",
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    for path in ["/204", "/304"] {
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
        let head = wire.reply_head().await;
        assert_eq!(head.status().to_string(), path[1..]);
        assert_eq!(head.header("transfer-encoding"), None);
    }
    for _ in 0..2 {
        wire.send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let head = wire.reply_head().await;
        assert_eq!((head.status(), head.header("content-length")), (200, Some("1234")));
    }
    wire.send("HEAD /nowhere HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    wire.reply_head().await;
    assert!(wire.is_closed().await);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn http_1_0_clients_are_served_in_their_own_terms() {
    let backend =
        Backend::answering(|_| "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .await;
    let gateway = World::of_backend(&backend).start().await;

    let mut wire = gateway.connect().await;
    let reply = wire.ask("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "abc"));
    assert_eq!(reply.header("transfer-encoding"), None, "1.0 knows no chunks");
    assert!(wire.is_closed().await);
    let seen = backend.last();
    assert_eq!(seen.start, "GET / HTTP/1.1");
    assert_eq!(seen.all("host"), [backend.address.to_string()], "1.1 requires a host");

    let mut wire = gateway.connect().await;
    let reply = wire.ask("GET / HTTP/1.0\r\nHost: example.org\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(reply.text(), "abc");
    assert_eq!(reply.all("connection"), ["close"], "its end is that of the content");
    assert_eq!(backend.last().all("host"), ["example.org"]);

    let mut wire = gateway.connect().await;
    let reply = wire.ask("GET /a/..%2fb HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!((reply.status(), reply.all("connection")), (400, vec!["close"]));
    assert!(wire.is_closed().await);

    let kept = "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let mut wire = gateway.connect().await;
    for _ in 0..2 {
        wire.send(kept).await;
        assert_eq!(wire.reply_head().await.all("connection"), ["keep-alive"], "there is no content to end");
    }
}

#[tokio::test]
async fn content_that_ends_with_its_connection_is_not_taken_for_whole_where_it_breaks_off() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(request) = wire.message().await else { return };
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        if request.start.contains("/whole") {
            wire.send("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    for (path, end) in [("/whole", None), ("/broken", Some(ErrorKind::ConnectionReset))] {
        let mut wire = gateway.connect().await;
        wire.send(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        assert_eq!(wire.reply_head().await.status(), 200);
        assert_eq!(wire.end().await, end, "{path}");
    }
}

#[tokio::test]
async fn a_client_is_told_to_continue_once_a_backend_takes_the_body() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(mut request) = wire.head().await else { return };
        wire.body_of(&mut request).await.unwrap();
        wire.send(format!("HTTP/1.1 200 OK\r\nx-expect: {:?}\r\n", request.header("expect"))).await;
        wire.send(format!("content-length: {}\r\n\r\n{}", request.body.len(), request.text())).await;
    })
    .await;
    let limits = "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {name: none, namespace: demo}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: limited}], requestsPerMinute: 0}";
    let gateway = World::new()
        .service("a", &[&backend])
        .service("empty", &[])
        .route("r", &[rule("/taken", &to("a")), rule("/empty", &to("empty"))])
        .route("limited", &[rule("/limited", &to("a"))])
        .manifest("limits", limits)
        .options(&["--max-request-body-bytes", "1000"])
        .start()
        .await;
    let expecting = |path: &str, length: usize| {
        format!("PUT {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    for (path, length, status) in
        [("/nowhere", 5, 404), ("/limited", 5, 429), ("/empty", 5, 503), ("/taken", 1001, 413)]
    {
        let mut wire = gateway.connect().await;
        assert_eq!(wire.ask(expecting(path, length)).await.status(), status, "{path} must not get 100");
    }
    assert_eq!(backend.connections(), 0);

    let mut wire = gateway.connect().await;
    wire.send(expecting("/taken", 5)).await;
    assert_eq!(wire.reply_head().await.status(), 100);
    wire.send("hello").await;
    let reply = wire.reply().await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "hello"));
    assert_eq!(reply.header("x-expect"), Some("None"), "the expectation was met by the gateway");
}

#[tokio::test]
async fn requests_that_a_proxy_must_read_closely_reach_the_right_backend() {
    let backend = Backend::echo("a").await;
    let world = World::new().service("a", &[&backend]).route_of("r", "example.org", &[rule("/", &to("a"))]);
    let gateway = world.start().await;
    let mut wire = gateway.connect().await;

    let reply = wire.ask("GET http://example.org:81/x?y HTTP/1.1\r\nHost: elsewhere.net\r\n\r\n").await;
    assert_eq!(reply.status(), 200, "the target of the request line counts");
    let seen = backend.last();
    assert_eq!((seen.start.as_str(), seen.all("host")), ("GET /x?y HTTP/1.1", vec!["example.org:81"]));
    let reply = wire.ask("GET http://elsewhere.net/ HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    assert_eq!(reply.status(), 404);

    let reply = wire.ask("GET http://example.org?x=1 HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    assert_eq!((reply.status(), backend.last().start.as_str()), (200, "GET /?x=1 HTTP/1.1"));

    let reply = wire.ask("OPTIONS * HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    assert_eq!(reply.status(), 200);
    assert_eq!(backend.last().start, "OPTIONS * HTTP/1.1");

    let reply = gateway.ask("GET * HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    assert_eq!(reply.status(), 400);
    let reply = gateway.ask("PURGE /x HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    assert_eq!(reply.status(), 200);
    assert_eq!(backend.last().start, "PURGE /x HTTP/1.1");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_uploading() {
    let backend = Backend::raw(async |mut wire| {
        let _ = wire.head().await;
        wire.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
        wire.rest().await;
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\nfirst").await;
    let reply = wire.reply().await;
    assert_eq!((reply.status(), reply.text().as_str()), (403, "no"));
    wire.send(vec![b'x'; 100_000]).await;
    assert!(wire.is_closed().await, "nobody reads the rest");
}

#[tokio::test]
async fn an_early_answer_of_a_backend_that_closes_at_once_is_not_lost() {
    let backend = Backend::raw(async |mut wire| {
        let _ = wire.head().await;
        wire.send("HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno").await;
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    for _ in 0..20 {
        let mut wire = gateway.connect().await;
        wire.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3000000\r\n\r\n").await;
        wire.send(vec![b'x'; 3_000_000]).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status(), reply.text().as_str()), (413, "no"));
    }
}

#[tokio::test]
async fn informational_responses_do_not_end_the_exchange() {
    let backend = Backend::answering(
        |_| "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    for _ in 0..2 {
        assert_eq!(wire.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_to_the_backend() {
    let left = Arc::new(Notify::new());
    let told = Arc::clone(&left);
    let backend = Backend::raw(move |mut wire| {
        let told = Arc::clone(&told);
        async move {
            let _ = wire.head().await;
            wire.rest().await;
            told.notify_one();
        }
    })
    .await;
    let gateway = World::of_backend(&backend).start().await;
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    eventually("the backend is asked", async || backend.connections() == 1).await;
    drop(wire);
    soon(left.notified()).await;
}
