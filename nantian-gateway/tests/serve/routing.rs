//! Which rule a request belongs to, and what its filters do.

use std::collections::BTreeMap;

use crate::support::{Backend, Port, Wire, World, rule, soon, to};

/// How often each status came in so many requests.
async fn statuses(wire: &mut Wire, path: &str, requests: usize) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for _ in 0..requests {
        *statuses.entry(wire.get(path).await.status()).or_default() += 1;
    }
    statuses
}

#[tokio::test]
async fn a_path_is_matched_however_its_escapes_are_spelled() {
    let backend = Backend::echo("a").await;
    let rules = [rule("/caf%c3%a9/a%2Db", &to("a"))];
    let gateway = World::new().service("a", &[&backend]).route("r", &rules).start().await;
    for path in ["/caf%c3%a9/a-b/c", "/caf%C3%A9/a%2db"] {
        assert_eq!(gateway.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(backend.last().start, "GET /caf%C3%A9/a-b HTTP/1.1");
    assert_eq!(gateway.get("/cafe/a-b").await.status(), 404);
}

#[tokio::test]
async fn a_request_without_a_usable_backend_is_told_why() {
    let backend = Backend::echo("a").await;
    let half = "backendRefs: [{name: a, port: 80}, {name: nobody, port: 80}]";
    let world = World::new().service("a", &[&backend]).service("empty", &[]).route(
        "r",
        &[
            rule("/a", &to("a")),
            rule("/nobody", &to("nobody")),
            rule("/port", "backendRefs: [{name: a, port: 81}]"),
            rule("/nothing", "backendRefs: []"),
            rule("/half", half),
            rule("/empty", &to("empty")),
        ],
    );
    let gateway = world.start().await;
    let mut wire = gateway.connect().await;
    for (path, status) in [
        ("/a", 200),
        ("/b", 404),
        ("/ab", 404),
        ("/nobody", 500),
        ("/port", 500),
        ("/nothing", 500),
        ("/empty", 503),
    ] {
        assert_eq!(wire.get(path).await.status(), status, "{path}");
    }
    let statuses = statuses(&mut wire, "/half", 200).await;
    assert_eq!(statuses.keys().copied().collect::<Vec<_>>(), [200, 500]);
    assert!((60..=140).contains(&statuses[&500]), "{statuses:?}");
}

#[tokio::test]
async fn weights_share_requests_out() {
    let (a, b, c) = (Backend::echo("a").await, Backend::echo("b").await, Backend::echo("c").await);
    let weighted = "backendRefs: [{name: a, port: 80, weight: 9}, {name: b, port: 80, weight: 1}, \
                    {name: c, port: 80, weight: 0}]";
    let world = World::new()
        .service("a", &[&a])
        .service("b", &[&b])
        .service("c", &[&c])
        .service("both", &[&a, &b])
        .route("r", &[rule("/weighted", weighted), rule("/both", &to("both"))]);
    let gateway = world.start().await;
    let mut wire = gateway.connect().await;
    for _ in 0..300 {
        assert_eq!(wire.get("/weighted").await.status(), 200);
    }
    assert!((240..300).contains(&a.seen().len()), "{}", a.seen().len());
    assert!((1..60).contains(&b.seen().len()), "{}", b.seen().len());
    assert_eq!(c.seen().len(), 0);

    let before = (a.seen().len(), b.seen().len());
    for _ in 0..20 {
        assert_eq!(wire.get("/both").await.status(), 200);
    }
    assert_eq!((a.seen().len() - before.0, b.seen().len() - before.1), (10, 10), "endpoints take turns");
}

#[tokio::test]
async fn matches_are_tried_from_the_most_specific_on() {
    let (a, b, c, d) = (
        Backend::echo("a").await,
        Backend::echo("b").await,
        Backend::echo("c").await,
        Backend::echo("d").await,
    );
    let rules = [
        rule("/", &to("a")),
        rule("/api", &to("b")),
        format!("{{matches: [{{path: {{type: Exact, value: /api}}, method: POST}}], {}}}", to("c")),
        format!(
            "{{matches: [{{path: {{type: PathPrefix, value: /api}}, headers: [{{name: x-env, value: test}}]}}, \
             {{queryParams: [{{name: env, value: test}}], path: {{type: RegularExpression, value: '/re/[0-9]+'}}}}], {}}}",
            to("d")
        ),
    ];
    let world = World::new()
        .service("a", &[&a])
        .service("b", &[&b])
        .service("c", &[&c])
        .service("d", &[&d])
        .route("r", &rules);
    let gateway = world.start().await;
    let mut wire = gateway.connect().await;
    for (request, backend) in [
        ("GET /apis HTTP/1.1\r\n", "a"),
        ("GET /api HTTP/1.1\r\n", "b"),
        ("GET /api/ HTTP/1.1\r\n", "b"),
        ("POST /api HTTP/1.1\r\ncontent-length: 0\r\n", "c"),
        ("GET /api/x HTTP/1.1\r\nX-Env: test\r\n", "d"),
        ("GET /api/x HTTP/1.1\r\nX-Env: tests\r\n", "b"),
        ("GET /re/42?env=test HTTP/1.1\r\n", "d"),
        ("GET /re/42 HTTP/1.1\r\n", "a"),
        ("GET /re/42x?env=test HTTP/1.1\r\n", "a"),
    ] {
        let reply = wire.ask(format!("{request}host: example.org\r\n\r\n")).await;
        assert_eq!(reply.header("x-backend"), Some(backend), "{request}");
    }
}

#[tokio::test]
async fn filters_change_the_request_and_the_response() {
    let backend = Backend::answering(
        |_| "HTTP/1.1 200 OK\r\nx-internal: 1\r\nx-kind: backend\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let modified = "filters: [
        {type: RequestHeaderModifier, requestHeaderModifier:
            {set: [{name: x-set, value: new}], add: [{name: x-add, value: two}], remove: [x-remove]}},
        {type: ResponseHeaderModifier, responseHeaderModifier:
            {set: [{name: x-kind, value: gateway}], add: [{name: x-more, value: 'yes'}], remove: [x-internal]}}],";
    let rewritten = "filters: [{type: URLRewrite, urlRewrite:
        {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}],";
    let replaced =
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /one}}}],";
    let redirected = "filters: [{type: RequestRedirect, requestRedirect:
        {scheme: https, hostname: other.example, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]";
    let world = World::new().service("a", &[&backend]).route(
        "r",
        &[
            rule("/modified", &format!("{modified} {}", to("a"))),
            rule("/rewritten", &format!("{rewritten} {}", to("a"))),
            rule("/replaced", &format!("{replaced} {}", to("a"))),
            rule("/redirected", redirected),
        ],
    );
    let gateway = world.start().await;
    let mut wire = gateway.connect().await;

    let reply = wire
        .ask("GET /modified HTTP/1.1\r\nhost: h\r\nx-set: old\r\nx-set: older\r\nx-add: one\r\nx-remove: 1\r\n\r\n")
        .await;
    assert_eq!((reply.all("x-kind"), reply.header("x-internal")), (vec!["gateway"], None));
    assert_eq!(reply.header("x-more"), Some("yes"));
    let seen = backend.last();
    assert_eq!((seen.all("x-set"), seen.all("x-add")), (vec!["new"], vec!["one", "two"]));
    assert_eq!(seen.header("x-remove"), None);

    wire.get("/rewritten/a%20b?q=1").await;
    let seen = backend.last();
    assert_eq!(seen.start, "GET /new/a%20b?q=1 HTTP/1.1");
    assert_eq!(seen.all("host"), ["inner.example"]);
    assert_eq!(seen.header("x-forwarded-host"), Some("example.org"));

    wire.get("/replaced/by/this?q=1").await;
    assert_eq!(backend.last().start, "GET /one?q=1 HTTP/1.1");

    let known = backend.seen().len();
    let reply = wire.get("/redirected/x?q=1").await;
    assert_eq!(reply.status(), 301);
    assert_eq!(reply.header("location"), Some("https://other.example/new/x?q=1"));
    assert_eq!(backend.seen().len(), known, "a redirect asks no backend");
}

#[tokio::test]
async fn a_target_that_a_rewrite_makes_too_long_is_not_sent_on_as_it_was() {
    let backend = Backend::echo("a").await;
    for path in [
        "{type: ReplacePrefixMatch, replacePrefixMatch: /tenants/acme-production-eu}",
        "{type: ReplaceFullPath, replaceFullPath: /tenants/acme-production-eu/all}",
    ] {
        let rewritten = format!("filters: [{{type: URLRewrite, urlRewrite: {{path: {path}}}}}], {}", to("a"));
        let world = World::new().service("a", &[&backend]).route("r", &[rule("/", &rewritten)]);
        let gateway = world.options(&["--max-request-head-bytes", "131072"]).start().await;
        let reply = gateway.get(&format!("/x?{}", "a".repeat(65_000))).await;
        assert_eq!(reply.status(), 200, "{path}");
        let known = backend.seen().len();
        let reply = gateway.get(&format!("/x?{}", "a".repeat(65_520))).await;
        assert_eq!(reply.status(), 414, "{path}");
        assert_eq!(backend.seen().len(), known, "{path}");
    }
}

#[tokio::test]
async fn a_backend_that_takes_too_long_is_answered_for() {
    let silent = Backend::raw(async |mut wire| {
        let _ = wire.head().await;
        wire.rest().await;
    })
    .await;
    let halting = Backend::raw(async |mut wire| {
        let _ = wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ").await;
        wire.rest().await;
    })
    .await;
    let world = World::new().service("silent", &[&silent]).service("halting", &[&halting]).route(
        "r",
        &[
            rule("/request", &format!("timeouts: {{request: 200ms}}, {}", to("silent"))),
            rule("/backend", &format!("timeouts: {{backendRequest: 200ms}}, {}", to("silent"))),
            rule("/halting", &format!("timeouts: {{request: 1s}}, {}", to("halting"))),
        ],
    );
    let gateway = world.start().await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/request").await.status(), 504);
    assert_eq!(wire.get("/backend").await.status(), 504, "the connection of the client goes on");

    wire.send("GET /halting HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wire.reply_head().await.status(), 200);
    assert!(soon(wire.exactly(10)).await.is_err(), "what is not complete must not look complete");
}

#[tokio::test]
async fn the_host_selects_listener_and_route() {
    let (a, b, c) = (Backend::echo("a").await, Backend::echo("b").await, Backend::echo("c").await);
    let port = Port::reserve();
    let listeners = [
        port.listener("one", "protocol: HTTP, hostname: one.example.org"),
        port.listener("wild", "protocol: HTTP, hostname: '*.example.org'"),
    ];
    let world = World::with_listeners(port, &listeners)
        .service("a", &[&a])
        .service("b", &[&b])
        .service("c", &[&c])
        .route_of("a", "one.example.org", &[rule("/", &to("a"))])
        .route_of("b", "'*.example.org'", &[rule("/", &to("b"))])
        .route_of("c", "deep.two.example.org", &[rule("/only", &to("c"))]);
    let gateway = world.start().await;
    let mut wire = gateway.connect().await;
    for (host, path, backend) in [
        ("one.example.org", "/", Some("a")),
        ("ONE.Example.ORG:8080", "/", Some("a")),
        ("one.example.org.", "/", Some("a")),
        ("two.example.org", "/", Some("b")),
        ("deep.two.example.org", "/only", Some("c")),
        ("deep.two.example.org", "/other", Some("b")),
        ("example.org", "/", None),
        ("elsewhere.net", "/", None),
        ("[::1]:80", "/", None),
    ] {
        let reply = wire.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.header("x-backend"), backend, "{host}{path}");
        assert_eq!(reply.status(), if backend.is_some() { 200 } else { 404 }, "{host}{path}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_dodges_its_route() {
    let (open, guarded) = (Backend::echo("open").await, Backend::echo("guarded").await);
    let world = World::new()
        .service("open", &[&open])
        .service("guarded", &[&guarded])
        .route("r", &[rule("/", &to("open")), rule("/admin", &to("guarded"))]);
    let gateway = world.start().await;
    for (path, seen) in [
        ("/admin", "/admin"),
        ("/open/../admin", "/admin"),
        ("//admin", "/admin"),
        ("/./admin/", "/admin/"),
        ("/open/%2e%2e/admin", "/admin"),
        ("/open/.%2E/admin?next=/../x", "/admin?next=/../x"),
        ("/%61dmin", "/admin"),
        ("/admin%2fx", "/admin%2Fx"),
        ("/admin/%e4%bd%a0", "/admin/%E4%BD%A0"),
        ("http://example.org//admin", "/admin"),
        ("/admin/%0d%0aX:1%7f", "/admin/%0D%0AX:1%7F"),
    ] {
        let backend = if seen.starts_with("/admin%2F") { &open } else { &guarded };
        let known = backend.seen().len();
        let reply = gateway.get(path).await;
        assert_eq!(reply.status(), 200, "{path}");
        assert_eq!(backend.seen().len(), known + 1, "{path} went elsewhere");
        assert_eq!(backend.last().start, format!("GET {seen} HTTP/1.1"), "{path}");
    }
    for path in [
        "/..",
        "/a/../../admin",
        "/a/..%2fadmin",
        "/a/..;/admin",
        "/a/%2e%2e%5cadmin",
        "/a\\..\\admin",
        "/a%",
        "/a%zz",
        "/a%00",
        "admin",
        "/a b",
    ] {
        let mut wire = gateway.connect().await;
        assert_eq!(wire.get(path).await.status(), 400, "{path}");
        assert!(wire.is_closed().await, "{path}");
    }
    assert_eq!(open.seen().len(), 1);
}
