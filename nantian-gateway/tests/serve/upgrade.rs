//! Connections that leave HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::{
    Backend, Running, Wire, World, after, eventually, lb_policy, limits::limits, rule, soon, to,
};

/// Changes the protocol and sends every byte back in upper case, until the client ends or sends a `q`.
async fn shouting() -> Backend {
    Backend::raw(async |mut wire| {
        let Ok(request) = wire.head().await else { return };
        let upgrades =
            request.header("upgrade") == Some("websocket") && request.header("connection") == Some("upgrade");
        if !upgrades {
            return wire.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: x\r\n\r\nHELLO",
        )
        .await;
        while let Ok(byte) = wire.exactly(1).await {
            if byte == b"q" {
                return wire.send("BYE").await;
            }
            wire.send(byte.to_ascii_uppercase()).await;
        }
        wire.send("END").await;
    })
    .await
}

async fn gateway(backend: &Backend, options: &[&str]) -> Running {
    World::of_backend(backend).options(options).start().await
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A tunnel through `gateway` that has carried bytes both ways.
async fn tunnel(gateway: &Running) -> Wire {
    let mut wire = gateway.connect().await;
    let reply = wire.ask(UPGRADE).await;
    assert_eq!(reply.status(), 101);
    assert_eq!(reply.header("upgrade"), Some("websocket"));
    assert!(reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(reply.header("sec-websocket-accept"), Some("x"));
    assert_eq!(soon(wire.exactly(5)).await.unwrap(), b"HELLO");
    wire.send("abc").await;
    assert_eq!(soon(wire.exactly(3)).await.unwrap(), b"ABC");
    wire
}

#[tokio::test]
async fn a_tunnel_carries_bytes_until_either_side_closes() {
    let backend = shouting().await;
    let gateway = gateway(&backend, &["--idle-timeout", "2s", "--header-timeout", "2s"]).await;
    let mut closed_by_backend = tunnel(&gateway).await;
    let mut closed_by_client = tunnel(&gateway).await;
    closed_by_backend.send("q").await;
    assert_eq!(closed_by_backend.rest().await, b"BYE");
    closed_by_client.finish().await;
    assert_eq!(closed_by_client.rest().await, b"END", "one direction outlives the other");
}

#[tokio::test]
async fn a_tunnel_is_in_flight_and_in_the_log_as_one_request_that_ends_with_it() {
    let backend = shouting().await;
    let gateway = gateway(&backend, &["--access-log", "json"]).await;
    let in_flight = async || gateway.metric(r#"nantian_http_requests_in_flight{route="demo/r"}"#).await;
    let mut wire = tunnel(&gateway).await;
    assert_eq!(in_flight().await, Some(1.0));
    wire.send("q").await;
    assert_eq!(wire.rest().await, b"BYE");
    drop(wire);
    let line: Value = serde_json::from_str(&gateway.output.more("/chat", 0).await).unwrap();
    assert_eq!((&line["status"], &line["bytes"], &line["error"]), (&json!(101), &json!(11), &Value::Null));
    eventually("it is over", async || in_flight().await == Some(0.0)).await;
}

#[tokio::test]
async fn a_tunnel_that_a_drain_cuts_is_in_the_log_with_what_it_carried() {
    let backend = shouting().await;
    let mut gateway = gateway(&backend, &["--access-log", "json", "--drain-timeout", "1s"]).await;
    let _open = tunnel(&gateway).await;
    gateway.signal("TERM");
    gateway.exit().await;
    let lines = gateway.output.all();
    let line = lines.iter().find(|line| line.contains("/chat")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["status"], &line["bytes"]), (&json!(101), &json!(8)));
}

#[tokio::test]
async fn a_tunnel_in_which_nobody_speaks_is_closed() {
    let backend = shouting().await;
    let gateway = gateway(&backend, &["--tunnel-idle-timeout", "1s"]).await;
    let mut quiet = tunnel(&gateway).await;
    let mut busy = tunnel(&gateway).await;
    let speaking = async {
        loop {
            after(Duration::from_millis(150)).await;
            busy.send("a").await;
            assert_eq!(soon(busy.exactly(1)).await.unwrap(), b"A");
        }
    };
    tokio::select! {
        () = speaking => {}
        closed = quiet.is_closed() => assert!(closed),
    }
    busy.send("b").await;
    assert_eq!(soon(busy.exactly(1)).await.unwrap(), b"B");
}

#[tokio::test]
async fn an_endpoint_is_busy_until_the_tunnel_ends() {
    let backend = shouting().await;
    let one = lb_policy("a", "circuitBreaker: {maxInflightRequests: 1}");
    let gateway = World::of_backend(&backend).manifest("policy", &one).start().await;
    let mut tunnel = tunnel(&gateway).await;
    let refused = gateway.ask(UPGRADE).await;
    assert_eq!((refused.status(), refused.text().as_str()), (503, "every endpoint is full\n"));
    tunnel.send("q").await;
    assert_eq!(tunnel.rest().await, b"BYE");
    drop(tunnel);
    eventually("there is room", async || gateway.ask(UPGRADE).await.status() == 101).await;
}

#[tokio::test]
async fn a_refused_upgrade_is_a_response_like_any_other() {
    let backend = Backend::answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno").await;
    let gateway = gateway(&backend, &[]).await;
    let mut wire = gateway.connect().await;
    for _ in 0..2 {
        let reply = wire.ask(UPGRADE).await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "no"));
        assert_eq!(reply.header("upgrade"), None);
    }
    let seen = backend.last();
    assert_eq!((seen.header("upgrade"), seen.header("sec-websocket-key")), (Some("websocket"), Some("eA==")));
    assert_eq!(wire.get("/").await.status(), 200);
    assert_eq!(backend.connections(), 3, "the backend may have left HTTP all the same");
}

#[tokio::test]
async fn who_must_upgrade_hears_what_to() {
    let backend = Backend::answering(|_| {
        "HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n"
    })
    .await;
    let gateway = gateway(&backend, &[]).await;
    let mut wire = gateway.connect().await;
    for _ in 0..2 {
        let reply = wire.get("/").await;
        let told = (reply.header("connection"), reply.header("upgrade"));
        assert_eq!((reply.status(), told), (426, (Some("upgrade"), Some("websocket"))));
    }
}

#[tokio::test]
async fn an_upgrade_goes_over_http_1_1_to_a_service_of_http_2() {
    let both = shouting().await;
    let world = World::new().h2c_service("a", &both).route("r", &[rule("/", &to("a"))]);
    tunnel(&world.start().await).await;

    let only_http2 = Backend::h2c(async |_| Response::new(Full::<Bytes>::from("ok"))).await;
    let world = World::new().h2c_service("a", &only_http2).route("r", &[rule("/", &to("a"))]);
    let gateway = world.options(&["--access-log", "json"]).start().await;
    for _ in 0..6 {
        assert_eq!(gateway.ask(UPGRADE).await.status(), 502);
    }
    let line = gateway.output.more("/chat", 0).await;
    assert!(line.contains("does not seem to speak HTTP/1.1, as upgrades do"), "{line}");
    assert_eq!(gateway.get("/").await.status(), 200, "that is not its fault");
}

#[tokio::test]
async fn an_upgrade_is_not_offered_beside_a_body() {
    let backend = Backend::echo("a").await;
    let gateway = gateway(&backend, &[]).await;
    let mut wire = gateway.connect().await;
    let smuggled = "GET /admin HTTP/1.1\r\nHost: internal\r\n\r\n";
    let length = smuggled.len();
    for (framing, body) in [
        (format!("Content-Length: {length}"), smuggled.to_owned()),
        ("Transfer-Encoding: chunked".to_owned(), format!("{length:x}\r\n{smuggled}\r\n0\r\n\r\n")),
    ] {
        let head = format!(
            "POST /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: foo\r\n{framing}\r\n\r\n"
        );
        wire.send(head).await;
        assert_eq!(wire.ask(body).await.text(), smuggled);
        let seen = backend.last();
        assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None), "{framing}");
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_method_that_has_no_body_this_time_may_leave_http() {
    let backend = shouting().await;
    let gateway = gateway(&backend, &[]).await;
    for length in ["", "Content-Length: 0\r\n"] {
        let exec = UPGRADE.replace("GET", "POST").replace("Host: h\r\n", &format!("Host: h\r\n{length}"));
        assert_eq!(gateway.ask(exec).await.status(), 101, "{length}");
    }
}

#[tokio::test]
async fn a_tunnel_to_a_service_is_reserved_like_an_operation_that_nobody_knows() {
    let backend = shouting().await;
    let gateway = World::of_backend(&backend)
        .manifest("limits", &limits("limits", "kind: HTTPRoute, name: r", "tokensPerHour: 4"))
        .start()
        .await;
    let _open = [tunnel(&gateway).await, tunnel(&gateway).await];
    let refused = gateway.connect().await.ask(UPGRADE).await;
    assert_eq!((refused.status(), refused.header("x-ratelimit-remaining-tokens")), (429, Some("0")));
    assert_eq!(gateway.get("/").await.status(), 400, "what asks no model needs no tokens");
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_not_passed_on() {
    let backend = Backend::answering(
        |_| "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )
    .await;
    let gateway = gateway(&backend, &[]).await;
    assert_eq!(gateway.get("/").await.status(), 502);
}

#[tokio::test]
async fn a_drain_waits_for_tunnels_until_its_timeout() {
    let backend = shouting().await;
    let mut gateway = gateway(&backend, &["--drain-timeout", "1500ms"]).await;
    let mut cut = tunnel(&gateway).await;
    gateway.signal("TERM");
    gateway.log.more("\"draining\"", 0).await;
    cut.send("still").await;
    assert_eq!(soon(cut.exactly(5)).await.unwrap(), b"STILL");
    assert!(cut.is_closed().await);
    assert!(gateway.exit().await.success());
}
