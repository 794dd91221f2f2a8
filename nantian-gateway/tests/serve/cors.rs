//! Cross-origin requests, as browsers send them.

use crate::support::{Backend, Message, Running, World, rule, to};

/// A rule with these fields of a CORS filter, and its backend.
fn cors(path: &str, fields: &str) -> String {
    rule(path, &format!("filters: [{{type: CORS, cors: {{{fields}}}}}], {}", to("a")))
}

async fn gateway() -> (Backend, Running) {
    let backend = Backend::answering(|_| {
        "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\n\
         vary: accept\r\ncontent-length: 2\r\n\r\nok"
    })
    .await;
    let listed = "allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], allowMethods: [GET, OPTIONS], \
                  allowHeaders: [x-header-1, x-header-2], exposeHeaders: [x-header-3, x-header-4], \
                  allowCredentials: true, maxAge: 3600";
    let any = "allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*'], exposeHeaders: ['*']";
    let rules = [
        cors("/listed", listed),
        cors("/any", any),
        cors("/any-with-credentials", &format!("{any}, allowCredentials: true")),
        cors("/origin", "allowOrigins: ['https://www.foo.com']"),
        rule("/nowhere", "filters: [{type: CORS, cors: {allowOrigins: ['*']}}], backendRefs: []"),
        rule("/plain", &to("a")),
    ];
    let world = World::new().service("a", &[&backend]).route("r", &rules);
    (backend, world.start().await)
}

async fn preflight(gateway: &Running, path: &str, origin: &str, headers: &str) -> Message {
    gateway
        .ask(format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n{headers}\r\n"
        ))
        .await
}

async fn get(gateway: &Running, path: &str, origin: &str) -> Message {
    gateway.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\n\r\n")).await
}

/// The CORS headers of a response, without the beginning that all of them have.
fn answer(reply: &Message) -> Vec<(&str, &str)> {
    let mut headers: Vec<_> = reply
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("access-control-")?, value.as_str())))
        .collect();
    headers.sort_unstable();
    headers
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_gateway() {
    let (backend, gateway) = gateway().await;
    let asked = "Access-Control-Request-Headers: x-header-1, x-other\r\n";
    for origin in ["https://www.foo.com", "https://a.b.bar.com"] {
        let reply = preflight(&gateway, "/listed", origin, asked).await;
        assert_eq!((reply.status(), reply.body.len()), (200, 0));
        let expected = [
            ("allow-credentials", "true"),
            ("allow-headers", "x-header-1, x-header-2"),
            ("allow-methods", "GET, OPTIONS"),
            ("allow-origin", origin),
            ("expose-headers", "x-header-3, x-header-4"),
            ("max-age", "3600"),
        ];
        assert_eq!(answer(&reply), expected);
        let varies = "origin, access-control-request-method, access-control-request-headers";
        assert_eq!(reply.header("vary"), Some(varies));
    }
    for origin in ["https://foo.com", "http://www.foo.com", "https://www.foo.com.evil.org", "null"] {
        let reply = preflight(&gateway, "/listed", origin, asked).await;
        assert_eq!((reply.status(), answer(&reply)), (403, vec![]), "{origin}");
    }
    let reply = preflight(&gateway, "/origin", "https://www.foo.com", asked).await;
    assert_eq!(answer(&reply), [("allow-origin", "https://www.foo.com"), ("max-age", "5")]);
    assert!(backend.seen().is_empty(), "no preflight reaches the backend");
}

#[tokio::test]
async fn a_wildcard_allows_what_is_asked_for() {
    let (_, gateway) = gateway().await;
    let asked = "Access-Control-Request-Headers: x-1, x-2\r\n";
    let reply = preflight(&gateway, "/any", "https://a.org:1234", asked).await;
    let expected = [
        ("allow-headers", "x-1, x-2"),
        ("allow-methods", "PUT"),
        ("allow-origin", "https://a.org:1234"),
        ("expose-headers", "*"),
        ("max-age", "5"),
    ];
    assert_eq!(answer(&reply), expected);
    let reply = preflight(&gateway, "/any-with-credentials", "https://a.org", "").await;
    let expected = [
        ("allow-credentials", "true"),
        ("allow-methods", "PUT"),
        ("allow-origin", "https://a.org"),
        ("max-age", "5"),
    ];
    assert_eq!(answer(&reply), expected, "a wildcard means nothing beside credentials");
}

#[tokio::test]
async fn a_response_tells_who_may_read_it_whatever_the_backend_says() {
    let (_, gateway) = gateway().await;
    let reply = get(&gateway, "/listed", "https://x.bar.com").await;
    let expected = [
        ("allow-credentials", "true"),
        ("allow-origin", "https://x.bar.com"),
        ("expose-headers", "x-header-3, x-header-4"),
    ];
    assert_eq!((reply.status(), answer(&reply)), (200, expected.to_vec()));
    assert_eq!(reply.all("vary"), ["accept", "origin"]);

    let reply = get(&gateway, "/listed", "https://foo.com").await;
    assert_eq!((reply.status(), reply.text().as_str(), answer(&reply)), (200, "ok", vec![]));
    let reply = gateway.get("/listed").await;
    assert_eq!((reply.status(), answer(&reply), reply.all("vary")), (200, vec![], vec!["accept", "origin"]));

    let reply = get(&gateway, "/nowhere", "https://a.org").await;
    assert_eq!(
        (reply.status(), answer(&reply)),
        (500, vec![("allow-origin", "https://a.org")]),
        "errors too"
    );
    let reply = get(&gateway, "/plain", "https://a.org").await;
    assert_eq!(answer(&reply), [("allow-credentials", "true"), ("allow-origin", "*")]);
}

#[tokio::test]
async fn options_that_are_no_preflight_reach_the_backend() {
    let (backend, gateway) = gateway().await;
    for headers in ["", "Origin: https://www.foo.com\r\n", "Access-Control-Request-Method: PUT\r\n"] {
        let reply = gateway.ask(format!("OPTIONS /listed HTTP/1.1\r\nHost: h\r\n{headers}\r\n")).await;
        assert_eq!(reply.text(), "ok", "{headers}");
    }
    assert_eq!(backend.seen().len(), 3);
}

#[tokio::test]
async fn the_preflight_of_a_method_is_answered_by_the_rule_of_the_method() {
    let backend = Backend::echo("a").await;
    let of_method = |method: &str, filters: &str| {
        let path = "path: {type: PathPrefix, value: /api}";
        format!("{{matches: [{{{path}, method: {method}}}], {filters} {}}}", to("a"))
    };
    let cors = "filters: [{type: CORS, cors: {allowOrigins: ['https://a.org'], allowMethods: [PUT]}}],";
    let rules = [of_method("GET", ""), of_method("PUT", cors), rule("/", &to("a"))];
    let gateway = World::new().service("a", &[&backend]).route("r", &rules).start().await;
    let reply = preflight(&gateway, "/api", "https://a.org", "").await;
    let expected = [("allow-methods", "PUT"), ("allow-origin", "https://a.org"), ("max-age", "5")];
    assert_eq!((reply.status(), answer(&reply)), (200, expected.to_vec()));
    let plain = "OPTIONS /api HTTP/1.1\r\nHost: h\r\nOrigin: https://a.org\r\n";
    for no_preflight in ["", "Access-Control-Request-Method: GET\r\n"] {
        let reply = gateway.ask(format!("{plain}{no_preflight}\r\n")).await;
        assert_eq!(reply.header("x-backend"), Some("a"), "{no_preflight}");
    }

    // Whoever answers them on his own does so still.
    gateway.edit_route("r", &[of_method("PUT", cors), of_method("OPTIONS", "")]).await;
    let reply = preflight(&gateway, "/api", "https://a.org", "").await;
    assert_eq!(reply.header("x-backend"), Some("a"));
}
