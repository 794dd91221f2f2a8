//! TLS on the side of backends.

use crate::support::{
    Backend, Certificate, Port, Running, World, backend_tls_policy as policy, eventually, http2, manifests,
    rule, soon, to, trusting_authority as trusting,
};

/// A world in which `certificate` is the authority `ca`, and requests below `/name` go to the Service of that
/// name.
fn world(certificate: &Certificate, backend: &Backend, names: &[&str]) -> World {
    let rules: Vec<_> = names.iter().map(|name| rule(&format!("/{name}"), &to(name))).collect();
    let world = World::new().manifest("ca", &certificate.authority("ca")).route("r", &rules);
    names.iter().fold(world, |world, name| world.service(name, &[backend]))
}

async fn status(gateway: &Running, path: &str) -> u16 {
    gateway.get(path).await.status()
}

#[tokio::test]
async fn a_backend_is_asked_over_tls_by_its_name_and_only_if_it_is_who_it_should_be() {
    let certificate = Certificate::new(&["a.example.org", "b.example.org"]);
    let other = Certificate::new(&["a.example.org"]);
    let backend = Backend::tls(certificate.server()).await;
    let gateway = world(&certificate, &backend, &["good", "misnamed", "untrusted", "unknown"])
        .manifest("other", &other.authority("other"))
        .manifest("good-tls", &policy("good", "", &trusting("ca", "a.example.org")))
        .manifest("misnamed-tls", &policy("misnamed", "", &trusting("ca", "c.example.org")))
        .manifest("untrusted-tls", &policy("untrusted", "", &trusting("other", "a.example.org")))
        .manifest("unknown-tls", &policy("unknown", "", &trusting("nowhere", "a.example.org")))
        .start()
        .await;
    let reply = gateway.get("/good").await;
    assert_eq!((reply.status(), reply.header("x-name")), (200, Some("a.example.org")));
    assert_eq!(status(&gateway, "/misnamed").await, 502);
    assert_eq!(status(&gateway, "/untrusted").await, 502);
    assert_eq!(status(&gateway, "/unknown").await, 500);
    assert_eq!(backend.seen().len(), 1, "nothing else has arrived");
    let of = async |kind| gateway.condition("BackendTLSPolicy demo/unknown", kind).await["reason"].clone();
    assert_eq!(of("Accepted").await, "NoValidCACertificate");
    assert_eq!(of("ResolvedRefs").await, "InvalidCACertificateRef");

    gateway.edit("ca", &other.authority("ca")).await;
    assert_eq!(status(&gateway, "/good").await, 502, "a new authority is the only one that is trusted");
    gateway.edit("ca", &certificate.authority("ca")).await;
    assert_eq!(status(&gateway, "/good").await, 200);
    gateway.edit("nowhere", &certificate.authority("nowhere")).await;
    assert_eq!(status(&gateway, "/unknown").await, 200, "what was missing has come");
    gateway.edit("good-tls", "").await;
    assert_eq!(status(&gateway, "/good").await, 502, "clear text is not understood");
}

#[tokio::test]
async fn a_certificate_that_the_policy_names_itself_is_trusted_though_it_is_an_authority() {
    let (own, other) =
        (Certificate::of_authority("a.example.org"), Certificate::of_authority("a.example.org"));
    let old = Certificate::of_authority_expired("a.example.org");
    let (backend, expired) = (Backend::tls(own.server()).await, Backend::tls(old.server()).await);
    let gateway = world(&own, &backend, &["good", "listed", "misnamed", "unlisted", "other"])
        .service("expired", &[&expired])
        .route("expired", &[rule("/expired", &to("expired"))])
        .manifest("other", &other.authority("other"))
        .manifest("old", &old.authority("old"))
        .manifest("good-tls", &policy("good", "", &trusting("ca", "a.example.org")))
        .manifest("misnamed-tls", &policy("misnamed", "", &trusting("ca", "b.example.org")))
        .manifest("other-tls", &policy("other", "", &trusting("other", "a.example.org")))
        .manifest("expired-tls", &policy("expired", "", &trusting("old", "a.example.org")))
        .manifest("listed-tls", &policy("listed", "", &listing("a.example.org")))
        .manifest("unlisted-tls", &policy("unlisted", "", &listing("b.example.org")))
        .start()
        .await;
    for (path, expected) in [
        ("/good", 200),
        ("/listed", 200),
        ("/misnamed", 502),
        ("/unlisted", 502),
        ("/other", 502),
        ("/expired", 502),
    ] {
        assert_eq!(status(&gateway, path).await, expected, "{path}");
    }
}

/// Trusts the authority `ca` for whoever has this name.
fn listing(name: &str) -> String {
    let ca = trusting("ca", "asked.example.org");
    format!("{ca}, subjectAltNames: [{{type: Hostname, hostname: {name}}}]")
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_lets_nothing_through_in_clear_text() {
    let certificate = Certificate::new(&["a.example.org"]);
    let (plain, backend) = (Backend::echo("plain").await, Backend::tls(certificate.server()).await);
    let broken = "hostname: a.example.org, caCertificateRefs: no list";
    let gateway = world(&certificate, &backend, &["good"])
        .service("guarded", &[&plain])
        .route("guarded", &[rule("/guarded", &to("guarded"))])
        .manifest("guarded-tls", &policy("guarded", "", broken))
        .manifest("good-tls", &policy("good", "", &trusting("ca", "a.example.org")))
        .start()
        .await;
    assert_eq!(status(&gateway, "/guarded").await, 500);
    assert!(plain.seen().is_empty(), "nothing has arrived");
    let accepted = gateway.condition("BackendTLSPolicy demo/guarded", "Accepted").await;
    assert_eq!((&accepted["status"], &accepted["reason"]), (&"False".into(), &"Invalid".into()));
    assert!(accepted["message"].to_string().contains("caCertificateRefs"), "{accepted}");
    gateway.edit("good-tls", &policy("good", "", broken)).await;
    assert_eq!(status(&gateway, "/good").await, 200, "the last good version stays");
    gateway.edit("guarded-tls", "").await;
    assert_eq!(status(&gateway, "/guarded").await, 200);
}

#[tokio::test]
async fn a_certificate_needs_one_of_the_names_that_are_listed() {
    let uri = Certificate::of_uri("spiffe://example.org/a");
    let by_uri = Backend::tls(uri.server()).await;
    let wild = Certificate::new(&["*.example.org"]);
    let by_host = Backend::tls(wild.server()).await;
    let names =
        |ca: &str, names: &str| format!("{}, subjectAltNames: [{names}]", trusting(ca, "other.example.net"));
    let services = [
        ("uri", "uri", "{type: URI, uri: 'spiffe://example.org/a'}", 200),
        ("uri-case", "uri", "{type: URI, uri: 'spiffe://example.org/A'}", 502),
        (
            "second",
            "uri",
            "{type: Hostname, hostname: x.org}, {type: URI, uri: 'spiffe://example.org/a'}",
            200,
        ),
        ("host", "wild", "{type: Hostname, hostname: a.example.org}", 200),
        ("spelt", "wild", "{type: Hostname, hostname: '*.example.org'}", 200),
        ("wider", "wild", "{type: Hostname, hostname: '*.org'}", 502),
        ("neither", "wild", "{type: Hostname, hostname: a.example.net}, {type: URI, uri: 'a:b'}", 502),
    ];
    let rules: Vec<_> = services.iter().map(|(name, ..)| rule(&format!("/{name}"), &to(name))).collect();
    let mut world = World::new()
        .manifest("uri", &uri.authority("uri"))
        .manifest("wild", &wild.authority("wild"))
        .route("r", &rules);
    for (name, ca, listed, _) in services {
        let backend = if ca == "uri" { &by_uri } else { &by_host };
        world = world.service(name, &[backend]);
        world = world.manifest(&format!("{name}-tls"), &policy(name, "", &names(ca, listed)));
    }
    let gateway = world.start().await;
    for (name, _, _, expected) in services {
        let reply = gateway.get(&format!("/{name}")).await;
        assert_eq!(reply.status(), expected, "{name}");
        if expected == 200 {
            assert_eq!(reply.header("x-name"), Some("other.example.net"), "it is asked for all the same");
        }
    }
}

#[tokio::test]
async fn the_roots_of_the_system_are_trusted_where_the_policy_says_so() {
    let certificate = Certificate::new(&["a.example.org"]);
    let backend = Backend::tls(certificate.server()).await;
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), certificate.pem()).unwrap();
    let system = "wellKnownCACertificates: System, hostname: a.example.org";
    let gateway = world(&certificate, &backend, &["a"])
        .manifest("tls", &policy("a", "", system))
        .variable("SSL_CERT_FILE", roots.path().to_str().unwrap())
        .start()
        .await;
    assert_eq!(status(&gateway, "/a").await, 200);
}

#[tokio::test]
async fn http2_and_websockets_go_over_tls() {
    let certificate = Certificate::new(&["a.example.org"]);
    let backend = Backend::tls(certificate.server_offering(&["h2", "http/1.1"])).await;
    let gateway = world(&certificate, &backend, &["a", "b"])
        .h2c_service("b", &backend)
        .manifest("a-tls", &policy("a", "", &trusting("ca", "a.example.org")))
        .manifest("b-tls", &policy("b", "", &trusting("ca", "a.example.org")))
        .start()
        .await;
    assert_eq!(gateway.get("/a").await.header("x-protocol"), Some("http/1.1"));
    assert_eq!(gateway.get("/b").await.header("x-protocol"), Some("h2"));
    let client = http2::client(&gateway).await;
    let call = http::Request::post("http://h/a").header("content-type", "application/grpc");
    let call = call.body(http_body_util::BodyExt::boxed(http_body_util::Empty::new())).unwrap();
    let reply = soon(client.clone().send_request(call)).await.unwrap();
    assert_eq!(reply.headers()["x-protocol"], "h2", "a call needs HTTP/2");
    let mut wire = gateway.connect().await;
    let reply =
        wire.ask("GET /a HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(reply.status(), 101);
    assert_eq!(soon(wire.exactly(5)).await.unwrap(), b"hello");
}

#[tokio::test]
async fn the_policy_of_a_port_comes_before_that_of_the_service_and_the_older_before_the_younger() {
    let certificate = Certificate::new(&["a.example.org"]);
    let backend = Backend::tls(certificate.server()).await;
    let younger = policy("a", "", &trusting("ca", "a.example.org")).replace("name: a,", "name: younger,");
    let gateway = world(&certificate, &backend, &["a"])
        .manifest("a-tls", &policy("a", "", &trusting("ca", "c.example.org")))
        .manifest("younger", &younger)
        .start()
        .await;
    assert_eq!(status(&gateway, "/a").await, 502);
    let reason = gateway.condition("BackendTLSPolicy demo/younger", "Accepted").await["reason"].clone();
    assert_eq!(reason, "Conflicted");
    gateway.edit("port", &policy("a", "http", &trusting("ca", "a.example.org"))).await;
    assert_eq!(status(&gateway, "/a").await, 200);
    gateway.edit("port", &policy("a", "nowhere", &trusting("ca", "a.example.org"))).await;
    assert_eq!(status(&gateway, "/a").await, 502, "a port that does not exist is not the Service");
}

#[tokio::test]
async fn a_gateway_presents_its_certificate_to_backends_that_ask_for_one() {
    let certificate = Certificate::new(&["a.example.org"]);
    let (own, renewed) = (Certificate::new(&["gateway"]), Certificate::new(&["gateway"]));
    let backend = Backend::tls(certificate.server_for(&own)).await;
    let (port, other) = (Port::reserve(), Port::reserve());
    let with = |secret: &str| {
        let listener = port.listener("http", "protocol: HTTP");
        let tls = format!("  tls: {{backend: {{clientCertificateRef: {{name: {secret}}}}}}}\n");
        format!("{}{tls}", manifests::gateway(&[listener]))
    };
    let without = manifests::gateway(&[other.listener("http", "protocol: HTTP")]);
    let without = without.replace("metadata: {name: demo, n", "metadata: {name: other, n");
    let manifest = with("own");
    let edited = with("nowhere");
    let route = "parentRefs: [{name: demo}, {name: other}]";
    let gateway = World::with_listeners(port, &[])
        .manifest("gateway", &manifest)
        .manifest("other", &without)
        .manifest("own", &own.secret("own"))
        .manifest("ca", &certificate.authority("ca"))
        .service("a", &[&backend])
        .manifest("tls", &policy("a", "", &trusting("ca", "a.example.org")))
        .manifest(
            "r",
            &manifests::route("r", "", &[rule("/", &to("a"))]).replace("parentRefs: [{name: demo}]", route),
        )
        .start()
        .await;
    let other = other.address();
    let of_other = async || crate::support::Wire::connect(other).await.get("/").await.status();
    assert_eq!(status(&gateway, "/").await, 200);
    assert_eq!(of_other().await, 502, "a connection is not lent to a Gateway without the certificate");
    assert_eq!(status(&gateway, "/").await, 200);
    assert_eq!(gateway.condition("Gateway demo/demo", "ResolvedRefs").await["status"], "True");

    gateway.edit("own", &renewed.secret("own")).await;
    eventually("the new certificate is presented", async || status(&gateway, "/").await == 502).await;
    gateway.edit("own", &own.secret("own")).await;
    assert_eq!(status(&gateway, "/").await, 200);
    gateway.edit("gateway", &edited).await;
    let condition = gateway.condition("Gateway demo/demo", "ResolvedRefs").await;
    assert_eq!(condition["reason"], "InvalidClientCertificateRef");
    assert_eq!(status(&gateway, "/").await, 502);
}
