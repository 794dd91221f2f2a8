//! TLSRoute: connections whose server name decides, with TLS of the backend or of the gateway.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, ClientConnection, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::support::{
    Backend, Certificate, Port, Running, Wire, World, backend_tls_policy, manifests, rule, soon,
    stream_route, stream_service, to, trusting_authority,
};

const PASSTHROUGH: &str = "protocol: TLS, tls: {mode: Passthrough}";
const TERMINATE: &str = "protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: one}]}";

/// A server of TLS that says its name to every client, and then what the client has said.
async fn secured(name: &'static str, config: Arc<ServerConfig>) -> Backend {
    let acceptor = TlsAcceptor::from(config);
    Backend::raw(move |wire| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(wire.into_io()).await else { return };
            let _ = stream.write_all(name.as_bytes()).await;
            let mut said = Vec::new();
            if stream.read_to_end(&mut said).await.is_ok() {
                let _ = stream.write_all(&said).await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await
}

async fn handshake(
    address: SocketAddr,
    host: &str,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = soon(TcpStream::connect(address)).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    soon(TlsConnector::from(config).connect(name, stream)).await
}

/// What is heard of `host` after `hello` was said.
async fn heard(gateway: &Running, host: &str, certificates: &[&Certificate]) -> io::Result<String> {
    let config = Certificate::client(certificates, &[]);
    let mut stream = handshake(gateway.address(), host, config).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut heard = String::new();
    soon(stream.read_to_string(&mut heard)).await?;
    Ok(heard)
}

fn presented(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn route(name: &str, section: &str, hosts: &str, backend: &str) -> String {
    stream_route(
        "TLSRoute",
        name,
        section,
        &format!("hostnames: [{hosts}],"),
        &format!("{{name: {backend}, port: 80}}"),
    )
}

/// The first message of a client that wants `host`.
fn client_hello(host: &str) -> Vec<u8> {
    let config = Certificate::client(&[], &[]);
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn the_server_name_picks_the_backend_and_the_certificate_is_the_backends() {
    let (one, wild) = (Certificate::new(&["one.example.org"]), Certificate::new(&["two.example.org"]));
    let (a, b) = (secured("a:", one.server()).await, secured("b:", wild.server()).await);
    let port = Port::reserve();
    let listener = port.listener("tls", PASSTHROUGH);
    let gateway = World::with_listeners(port, &[listener])
        .manifest("a", &stream_service("a", "TCP", &[a.address]))
        .manifest("b", &stream_service("b", "TCP", &[b.address]))
        .manifest("one", &route("one", "", "one.example.org", "a"))
        .manifest("wild", &route("wild", "", "'*.example.org'", "b"))
        .start()
        .await;
    for (host, certificate, answer) in [
        ("one.example.org", &one, "a:hello"),
        ("ONE.example.org", &one, "a:hello"),
        ("two.example.org", &wild, "b:hello"),
    ] {
        assert_eq!(heard(&gateway, host, &[certificate]).await.unwrap(), answer, "{host}");
    }
    for host in ["example.org", "elsewhere.net"] {
        let error = heard(&gateway, host, &[&one, &wild]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{host}: {error}");
    }
    let mut nameless = ClientConfig::clone(&Certificate::client(&[&one], &[]));
    nameless.enable_sni = false;
    assert!(handshake(gateway.address(), "one.example.org", Arc::new(nameless)).await.is_err(), "no name");
    assert_eq!(a.connections() + b.connections(), 3, "nobody else has come through");
}

#[tokio::test]
async fn a_first_message_in_pieces_and_several_records_arrives_as_it_was_sent() {
    let backend = Backend::raw(async |mut wire| {
        let heard = wire.rest().await;
        wire.send(heard).await;
    })
    .await;
    let port = Port::reserve();
    let listener = port.listener("tls", PASSTHROUGH);
    let gateway = World::with_listeners(port, &[listener])
        .manifest("a", &stream_service("a", "TCP", &[backend.address]))
        .manifest("r", &route("r", "", "example.org", "a"))
        .start()
        .await;
    let hello = client_hello("example.org");
    // The same message in two records, the second of which begins in the middle of a length.
    let (head, message) = hello.split_at(5);
    let records: Vec<u8> = [&message[..3], &message[3..]]
        .iter()
        .flat_map(|part| [&head[..3], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat())
        .collect();
    for sent in [hello, records] {
        let mut wire = gateway.connect().await;
        for piece in sent.chunks(7) {
            wire.send(piece).await;
            tokio::task::yield_now().await;
        }
        wire.send("and more").await;
        wire.finish().await;
        assert_eq!(wire.rest().await, [sent.as_slice(), b"and more"].concat());
    }
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_so_is_who_says_nothing() {
    let backend = Backend::greeting("a").await;
    let port = Port::reserve();
    let listener = port.listener("tls", PASSTHROUGH);
    let gateway = World::with_listeners(port, &[listener])
        .manifest("a", &stream_service("a", "TCP", &[backend.address]))
        .manifest("r", &route("r", "", "example.org", "a"))
        .options(&["--header-timeout", "500ms"])
        .start()
        .await;
    let endless = [&client_hello("example.org")[..3], &[0x3f, 0xff], &[0; 16_000]].concat();
    for said in [
        &b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"[..],
        &endless,
        &client_hello("example.org")[..40],
        b"",
    ] {
        let mut wire = gateway.connect().await;
        wire.send(said).await;
        let answer = wire.rest().await;
        assert!(answer.is_empty() || answer[0] == 21, "nothing but an alert: {answer:?}");
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn tls_that_ends_here_is_passed_on_in_clear_text() {
    let certificate = Certificate::new(&["tls.example.org"]);
    let backend = Backend::greeting("a").await;
    let port = Port::reserve();
    let listener = port.listener("tls", TERMINATE);
    let gateway = World::with_listeners(port, &[listener])
        .manifest("one", &certificate.secret("one"))
        .manifest("a", &stream_service("a", "TCP", &[backend.address]))
        .manifest("r", &route("r", "", "tls.example.org", "a"))
        .start()
        .await;
    assert_eq!(heard(&gateway, "tls.example.org", &[&certificate]).await.unwrap(), "ahelloend");
    let config = Certificate::client(&[&certificate], &["postgresql"]);
    let stream = handshake(gateway.address(), "tls.example.org", config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None, "a protocol is not negotiated, and not refused");
    assert!(heard(&gateway, "other.example.org", &[&certificate]).await.is_err());
}

#[tokio::test]
async fn what_a_policy_wants_behind_tls_never_goes_out_in_clear_text() {
    let (own, theirs) = (Certificate::new(&["tls.example.org"]), Certificate::new(&["a.example.org"]));
    let backend = secured("a:", theirs.server()).await;
    let port = Port::reserve();
    let listener = port.listener("tls", TERMINATE);
    let trusting = |host| backend_tls_policy("a", "", &trusting_authority("ca", host));
    let gateway = World::with_listeners(port, &[listener])
        .manifest("one", &own.secret("one"))
        .manifest("ca", &theirs.authority("ca"))
        .manifest("a", &stream_service("a", "TCP", &[backend.address]))
        .manifest("a-tls", &trusting("a.example.org"))
        .manifest("r", &route("r", "", "tls.example.org", "a"))
        .start()
        .await;
    assert_eq!(heard(&gateway, "tls.example.org", &[&own]).await.unwrap(), "a:hello");
    let accepted = gateway.condition("BackendTLSPolicy demo/a", "Accepted").await;
    assert_eq!(accepted["message"], "in force on Service demo/a");
    gateway.edit("a-tls", &trusting("b.example.org")).await;
    assert!(heard(&gateway, "tls.example.org", &[&own]).await.is_err(), "the backend is somebody else");
    gateway.edit("ca", "").await;
    assert!(heard(&gateway, "tls.example.org", &[&own]).await.is_err(), "nobody is trusted");
    assert_eq!(backend.connections(), 2, "where nobody is trusted, nobody is asked");
}

#[tokio::test]
async fn connections_present_the_certificate_of_their_gateway_to_backends_that_ask_for_one() {
    let (own, theirs) = (Certificate::new(&["tls.example.org"]), Certificate::new(&["a.example.org"]));
    let (known, renewed) = (Certificate::new(&["gateway"]), Certificate::new(&["gateway"]));
    let backend = secured("a:", theirs.server_for(&known)).await;
    let (port, tcp) = (Port::reserve(), Port::reserve());
    let tls = "  tls: {backend: {clientCertificateRef: {name: known}}}\n";
    let listeners = [port.listener("tls", TERMINATE), tcp.listener("tcp", "protocol: TCP")];
    let with = format!("{}{tls}", manifests::gateway(&listeners));
    let without = manifests::gateway(&listeners);
    let gateway = World::with_listeners(port, &[])
        .manifest("gateway", &with)
        .manifest("known", &known.secret("known"))
        .manifest("one", &own.secret("one"))
        .manifest("ca", &theirs.authority("ca"))
        .manifest("a", &stream_service("a", "TCP", &[backend.address]))
        .manifest("a-tls", &backend_tls_policy("a", "", &trusting_authority("ca", "a.example.org")))
        .manifest("r", &route("r", "sectionName: tls", "tls.example.org", "a"))
        .manifest("t", &stream_route("TCPRoute", "t", "sectionName: tcp", "", "{name: a, port: 80}"))
        .start()
        .await;
    let over_tcp = async || {
        let met = async {
            let mut stream = TcpStream::connect(tcp.address()).await?;
            stream.write_all(b"hello").await?;
            stream.shutdown().await?;
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await?;
            Ok::<_, io::Error>(heard)
        };
        soon(met).await.is_ok_and(|heard| heard == "a:hello")
    };
    let over_tls = async || heard(&gateway, "tls.example.org", &[&own]).await.is_ok();
    assert_eq!((over_tls().await, over_tcp().await), (true, true));
    gateway.edit("known", &renewed.secret("known")).await;
    assert_eq!((over_tls().await, over_tcp().await), (false, false), "nobody knows that one");
    gateway.edit("known", &known.secret("known")).await;
    assert_eq!((over_tls().await, over_tcp().await), (true, true));
    gateway.edit("gateway", &without).await;
    assert_eq!((over_tls().await, over_tcp().await), (false, false), "the backend wants a certificate");
}

#[tokio::test]
async fn a_policy_is_not_about_tls_that_is_passed_through() {
    let theirs = Certificate::new(&["a.example.org"]);
    let backend = secured("a:", theirs.server()).await;
    let port = Port::reserve();
    let listener = port.listener("tls", PASSTHROUGH);
    let policy = |ca| backend_tls_policy("a", "", &trusting_authority(ca, "somebody.else"));
    let gateway = World::with_listeners(port, &[listener])
        .manifest("ca", &theirs.authority("ca"))
        .manifest("a", &stream_service("a", "TCP", &[backend.address]))
        .manifest("a-tls", &policy("ca"))
        .manifest("r", &route("r", "", "a.example.org", "a"))
        .start()
        .await;
    assert_eq!(heard(&gateway, "a.example.org", &[&theirs]).await.unwrap(), "a:hello");
    let accepted = gateway.condition("BackendTLSPolicy demo/a", "Accepted").await;
    let passed = "Service demo/a gets only datagrams and the TLS of clients, as they are";
    assert_eq!((&accepted["status"], &accepted["message"]), (&"True".into(), &passed.into()));
    gateway.edit("a-tls", &policy("nowhere")).await;
    assert_eq!(heard(&gateway, "a.example.org", &[&theirs]).await.unwrap(), "a:hello", "not even a bad one");
}

#[tokio::test]
async fn requests_and_both_kinds_of_connections_share_a_port() {
    let names = ["web.example.org", "end.example.org"];
    let (own, theirs) = (Certificate::new(&names), Certificate::new(&["through.example.org"]));
    let (web, plain) = (Backend::echo("web").await, Backend::greeting("p").await);
    let through = secured("t:", theirs.server()).await;
    let port = Port::reserve();
    let ends = "tls: {mode: Terminate, certificateRefs: [{name: one}]}";
    let listeners = [
        port.listener("https", &format!("hostname: web.example.org, protocol: HTTPS, {ends}")),
        port.listener("ends", &format!("hostname: end.example.org, protocol: TLS, {ends}")),
        port.listener("through", &format!("hostname: '*.example.org', {PASSTHROUGH}")),
    ];
    let gateway = World::with_listeners(port, &listeners)
        .manifest("one", &own.secret("one"))
        .service("web", &[&web])
        .route_of("web", "web.example.org", &[rule("/", &to("web"))])
        .manifest("p", &stream_service("p", "TCP", &[plain.address]))
        .manifest("t", &stream_service("t", "TCP", &[through.address]))
        .manifest("ends", &route("ends", "sectionName: ends", "end.example.org", "p"))
        .manifest("through", &route("through", "sectionName: through", "through.example.org", "t"))
        .start()
        .await;
    let config = Certificate::client(&[&own], &["http/1.1"]);
    let stream = handshake(gateway.address(), "web.example.org", config).await.unwrap();
    assert_eq!(presented(&stream), own.der());
    let mut wire = Wire::over(stream);
    let reply = wire.ask("GET / HTTP/1.1\r\nHost: web.example.org\r\n\r\n").await;
    assert_eq!((reply.status(), reply.header("x-backend")), (200, Some("web")));
    let reply = wire.ask("GET / HTTP/1.1\r\nHost: through.example.org\r\n\r\n").await;
    assert_eq!(reply.status(), 421, "another listener has that host");

    assert_eq!(heard(&gateway, "end.example.org", &[&own]).await.unwrap(), "phelloend");
    assert_eq!(heard(&gateway, "through.example.org", &[&theirs]).await.unwrap(), "t:hello");
    assert!(heard(&gateway, "nobody.example.org", &[&own, &theirs]).await.is_err());
}
