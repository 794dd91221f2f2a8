//! TLS on the client's side, and on that of a provider.

use std::sync::Arc;

use http::{Request, StatusCode, Version};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::support::{
    Backend, Certificate, Port, Running, Wire, World, chat, eventually, manifests, rule, soon, to, to_ai,
};

/// An HTTPS listener for `host` with the certificates of `secrets`.
pub(crate) fn https(port: &Port, name: &str, host: &str, secrets: &[&str]) -> String {
    let refs: Vec<String> = secrets.iter().map(|secret| format!("{{name: {secret}}}")).collect();
    let refs = refs.join(", ");
    port.listener(
        name,
        &format!("protocol: HTTPS, {host} tls: {{mode: Terminate, certificateRefs: [{refs}]}}"),
    )
}

/// Opens TLS to `host` and trusts `certificates`.
pub(crate) async fn handshake(
    gateway: &Running,
    host: &str,
    certificates: &[&Certificate],
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = soon(TcpStream::connect(gateway.address())).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let config = Certificate::client(certificates, protocols);
    soon(TlsConnector::from(config).connect(name, stream)).await
}

/// The certificate that the other side has shown.
pub(crate) fn presented(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn ask(stream: TlsStream<TcpStream>, host: &str) -> Option<String> {
    let mut wire = Wire::over(stream);
    let reply = wire.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    reply.header("x-backend").map(str::to_owned)
}

#[tokio::test]
async fn the_name_that_the_client_asks_for_picks_listener_certificate_and_route() {
    let one = Certificate::new(&["one.example.org"]);
    let (two, three) = (Certificate::new(&["two.example.org"]), Certificate::new(&["three.example.org"]));
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    let port = Port::reserve();
    let listeners = [
        https(&port, "one", "hostname: one.example.org,", &["one"]),
        https(&port, "wild", "hostname: '*.example.org',", &["two", "three"]),
    ];
    let gateway = World::with_listeners(port, &listeners)
        .manifest("one", &one.secret("one"))
        .manifest("two", &two.secret("two"))
        .manifest("three", &three.secret("three"))
        .service("a", &[&a])
        .service("b", &[&b])
        .route_of("a", "one.example.org", &[rule("/", &to("a"))])
        .route_of("b", "'*.example.org'", &[rule("/", &to("b"))])
        .start()
        .await;
    for (host, certificate, backend) in
        [("one.example.org", &one, "a"), ("two.example.org", &two, "b"), ("three.example.org", &three, "b")]
    {
        let stream = handshake(&gateway, host, &[&one, &two, &three], &[]).await.unwrap();
        assert_eq!(presented(&stream), certificate.der(), "{host}");
        assert_eq!(ask(stream, host).await.as_deref(), Some(backend), "{host}");
        assert_eq!(
            [&a, &b].iter().flat_map(|backend| backend.seen()).last().unwrap().all("x-forwarded-proto"),
            ["https"]
        );
    }
    assert!(handshake(&gateway, "elsewhere.net", &[&one, &two, &three], &[]).await.is_err());
}

#[tokio::test]
async fn a_request_over_the_connection_of_another_listener_is_misdirected() {
    let hosts = ["example.org", "second.org", "third.wild.org", "fourth.wild.org", "unknown.org"];
    let certificate = Certificate::new(&hosts);
    let backend = Backend::echo("a").await;
    let port = Port::reserve();
    let listeners =
        [("any", ""), ("second", "second.org"), ("wild", "'*.wild.org'"), ("fourth", "fourth.wild.org")];
    let listeners = listeners.map(|(name, host)| {
        let host = if host.is_empty() { String::new() } else { format!("hostname: {host},") };
        https(&port, name, &host, &["one"])
    });
    let hosts = "example.org, second.org, '*.wild.org'";
    let world = World::with_listeners(port, &listeners).manifest("one", &certificate.secret("one"));
    let gateway = world.service("a", &[&backend]).route_of("r", hosts, &[rule("/", &to("a"))]).start().await;
    for (name, host, status) in [
        ("example.org", "example.org", 200),
        ("example.org", "second.org", 421),
        ("example.org", "unknown.org", 404),
        ("second.org", "second.org", 200),
        ("second.org", "example.org", 421),
        ("second.org", "unknown.org", 421),
        ("third.wild.org", "fifth.wild.org", 200),
        ("third.wild.org", "fourth.wild.org", 421),
        ("third.wild.org", "second.org", 421),
        ("fourth.wild.org", "fourth.wild.org", 200),
        ("fourth.wild.org", "fifth.wild.org", 421),
        ("unknown.org", "example.org", 200),
        ("unknown.org", "EXAMPLE.org:443", 200),
    ] {
        let stream = handshake(&gateway, name, &[&certificate], &[]).await.unwrap();
        let reply = Wire::over(stream).ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status(), status, "{host} over {name}");
    }
    let condition = gateway.condition("Gateway demo/demo", "OverlappingTLSConfig").await;
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&"True".into(), &"OverlappingHostnames".into())
    );
}

#[tokio::test]
async fn of_two_certificates_for_a_name_a_client_is_presented_the_one_that_it_can_verify() {
    let ecdsa = Certificate::new(&["example.org"]);
    let ed25519 = Certificate::of_key(&["example.org"], &rcgen::PKCS_ED25519);
    let port = Port::reserve();
    let listener = https(&port, "https", "", &["ecdsa", "ed25519"]);
    let gateway = World::with_listeners(port, &[listener])
        .manifest("ecdsa", &ecdsa.secret("ecdsa"))
        .manifest("ed25519", &ed25519.secret("ed25519"))
        .start()
        .await;
    let stream = handshake(&gateway, "example.org", &[&ecdsa, &ed25519], &[]).await.unwrap();
    assert_eq!(presented(&stream), ecdsa.der(), "the first one");
    let config = Certificate::client_verifying(&[&ecdsa, &ed25519], SignatureScheme::ED25519);
    let stream = soon(TcpStream::connect(gateway.address())).await.unwrap();
    let name = ServerName::try_from("example.org").unwrap();
    let stream = soon(TlsConnector::from(config).connect(name, stream)).await.unwrap();
    assert_eq!(presented(&stream), ed25519.der());
}

#[tokio::test]
async fn the_protocol_is_negotiated() {
    let certificate = Certificate::new(&["example.org"]);
    let backend = Backend::echo("a").await;
    let port = Port::reserve();
    let listener = https(&port, "https", "", &["one"]);
    let gateway = World::with_listeners(port, &[listener])
        .manifest("one", &certificate.secret("one"))
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .options(&["--header-timeout", "500ms"])
        .start()
        .await;

    let stream = handshake(&gateway, "example.org", &[&certificate], &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) =
        soon(http2::handshake(TokioExecutor::new(), TokioIo::new(stream))).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://example.org/").body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = soon(client.send_request(request)).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));

    let stream = handshake(&gateway, "example.org", &[&certificate], &["http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(ask(stream, "example.org").await.as_deref(), Some("a"));

    for said in ["GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""] {
        let mut wire = gateway.connect().await;
        wire.send(said).await;
        let answer = wire.rest().await;
        assert!(!answer.starts_with(b"HTTP/"), "{said:?} is answered in clear text: {answer:?}");
    }
    let stream = handshake(&gateway, "example.org", &[&certificate], &[]).await.unwrap();
    assert_eq!(ask(stream, "example.org").await.as_deref(), Some("a"), "others are served on");
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections_while_old_ones_go_on() {
    let (old, new) = (Certificate::new(&["example.org"]), Certificate::new(&["example.org"]));
    let backend = Backend::echo("a").await;
    let port = Port::reserve();
    let listeners = [
        https(&port, "https", "", &["one"]),
        https(&port, "named", "hostname: named.example.org,", &["one"]),
    ];
    let gateway = World::with_listeners(port, &listeners)
        .manifest("one", &old.secret("one"))
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .start()
        .await;
    let stream = handshake(&gateway, "example.org", &[&old], &[]).await.unwrap();
    let mut wire = Wire::over(stream);
    assert_eq!(wire.get("/").await.status(), 200);

    gateway.edit("one", &new.secret("one")).await;
    let stream = handshake(&gateway, "example.org", &[&old, &new], &[]).await.unwrap();
    assert_eq!(presented(&stream), new.der());
    assert_eq!(wire.get("/").await.status(), 200, "the old connection goes on");

    let broken = new.secret("one").replace("BEGIN CERTIFICATE", "BEGIN NOTHING");
    gateway.edit("one", &broken).await;
    let stream = handshake(&gateway, "example.org", &[&old, &new], &[]).await.unwrap();
    assert_eq!(presented(&stream), new.der(), "what is no PEM leaves the last good one in place");
    assert!(gateway.config().await["faults"].to_string().contains("tls.crt"), "and is told");

    gateway.edit("one", &old.secret_with_key_of("one", &new)).await;
    let stream = handshake(&gateway, "example.org", &[&old, &new], &[]).await.unwrap();
    assert_eq!(
        presented(&stream),
        new.der(),
        "a certificate whose key is another's leaves the last good one in place"
    );
    assert_eq!(
        gateway.condition("Gateway demo/demo", "ResolvedRefs").await["status"],
        "False",
        "and is told"
    );
    let line = "Gateway demo/demo: the certificate of Secret demo/one cannot be served: ";
    let line = gateway.log.more(line, 0).await;
    assert!(line.contains("; the version before serves on"), "{line}");
    let said = gateway.log.count("the certificate of Secret demo/one cannot be served");
    assert_eq!(said, 1, "once for both listeners: {}", gateway.log.text());
}

/// How the handshake of a connection for one request went.
async fn visit(gateway: &Running, client: &Arc<ClientConfig>) -> HandshakeKind {
    let stream = soon(TcpStream::connect(gateway.address())).await.unwrap();
    let name = ServerName::try_from("example.org").unwrap();
    let stream = soon(TlsConnector::from(Arc::clone(client)).connect(name, stream)).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    assert_eq!(ask(stream, "example.org").await.as_deref(), Some("a"));
    kind
}

#[tokio::test]
async fn however_many_clients_there_are_each_resumes_its_session_until_hosts_change() {
    let (old, new) = (Certificate::new(&["example.org"]), Certificate::new(&["example.org"]));
    let backend = Backend::echo("a").await;
    let port = Port::reserve();
    let listener = |host: &str| https(&port, "https", host, &["one"]);
    let (any, named) =
        (manifests::gateway(&[listener("")]), manifests::gateway(&[listener("hostname: example.org,")]));
    let gateway = World::with_listeners(port, &[])
        .manifest("gateway", &any)
        .manifest("one", &old.secret("one"))
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .start()
        .await;
    let clients: Vec<_> = (0..320).map(|_| Certificate::client(&[&old, &new], &[])).collect();
    for client in &clients {
        assert_eq!(visit(&gateway, client).await, HandshakeKind::Full);
    }
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(visit(&gateway, client).await, HandshakeKind::Resumed, "{number}");
    }
    gateway.edit("one", &new.secret("one")).await;
    assert_eq!(visit(&gateway, &clients[0]).await, HandshakeKind::Resumed, "after a renewal");
    gateway.edit("gateway", &named).await;
    assert_eq!(visit(&gateway, &clients[0]).await, HandshakeKind::Full, "with another host");
    assert_eq!(visit(&gateway, &clients[0]).await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_listener_is_programmed_as_long_as_it_has_a_certificate_to_serve() {
    let (one, two) = (Certificate::new(&["example.org"]), Certificate::new(&["example.org"]));
    let backend = Backend::echo("a").await;
    let port = Port::reserve();
    let listener = https(&port, "https", "", &["one", "two"]);
    let mismatch = |name: &str| one.secret_with_key_of(name, &two);
    let gateway = World::with_listeners(port, &[listener])
        .manifest("one", &mismatch("one"))
        .manifest("two", &mismatch("two"))
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .start()
        .await;
    let status = async |kind| {
        let config = gateway.config().await;
        let listener = &config["conditions"]["Gateway demo/demo"]["listeners"][0];
        let conditions = listener["conditions"].as_array().unwrap().clone();
        let condition = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap();
        (condition["status"].as_str().unwrap().to_owned(), condition["reason"].as_str().unwrap().to_owned())
    };
    let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(status("ResolvedRefs").await, is("False", "InvalidCertificateRef"));
    assert_eq!(status("Programmed").await, is("False", "Invalid"));
    assert_eq!(gateway.condition("Gateway demo/demo", "Programmed").await["status"], "False");

    gateway.edit("two", &two.secret("two")).await;
    assert_eq!(status("ResolvedRefs").await.0, "False", "one of its references is still broken");
    assert_eq!(status("Programmed").await.0, "True");
    assert!(handshake(&gateway, "example.org", &[&two], &[]).await.is_ok());
}

#[tokio::test]
async fn a_provider_is_asked_over_tls_if_its_certificate_names_it() {
    let certificate = Certificate::new(&["localhost"]);
    let acceptor = TlsAcceptor::from(certificate.server());
    let provider = Backend::raw(move |wire| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(wire.into_io()).await else { return };
            let mut wire = Wire::over(stream);
            let Ok(request) = wire.message().await else { return };
            let key = request.header("authorization").unwrap_or_default();
            let answer = format!(r#"{{"choices":[],"id":"{key}"}}"#);
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len())).await;
        }
    })
    .await;
    let service = |name: &str, host: &str| {
        format!(
            "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: {name}, namespace: demo}}
spec: {{provider: openai, model: m, endpoint: 'https://{host}:{}', auth: {{type: bearer, secret: key, key: token}}}}
",
            provider.address.port()
        )
    };
    let key =
        "{apiVersion: v1, kind: Secret, metadata: {name: key, namespace: demo}, stringData: {token: sk-1}}";
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), certificate.pem()).unwrap();
    let gateway = World::new()
        .manifest("key", key)
        .manifest("named", &service("named", "localhost"))
        .manifest("unnamed", &service("unnamed", "127.0.0.1"))
        .route_of("named", "named.example", &[rule("/", &to_ai("named"))])
        .route_of("unnamed", "unnamed.example", &[rule("/", &to_ai("unnamed"))])
        .variable("SSL_CERT_FILE", roots.path().to_str().unwrap())
        .start()
        .await;
    let answer = gateway.ask(chat("named.example", false)).await.text();
    assert_eq!(answer, r#"{"choices":[],"id":"Bearer sk-1"}"#);
    let refused = gateway.ask(chat("unnamed.example", false)).await;
    assert!(matches!(refused.status(), 502 | 503), "{refused:?}");
}

#[tokio::test]
async fn the_cookie_of_a_session_is_secure() {
    let certificate = Certificate::new(&["example.org"]);
    let backend = Backend::echo("a").await;
    let port = Port::reserve();
    let listeners = [https(&port, "https", "", &["cert"])];
    let gateway = World::with_listeners(port, &listeners)
        .manifest("cert", &certificate.secret("cert"))
        .service("a", &[&backend])
        .route("a", &[rule("/", &format!("sessionPersistence: {{}}, {}", to("a")))])
        .start()
        .await;
    let stream = handshake(&gateway, "example.org", &[&certificate], &[]).await.unwrap();
    let reply = Wire::over(stream).ask("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    assert!(reply.header("set-cookie").unwrap().ends_with("; SameSite=Strict; Secure"));
}

#[tokio::test]
async fn a_certificate_that_clients_refuse_is_warned_of() {
    let (old, other) = (Certificate::expired(&["example.org"]), Certificate::new(&["example.net"]));
    let port = Port::reserve();
    let listeners = [
        https(&port, "old", "hostname: example.org,", &["old"]),
        https(&port, "other", "hostname: '*.example.org',", &["other"]),
    ];
    let gateway = World::with_listeners(port, &listeners)
        .manifest("old", &old.secret("old"))
        .manifest("other", &other.secret("other"))
        .start()
        .await;
    let told = "Gateway demo/demo: listener old: the certificate of Secret demo/old is valid no more: it was until \
                Wed, 01 Jan 2020 00:00:00 GMT";
    assert_eq!(gateway.log.count(told), 1);
    let told = "listener other: the certificate of Secret demo/other names no host of the listener";
    assert_eq!(gateway.log.count(told), 1);
    let not_after = "nantian_tls_certificate_not_after_timestamp_seconds{secret=\"demo/old\"}";
    assert_eq!(gateway.metric(not_after).await, Some(1_577_836_800.0));
    // It is served all the same: it may be all that there is.
    let stream = handshake(&gateway, "any.example.org", &[&other], &[]).await;
    assert!(stream.is_err(), "the client refuses it");
    eventually("the client's alert is counted", async || {
        gateway.metric("nantian_tls_handshake_failures_total{reason=\"client_alert\"}").await == Some(1.0)
    })
    .await;
}
