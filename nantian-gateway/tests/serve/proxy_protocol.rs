//! Connections of a proxy that says of whom they are before their first byte.

use std::net::SocketAddr;

use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    plugin_fields::{PROPERTY, inline, spec},
    support::{
        Backend, Certificate, Message, Port, Running, World, eventually, limits, rule, soon, stream_route,
        stream_service, to,
    },
};

const FROM_HERE: &[&str] = &["--proxy-protocol-from", "127.0.0.0/8"];

const LINE: &str = "PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n";

/// The same as [`LINE`] in version 2, with something behind the addresses.
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12\xcb\0\x71\x07\xc0\0\x02\x01\x12\x34\x01\xbb\x04\0\x03\0\0\0";

/// Of the proxy's own.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";

/// What is answered to a request behind `preamble`.
async fn ask(gateway: &Running, preamble: &[u8]) -> Message {
    gateway.ask([preamble, GET].concat()).await
}

/// A handshake for `host` behind `preamble`, with the first message in the same packet.
async fn handshake(
    address: SocketAddr,
    preamble: &[u8],
    host: &'static str,
    certificate: &Certificate,
) -> TlsStream<TcpStream> {
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.write_all(preamble).await.unwrap();
    let connector = TlsConnector::from(Certificate::client(&[certificate], &[]));
    soon(connector.connect(ServerName::try_from(host).unwrap(), stream)).await.unwrap()
}

async fn said(stream: &mut TlsStream<TcpStream>, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn failures(gateway: &Running, reason: &str) -> Option<f64> {
    gateway.metric(&format!("nantian_proxy_protocol_failures_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test]
async fn a_preamble_says_who_the_client_is() {
    let backend = Backend::echo("a").await;
    let gateway =
        World::of_backend(&backend).options(FROM_HERE).options(&["--access-log", "json"]).start().await;
    for (preamble, client) in [
        (LINE.as_bytes(), "203.0.113.7"),
        (BINARY, "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4660 443\r\n", "2001:db8::7"),
        (LOCAL, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let known = gateway.output.count("");
        assert_eq!(ask(&gateway, preamble).await.status(), 200);
        assert_eq!(backend.last().all("x-forwarded-for"), [client]);
        let line: Value = serde_json::from_str(&gateway.output.more("", known).await).unwrap();
        assert_eq!(line["client"], client);
    }
    let mut wire = gateway.connect().await;
    for byte in [BINARY, GET].concat() {
        wire.send([byte]).await;
    }
    assert_eq!(wire.reply().await.status(), 200, "in pieces of a byte");
    assert_eq!(backend.last().all("x-forwarded-for"), ["203.0.113.7"]);
    wire.get("/").await;
    assert_eq!(backend.last().all("x-forwarded-for"), ["203.0.113.7"], "the next request of the connection");
}

#[tokio::test]
async fn what_trusts_and_counts_by_address_goes_by_the_preamble() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend)
        .manifest(
            "limits",
            &limits::limits("limits", "kind: HTTPRoute, name: r", "requestsPerMinute: 1, scope: ip"),
        )
        .options(FROM_HERE)
        .options(&["--trusted-proxies", "203.0.113.7"])
        .start()
        .await;
    let ask = async |preamble: &str, claim: &str| {
        let request = format!("{preamble}GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {claim}\r\n\r\n");
        let status = gateway.ask(request).await.status();
        (status, backend.last().all("x-forwarded-for").join(", "))
    };
    let stranger = LINE.replace("203.0.113.7", "203.0.113.8");
    let of = |status, chain: &str| (status, chain.to_owned());
    assert_eq!(
        ask(LINE, "198.51.100.1").await,
        of(200, "198.51.100.1, 203.0.113.7"),
        "a proxy in front of it"
    );
    assert_eq!(ask(LINE, "198.51.100.1").await.0, 429);
    assert_eq!(ask(LINE, "198.51.100.2").await.0, 200);
    assert_eq!(ask(&stranger, "198.51.100.3").await, of(200, "203.0.113.8"));
    assert_eq!(ask(&stranger, "198.51.100.4").await.0, 429, "who claims what he likes");
}

#[tokio::test]
async fn a_plugin_is_told_both_ends_of_the_preamble() {
    let backend = Backend::echo("a").await;
    for (property, value) in [("source", "203.0.113.7:4660"), ("destination", "192.0.2.1:443")] {
        let of_plugin = spec(&inline(PROPERTY), &format!("config: \"{property}\\0address\""));
        let gateway =
            World::of_backend(&backend).manifest("plugin", &of_plugin).options(FROM_HERE).start().await;
        assert_eq!(ask(&gateway, BINARY).await.status(), 200);
        assert_eq!(backend.last().header("x-value"), Some(value));
    }
}

#[tokio::test]
async fn it_comes_before_tls_whichever_listener_the_name_leads_to() {
    let names = ["web.example.org", "end.example.org"];
    let own = Certificate::new(&names);
    let (web, plain) = (Backend::echo("web").await, Backend::greeting("p").await);
    let port = Port::reserve();
    let ends = "tls: {mode: Terminate, certificateRefs: [{name: one}]}";
    let mut listeners =
        vec![port.listener("https", &format!("hostname: web.example.org, protocol: HTTPS, {ends}"))];
    let further = port.listener("ends", &format!("hostname: end.example.org, protocol: TLS, {ends}"));
    let further_route = stream_route(
        "TLSRoute",
        "ends",
        "sectionName: ends",
        "hostnames: [end.example.org],",
        "{name: p, port: 80}",
    );
    let gateway = World::with_listeners(port, &listeners)
        .manifest("one", &own.secret("one"))
        .service("web", &[&web])
        .route_of("web", "web.example.org", &[rule("/", &to("web"))])
        .manifest("p", &stream_service("p", "TCP", &[plain.address]))
        .options(FROM_HERE)
        .options(&["--access-log", "json"])
        .start()
        .await;
    let request = b"GET / HTTP/1.1\r\nHost: web.example.org\r\nConnection: close\r\n\r\n";
    listeners.push(further);
    for is_shared in [false, true] {
        if is_shared {
            gateway.edit_listeners(&listeners).await;
            gateway.edit("ends", &further_route).await;
        }
        let mut stream = handshake(gateway.address(), LINE.as_bytes(), "web.example.org", &own).await;
        assert!(said(&mut stream, request).await.starts_with("HTTP/1.1 200"), "shared: {is_shared}");
        assert_eq!(web.last().all("x-forwarded-for"), ["203.0.113.7"]);
        assert_eq!(web.last().all("x-forwarded-proto"), ["https"]);
    }
    let mut stream = handshake(gateway.address(), BINARY, "end.example.org", &own).await;
    assert_eq!(said(&mut stream, b"hello").await, "phelloend");
    let line: Value = serde_json::from_str(&gateway.output.more("TLSRoute/demo/ends", 0).await).unwrap();
    assert_eq!(line["client"], "203.0.113.7");
}

#[tokio::test]
async fn bytes_are_passed_on_from_behind_it() {
    let theirs = Certificate::new(&["through.example.org"]);
    let (plain, through) = (
        Backend::greeting("p").await,
        Backend::raw(async |mut wire| {
            let heard = wire.rest().await;
            wire.send(heard).await;
        })
        .await,
    );
    for (listener, of_route, backend) in [
        ("protocol: TCP", ("TCPRoute", ""), &plain),
        (
            "protocol: TLS, tls: {mode: Passthrough}",
            ("TLSRoute", "hostnames: [through.example.org],"),
            &through,
        ),
    ] {
        let port = Port::reserve();
        let listeners = [port.listener("one", listener)];
        let (kind, hosts) = of_route;
        let gateway = World::with_listeners(port, &listeners)
            .manifest("a", &stream_service("a", "TCP", &[backend.address]))
            .manifest("r", &stream_route(kind, "r", "", hosts, "{name: a, port: 80}"))
            .options(FROM_HERE)
            .options(&["--access-log", "json"])
            .start()
            .await;
        for preamble in [LINE.as_bytes(), BINARY] {
            let known = gateway.output.count(kind);
            let (sent, expected) = match kind {
                "TCPRoute" => (b"hello".to_vec(), b"phelloend".to_vec()),
                _ => {
                    let hello = client_hello(&theirs, "through.example.org");
                    (hello.clone(), hello)
                }
            };
            let mut wire = gateway.connect().await;
            wire.send([preamble, &sent].concat()).await;
            wire.finish().await;
            assert!(wire.rest().await == expected, "{kind}");
            let line: Value = serde_json::from_str(&gateway.output.more(kind, known).await).unwrap();
            assert_eq!(
                (&line["client"], &line["received_bytes"]),
                (&"203.0.113.7".into(), &sent.len().into())
            );
        }
    }
}

/// The first message of a client that wants `host`.
fn client_hello(certificate: &Certificate, host: &'static str) -> Vec<u8> {
    let config = Certificate::client(&[certificate], &[]);
    let mut connection = rustls::ClientConnection::new(config, ServerName::try_from(host).unwrap()).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn who_is_not_to_send_one_is_served_as_it_is() {
    let backend = Backend::echo("a").await;
    let gateway =
        World::of_backend(&backend).options(&["--proxy-protocol-from", "192.0.2.0/24"]).start().await;
    assert_eq!(ask(&gateway, b"").await.status(), 200);
    assert_eq!(backend.last().all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(ask(&gateway, LINE.as_bytes()).await.status(), 400, "a client may say no such thing");
    assert_eq!(backend.connections(), 1);
    assert_eq!(failures(&gateway, "malformed").await, Some(0.0));
}

#[tokio::test]
async fn a_connection_without_one_is_closed_and_counted() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend)
        .options(FROM_HERE)
        .options(&["--header-timeout", "500ms", "--log-level", "debug"])
        .start()
        .await;
    for bytes in [GET, b"PROXY TCP4 203.0.113.7\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"] {
        let mut wire = gateway.connect().await;
        wire.send(bytes).await;
        assert!(wire.is_closed().await, "{bytes:?}");
    }
    let mut wire = gateway.connect().await;
    wire.send("PROXY TCP4 203.0.").await;
    assert!(wire.is_closed().await, "who says no more");
    drop(gateway.connect().await);
    for (reason, count) in [("malformed", 3.0), ("timeout", 1.0), ("closed", 1.0)] {
        eventually(reason, async || failures(&gateway, reason).await == Some(count)).await;
    }
    assert_eq!(gateway.log.count("a connection has no PROXY protocol header"), 5);
    assert_eq!(backend.connections(), 0);
    assert_eq!(ask(&gateway, LINE.as_bytes()).await.status(), 200);
}
