//! Clients that have to prove who they are.

use std::{
    io,
    sync::{Arc, Mutex},
};

use nantian_wasm::Digest;
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    plugin_fields::{PROPERTY, inline, spec},
    support::{
        Backend, Certificate, Message, Port, Running, Wire, World, eventually, manifests, rule, soon, to,
    },
};

/// The Gateway `demo` with these listeners and this `spec.tls.frontend`.
fn gateway(listeners: &[String], frontend: &str) -> String {
    format!("{}  tls: {{frontend: {{{frontend}}}}}\n", manifests::gateway(listeners))
}

fn validation(ca: &str) -> String {
    format!("validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: {ca}}}]}}")
}

fn https(port: &Port, name: &str, host: &str) -> String {
    port.listener(name, &format!("protocol: HTTPS, {host} tls: {{certificateRefs: [{{name: server}}]}}"))
}

/// Asks for `/` of `host` over a connection for `name`.
async fn ask(
    port: std::net::SocketAddr,
    client: &Arc<ClientConfig>,
    name: &str,
    host: &str,
) -> io::Result<Message> {
    let stream = soon(TcpStream::connect(port)).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut wire = Wire::over(soon(TlsConnector::from(Arc::clone(client)).connect(name, stream)).await?);
    wire.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
    soon(wire.message()).await
}

async fn status(port: std::net::SocketAddr, client: &Arc<ClientConfig>, name: &str) -> Option<u16> {
    ask(port, client, name, name).await.ok().map(|reply| reply.status())
}

struct People {
    server: Certificate,
    friend: Certificate,
    stranger: Certificate,
    nobody: Arc<ClientConfig>,
}

impl People {
    fn new(hosts: &[&str]) -> Self {
        let server = Certificate::new(hosts);
        let nobody = Certificate::client(&[&server], &[]);
        Self {
            server,
            friend: Certificate::new(&["friend"]),
            stranger: Certificate::new(&["stranger"]),
            nobody,
        }
    }

    fn friend(&self) -> Arc<ClientConfig> {
        self.friend.presented_by(&self.nobody)
    }

    fn stranger(&self) -> Arc<ClientConfig> {
        self.stranger.presented_by(&self.nobody)
    }

    async fn serve(&self, world: World, gateway: &str) -> Running {
        world
            .manifest("gateway", gateway)
            .manifest("server", &self.server.secret("server"))
            .manifest("friends", &self.friend.authority("friends"))
            .manifest("strangers", &self.stranger.authority("strangers"))
            .service("a", &[&Backend::echo("a").await])
            .route("r", &[rule("/", &to("a"))])
            .start()
            .await
    }
}

#[tokio::test]
async fn each_port_asks_for_its_own_certificates() {
    let people = People::new(&["example.org"]);
    let (port, other, open) = (Port::reserve(), Port::reserve(), Port::reserve());
    let listeners = [https(&port, "one", ""), https(&other, "two", ""), https(&open, "three", "")];
    let manifest = |default: &str| {
        let (two, three) = (other.address().port(), open.address().port());
        let ports = format!(
            "perPort: [{{port: {two}, tls: {{{}}}}}, {{port: {three}, tls: {{}}}}]",
            validation("strangers")
        );
        gateway(&listeners, &format!("default: {{{default}}}, {ports}"))
    };
    let (strict, swapped) = (manifest(&validation("friends")), manifest(&validation("strangers")));
    let lax = manifest(&validation("friends").replace("}]}", "}], mode: AllowInsecureFallback}"));
    let gone = manifest(&validation("nowhere"));
    let none = manifest("");
    let (two, three) = (other.address(), open.address());
    let running = people.serve(World::with_listeners(port, &[]), &strict).await;
    let one = running.address();
    let (friend, stranger, nobody) = (people.friend(), people.stranger(), Arc::clone(&people.nobody));
    let of = async |address| {
        let host = "example.org";
        [
            status(address, &friend, host).await,
            status(address, &stranger, host).await,
            status(address, &nobody, host).await,
        ]
    };
    assert_eq!(of(one).await, [Some(200), None, None]);
    assert_eq!(of(two).await, [None, Some(200), None]);
    assert_eq!(of(three).await, [Some(200), Some(200), Some(200)]);

    running.edit("gateway", &lax).await;
    assert_eq!(of(one).await, [Some(200), Some(200), Some(200)]);
    let condition = running.condition("Gateway demo/demo", "InsecureFrontendValidationMode").await;
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&"True".into(), &"ConfigurationChanged".into())
    );
    running.edit("gateway", &swapped).await;
    assert_eq!(of(one).await, [None, Some(200), None]);
    running.edit("gateway", &gone).await;
    assert_eq!(of(one).await, [None, None, None], "without an authority nobody is served");
    running.edit("gateway", &none).await;
    assert_eq!(of(one).await, [Some(200), Some(200), Some(200)]);

    let mut begun = {
        let stream = soon(TcpStream::connect(one)).await.unwrap();
        let name = ServerName::try_from("example.org").unwrap();
        Wire::over(soon(TlsConnector::from(Arc::clone(&nobody)).connect(name, stream)).await.unwrap())
    };
    let request = "GET / HTTP/1.1\r\nhost: example.org\r\n\r\n";
    assert_eq!(begun.ask(request).await.status(), 200);
    running.edit("gateway", &strict).await;
    assert_eq!(begun.ask(request).await.status(), 421, "a connection from before proves nothing");
    running.edit("friends", &people.stranger.authority("friends")).await;
    assert_eq!(of(one).await, [None, Some(200), None], "other authorities are trusted at once");
}

#[tokio::test]
async fn gateways_on_one_socket_ask_their_own_clients_and_no_connection_is_used_for_both() {
    let people = People::new(&["closed.example", "open.example"]);
    let port = Port::reserve();
    let closed = gateway(
        &[https(&port, "https", "hostname: closed.example,")],
        &format!("default: {{{}}}", validation("friends")),
    );
    let open = manifests::gateway(&[https(&port, "https", "hostname: open.example,")]);
    let open = open.replace("metadata: {name: demo, n", "metadata: {name: open, n");
    let parents = manifests::route("r", "", &[rule("/", &to("a"))]);
    let parents = parents.replace("parentRefs: [{name: demo}]", "parentRefs: [{name: demo}, {name: open}]");
    let world = World::with_listeners(port, &[]).manifest("open", &open);
    let running = people.serve(world, &closed).await;
    running.edit("route-r", &parents).await;
    let address = running.address();
    let (friend, nobody) = (people.friend(), Arc::clone(&people.nobody));
    assert_eq!(status(address, &nobody, "closed.example").await, None);
    assert_eq!(status(address, &friend, "closed.example").await, Some(200));
    assert_eq!(status(address, &nobody, "open.example").await, Some(200));
    for client in [&nobody, &friend] {
        let reply = ask(address, client, "open.example", "closed.example").await.unwrap();
        assert_eq!(reply.status(), 421);
    }
    let reply = ask(address, &friend, "closed.example", "open.example").await.unwrap();
    assert_eq!(reply.status(), 421);
    let nameless = |client: &ClientConfig| {
        let mut nameless = client.clone();
        nameless.enable_sni = false;
        Arc::new(nameless)
    };
    let of = async |client: &ClientConfig, host| {
        let reply = ask(address, &nameless(client), "closed.example", host).await;
        reply.ok().map(|reply| reply.status())
    };
    // Who asks for no name meets the first listener, which is the closed one.
    assert_eq!([of(&friend, "closed.example").await, of(&friend, "open.example").await], [Some(200); 2]);
    assert_eq!([of(&nobody, "closed.example").await, of(&nobody, "open.example").await], [None; 2]);
}

/// Offers the last session of any name to any other.
#[derive(Debug, Default)]
struct OneSession(Mutex<Option<Tls13ClientSessionValue>>);

impl ClientSessionStore for OneSession {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, session: Tls13ClientSessionValue) {
        *self.0.lock().unwrap() = Some(session);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap().take()
    }
}

/// How a handshake for `name` went after which a request was answered.
async fn handshake(
    port: std::net::SocketAddr,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Option<HandshakeKind> {
    let stream = soon(TcpStream::connect(port)).await.unwrap();
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let stream = soon(TlsConnector::from(Arc::clone(client)).connect(server, stream)).await.ok()?;
    let kind = stream.get_ref().1.handshake_kind();
    let mut wire = Wire::over(stream);
    wire.send(format!("GET / HTTP/1.1\r\nhost: {name}\r\n\r\n")).await;
    soon(wire.message()).await.ok()?;
    kind
}

#[tokio::test]
async fn no_session_gets_past_the_validation_of_clients() {
    let people = People::new(&["closed.example", "open.example"]);
    let port = Port::reserve();
    let listeners = [https(&port, "https", "hostname: closed.example,")];
    let closed = |ca| gateway(&listeners, &format!("default: {{{}}}", validation(ca)));
    let open = manifests::gateway(&[https(&port, "https", "hostname: open.example,")]);
    let open = open.replace("metadata: {name: demo, n", "metadata: {name: open, n");
    let world = World::with_listeners(port, &[]).manifest("open", &open);
    let running = people.serve(world, &closed("friends")).await;
    let address = running.address();
    let of = |client: &ClientConfig| {
        let mut client = client.clone();
        client.resumption = Resumption::store(Arc::new(OneSession::default()));
        Arc::new(client)
    };
    let (nobody, friend) = (of(&people.nobody), of(&people.friend()));
    let kind = async |client, name| handshake(address, client, name).await;
    let (full, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
    assert_eq!(kind(&nobody, "open.example").await, full);
    assert_eq!(kind(&nobody, "open.example").await, resumed);
    assert_eq!(kind(&nobody, "closed.example").await, None, "a session of another listener proves nothing");
    assert_eq!(kind(&friend, "open.example").await, full);
    for _ in 0..2 {
        assert_eq!(kind(&friend, "closed.example").await, full, "a certificate is asked for each time");
    }
    running.edit("gateway", &closed("strangers")).await;
    assert_eq!(kind(&friend, "closed.example").await, None, "whoever is trusted no more is not served");
    running.edit("gateway", &manifests::gateway(&listeners)).await;
    assert_eq!(kind(&nobody, "closed.example").await, full);
    assert_eq!(kind(&nobody, "closed.example").await, resumed);
    running.edit("gateway", &closed("friends")).await;
    assert_eq!(kind(&nobody, "closed.example").await, None, "a session from before proves nothing");
}

#[tokio::test]
async fn plugins_know_clients_by_their_certificates() {
    let people = People::new(&["example.org"]);
    let (named, addressed) = (Certificate::new(&["friend"]), Certificate::of_uri("spiffe://demo/friend"));
    let (port, backend) = (Port::reserve(), Backend::echo("a").await);
    let listeners = [https(&port, "one", "")];
    let of = |validation: String| gateway(&listeners, &format!("default: {{{validation}}}"));
    let strict = of(validation("friends"));
    let lax = of(validation("friends").replace("}]}", "}], mode: AllowInsecureFallback}"));
    let running = World::with_listeners(port, &[])
        .manifest("gateway", &strict)
        .manifest("server", &people.server.secret("server"))
        .manifest("friends", &named.authority("friends"))
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .manifest("plugin", &spec(&inline(PROPERTY), "config: ''"))
        .start()
        .await;
    let told = async |client: &Certificate, property: &str| {
        let config = format!(r#"config: "connection\0{property}""#);
        running.edit("plugin", &spec(&inline(PROPERTY), &config)).await;
        eventually("the edit runs", async || {
            running.condition("WasmPlugin demo/r", "Programmed").await["status"] == "True"
        })
        .await;
        let client = client.presented_by(&people.nobody);
        assert_eq!(status(running.address(), &client, "example.org").await, Some(200), "{property}");
        backend.last().header("x-value").map(str::to_owned)
    };
    const SHA256: &str = "sha256_peer_certificate_digest";
    const URI: &str = "uri_san_peer_certificate";
    const DNS: &str = "dns_san_peer_certificate";
    assert_eq!(told(&named, SHA256).await, Some(Digest::of(&named.der()).to_string()));
    assert_eq!(told(&named, DNS).await.as_deref(), Some("friend"));
    assert_eq!(told(&named, URI).await, None);
    running.edit("friends", &addressed.authority("friends")).await;
    assert_eq!(told(&addressed, DNS).await, None);
    assert_eq!(told(&addressed, URI).await.as_deref(), Some("spiffe://demo/friend"));
    // Whom nobody has verified may have any name.
    running.edit("gateway", &lax).await;
    for property in [SHA256, DNS] {
        assert_eq!(told(&named, property).await, None, "{property}");
    }
}

#[tokio::test]
async fn handshakes_that_fail_are_counted_by_reason() {
    let people = People::new(&["example.org"]);
    let old = Certificate::expired(&["friend"]);
    let port = Port::reserve();
    let listeners = [https(&port, "https", "hostname: example.org,")];
    let manifest = gateway(&listeners, &format!("default: {{{}}}", validation("friends")));
    let gateway = people.serve(World::with_listeners(port, &[]), &manifest).await;
    let address = gateway.address();
    for client in [&people.stranger(), &people.nobody, &old.presented_by(&people.nobody)] {
        assert_eq!(status(address, client, "example.org").await, None);
    }
    let elsewhere = Certificate::new(&["example.net"]);
    assert_eq!(status(address, &people.friend(), "elsewhere.org").await, None);
    let distrusting = people.friend.presented_by(&Certificate::client(&[&elsewhere], &[]));
    assert_eq!(status(address, &distrusting, "example.org").await, None);
    let mut plain = Wire::connect(address).await;
    plain.send("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    drop(soon(TcpStream::connect(address)).await.unwrap());
    for (reason, count) in [
        ("invalid_client_certificate", 1.0),
        ("no_client_certificate", 1.0),
        ("expired_client_certificate", 1.0),
        ("unknown_name", 1.0),
        ("client_alert", 1.0),
        ("malformed", 1.0),
        ("closed", 1.0),
        ("incompatible", 0.0),
        ("timeout", 0.0),
        ("other", 0.0),
    ] {
        let series = format!("nantian_tls_handshake_failures_total{{reason=\"{reason}\"}}");
        eventually(reason, async || gateway.metric(&series).await == Some(count)).await;
    }
    assert_eq!(status(address, &people.friend(), "example.org").await, Some(200));
}
