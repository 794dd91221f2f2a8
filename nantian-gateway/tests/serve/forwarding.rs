//! What the gateway takes out of messages and what it says about the client.

use crate::support::{
    Backend, Message, Running, World,
    http2::{client, get},
    rule, soon, to,
};

async fn gateway(backend: &Backend, options: &[&str]) -> Running {
    World::of_backend(backend).options(options).start().await
}

/// What a client may claim about where its request comes from.
const CLAIMS: &str = "X-Forwarded-For: 203.0.113.7, 198.51.100.1\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: claimed.example\r\nX-Forwarded-Port: 444\r\n\
    X-Forwarded-Prefix: /claimed\r\nX-Real-IP: 203.0.113.7\r\nForwarded: for=203.0.113.7;proto=https\r\n\
    X-Forwarded-Client-Cert: Subject=admin\r\nX_Forwarded_For: 203.0.113.7\r\nX_Real-IP: 203.0.113.7\r\n";

async fn ask_with_claims(gateway: &Running, backend: &Backend) -> Message {
    let reply = gateway.ask(format!("GET / HTTP/1.1\r\nHost: example.org:81\r\n{CLAIMS}\r\n")).await;
    assert_eq!(reply.status(), 200);
    backend.last()
}

#[tokio::test]
async fn what_an_untrusted_client_claims_is_replaced() {
    let backend = Backend::echo("a").await;
    let gateway = gateway(&backend, &[]).await;
    let seen = ask_with_claims(&gateway, &backend).await;
    for (name, value) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-real-ip", None),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("example.org:81")),
        ("x-forwarded-port", None),
        ("x-forwarded-prefix", None),
        ("forwarded", None),
        ("x-forwarded-client-cert", None),
        ("x_forwarded_for", None),
        ("x_real-ip", None),
    ] {
        assert_eq!(seen.all(name), Vec::from_iter(value), "{name}");
    }
    assert_eq!(seen.all("host"), ["example.org:81"]);
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_kept_and_extended() {
    let backend = Backend::echo("a").await;
    let gateway = gateway(&backend, &["--trusted-proxies", "127.0.0.0/8"]).await;
    let seen = ask_with_claims(&gateway, &backend).await;
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.7, 198.51.100.1, 127.0.0.1"),
        ("forwarded", "for=203.0.113.7;proto=https, for=127.0.0.1;host=\"example.org:81\";proto=http"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "claimed.example"),
        ("x-forwarded-port", "444"),
        ("x-forwarded-prefix", "/claimed"),
        ("x-forwarded-client-cert", "Subject=admin"),
    ] {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    assert_eq!(seen.header("x_forwarded_for"), None, "no proxy writes that, and one may pass it on");
}

#[tokio::test]
async fn fields_of_one_hop_do_not_pass_it() {
    let backend = Backend::answering(|_| {
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive, x-hop\r\nkeep-alive: timeout=5\r\n\
         x-hop: 1\r\nproxy-connection: keep-alive\r\nupgrade: foo\r\nx-end: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n"
    })
    .await;
    let gateway = gateway(&backend, &[]).await;
    let request = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Hop, TE, Host, Content-Length\r\n\
        Keep-Alive: timeout=5\r\nX-Hop: 1\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nX-End: 1\r\nX-End: 2\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nCookie: c=1; d=2\r\nX-Text: h\u{e9}llo\r\n\r\n";
    let reply = gateway.ask(request).await;
    let seen = backend.last();
    for name in
        ["connection", "keep-alive", "x-hop", "proxy-connection", "te", "upgrade", "transfer-encoding"]
    {
        assert_eq!(seen.header(name), None, "{name} of the request");
        assert_eq!(reply.header(name), None, "{name} of the response");
    }
    assert_eq!((seen.all("x-end"), seen.all("host")), (vec!["1", "2"], vec!["h"]));
    assert_eq!(
        seen.header("traceparent"),
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        "a trace goes on"
    );
    assert_eq!((seen.header("cookie"), seen.header("x-text")), (Some("c=1; d=2"), Some("h\u{e9}llo")));
    assert_eq!((reply.header("x-end"), reply.all("set-cookie")), (Some("1"), vec!["a=1", "b=2"]));
}

/// One rule, to `matched`, for requests with this header; all others go to `other`.
async fn matching(name: &str, value: &str, options: &[&str]) -> Running {
    let (matched, other) = (Backend::echo("matched").await, Backend::echo("other").await);
    let header = format!("{{matches: [{{headers: [{{name: {name}, value: {value}}}]}}], {}}}", to("matched"));
    World::new()
        .service("matched", &[&matched])
        .service("other", &[&other])
        .route("r", &[header, rule("/", &to("other"))])
        .options(options)
        .start()
        .await
}

#[tokio::test]
async fn a_rule_sees_what_the_backend_sees() {
    const TRUST: &[&str] = &["--trusted-proxies", "127.0.0.0/8"];
    for (name, value, claim, options, target) in [
        ("x-forwarded-proto", "http", "", &[][..], "matched"),
        ("x-forwarded-proto", "http", "X-Forwarded-Proto: https\r\n", &[], "matched"),
        ("x-forwarded-proto", "https", "X-Forwarded-Proto: https\r\n", &[], "other"),
        ("x-forwarded-proto", "https", "X-Forwarded-Proto: https\r\n", TRUST, "matched"),
        ("x-forwarded-for", "127.0.0.1", "X-Forwarded-For: 10.0.0.1\r\n", &[], "matched"),
        ("x-forwarded-for", "10.0.0.1", "X-Forwarded-For: 10.0.0.1\r\n", &[], "other"),
        ("x-real-ip", "10.0.0.1", "X-Real-IP: 10.0.0.1\r\n", &[], "other"),
        ("x-real-ip", "10.0.0.1", "X-Real-IP: 10.0.0.1\r\n", TRUST, "matched"),
        ("x-hop", "a", "X-Hop: a\r\nConnection: x-hop\r\n", &[], "other"),
        ("x-forwarded-proto", "http", "Connection: x-forwarded-proto\r\n", &[], "matched"),
        ("upgrade", "websocket", "Connection: upgrade\r\nUpgrade: websocket\r\n", &[], "matched"),
        ("upgrade", "h2c", "Connection: upgrade\r\nUpgrade: h2c\r\n", &[], "other"),
    ] {
        let gateway = matching(name, value, options).await;
        let reply = gateway.ask(format!("GET / HTTP/1.1\r\nHost: h\r\n{claim}\r\n")).await;
        assert_eq!(reply.header("x-backend"), Some(target), "{name}: {value} of {claim:?}");
    }
}

#[tokio::test]
async fn a_rule_for_the_host_header_is_one_for_the_authority() {
    let gateway = matching("Host", "example.org", &[]).await;
    assert_eq!(gateway.get("/").await.header("x-backend"), Some("matched"));
    let absolute = "GET http://example.org/ HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(gateway.ask(absolute).await.header("x-backend"), Some("matched"));
    let other = "GET http://h/ HTTP/1.1\r\nHost: example.org\r\n\r\n";
    assert_eq!(gateway.ask(other).await.header("x-backend"), Some("other"));
    let response = soon(client(&gateway).await.send_request(get("/"))).await.unwrap();
    assert_eq!(response.headers()["x-backend"], "matched");
}

#[tokio::test]
async fn a_request_that_its_route_leads_back_ends() {
    let backend = Backend::echo("a").await;
    let gateway = gateway(&backend, &[]).await;
    assert_eq!(gateway.get("/").await.status(), 200);
    assert!(backend.last().header("cdn-loop").unwrap().starts_with("nantian-"));
    gateway.edit_service("a", &[&Backend::at(gateway.address())]).await;
    assert_eq!(gateway.get("/").await.status(), 508);
}

#[tokio::test]
async fn a_redirect_stays_with_the_scheme_that_a_trusted_proxy_has_seen() {
    let backend = Backend::echo("a").await;
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}}}]";
    let ask = "GET /old HTTP/1.1\r\nHost: example.org\r\nX-Forwarded-Proto: https, http\r\n\r\n";
    for (options, from) in
        [(&["--trusted-proxies", "127.0.0.1"][..], "https://example.org"), (&[], "http://example.org:")]
    {
        let world = World::new().service("a", &[&backend]).route("r", &[rule("/old", redirect)]);
        let gateway = world.options(options).start().await;
        let location = gateway.ask(ask).await.header("location").unwrap().to_owned();
        let port = if from.ends_with(':') { gateway.address().port().to_string() } else { String::new() };
        assert_eq!(location, format!("{from}{port}/new"));
    }
}
