//! Calls of gRPC, as their client sees them on the wire.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest};

use crate::support::{
    Backend, Port, Running, World, after,
    http2::{Body, client},
    lb_policy,
    limits::limits,
    rule, soon, to,
};

/// Echoes each message and says in its trailers that all went well.
async fn server(name: &'static str) -> Backend {
    Backend::h2c(move |request: Request<Incoming>| async move {
        let path = request.uri().path().to_owned();
        let plugged = request.headers().get("x-wasm-plugin").cloned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let trailers =
            HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        let frames = [Frame::data(body), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
        let mut response =
            Response::builder().header("content-type", "application/grpc").header("x-server", name);
        if let Some(plugged) = plugged {
            response = response.header("x-plugged", plugged);
        }
        response.header("x-path", path).body(StreamBody::new(stream::iter(frames))).unwrap()
    })
    .await
}

/// A GRPCRoute for a host.
fn route(name: &str, host: &str, rules: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: {name}, namespace: demo}}
spec: {{parentRefs: [{{name: demo}}], hostnames: [{host}], rules: [{rules}]}}
"
    )
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The status of a response without content.
    fn code(&self) -> &str {
        assert_eq!((self.status, self.body.len()), (StatusCode::OK, 0));
        assert_eq!(self.header("content-type"), "application/grpc");
        assert_ne!(self.header("grpc-message"), "");
        self.header("grpc-status")
    }
}

async fn call(client: &SendRequest<Body>, url: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::post(format!("http://{url}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::from("message").boxed()).unwrap();
    let response = soon(client.clone().send_request(request)).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers }
}

#[tokio::test]
async fn an_endpoint_that_answers_unavailable_is_left_out() {
    let well = server("well").await;
    let broken = Backend::h2c(|_: Request<Incoming>| async {
        let response =
            Response::builder().header("content-type", "application/grpc").header("grpc-status", "14");
        response.body(Empty::new()).unwrap()
    })
    .await;
    let route = route("r", "example.org", "{backendRefs: [{name: a, port: 80}]}");
    let gateway = World::new().service("a", &[&well, &broken]).manifest("route", &route).start().await;
    let client = client(&gateway).await;
    let mut failed = 0;
    for _ in 0..40 {
        let answer = call(&client, "example.org/pkg.Echo/Say", &[]).await;
        failed += usize::from(answer.header("grpc-status") == "14");
    }
    assert_eq!(failed, 5);
}

#[tokio::test]
async fn calls_are_routed_by_method_and_header_and_keep_their_trailers() {
    let (first, second) = (server("first").await, server("second").await);
    let rules = "{matches: [{method: {service: pkg.Echo, method: Say}}], backendRefs: [{name: first, port: 80}]}, \
                 {matches: [{method: {service: pkg.Echo}, headers: [{name: version, value: two}]}], \
                  backendRefs: [{name: second, port: 80}]}, \
                 {matches: [{method: {type: RegularExpression, service: 'pkg\\.[A-Z]+', method: 'Get|Set'}}], \
                  backendRefs: [{name: second, port: 80}]}";
    // Nothing says that these Services speak HTTP/2: that they are called does.
    let world = World::new().service("first", &[&first]).service("second", &[&second]);
    let gateway = world.manifest("route", &route("r", "example.org", rules)).start().await;
    let client = client(&gateway).await;
    for (path, headers, server) in [
        ("/pkg.Echo/Say", &[][..], "first"),
        ("/pkg.Echo/Other", &[("version", "two")], "second"),
        ("/pkg.ABC/Set", &[], "second"),
    ] {
        let answer = call(&client, &format!("example.org{path}"), headers).await;
        assert_eq!((answer.status, answer.header("x-server")), (StatusCode::OK, server), "{path}");
        assert_eq!((answer.header("x-path"), &*answer.body), (path, &b"message"[..]));
        assert_eq!(answer.trailers["grpc-status"], "0");
    }
    for url in ["example.org/pkg.Echo/Other", "example.org/pkg.Abc/Set", "other.org/pkg.Echo/Say"] {
        assert_eq!(call(&client, url, &[]).await.code(), "12", "UNIMPLEMENTED: {url}");
    }
    assert_eq!(first.connections() + second.connections(), 2);
}

#[tokio::test]
async fn a_call_may_say_more_in_its_life_than_a_request_may_hold() {
    let server = server("a").await;
    let world = World::new().h2c_service("a", &server).route_of("web", "web.org", &[rule("/", &to("a"))]);
    let world = world.manifest("route", &route("r", "example.org", &format!("{{{}}}", to("a"))));
    let gateway = world.options(&["--max-request-body-bytes", "65536"]).start().await;
    let client = client(&gateway).await;
    for (host, status) in [("example.org", 200), ("web.org", 413)] {
        let messages = stream::iter((0..256).map(|_| Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))));
        let kind = if status == 200 { "application/grpc" } else { "text/plain" };
        let request = Request::post(format!("http://{host}/s/M")).header("content-type", kind);
        let request = request.body(BodyExt::boxed(StreamBody::new(messages))).unwrap();
        let response = soon(client.clone().send_request(request)).await.unwrap();
        assert_eq!(response.status(), status, "{host}");
        let length = soon(response.into_body().collect()).await.unwrap().to_bytes().len();
        assert_eq!(length == 256 * 1024, status == 200, "{host}");
    }
}

#[tokio::test]
async fn what_goes_wrong_is_told_in_grpc() {
    let server = server("a").await;
    let gone = Port::reserve();
    let gone = Backend::at(gone.address());
    let slow = Backend::h2c(async |_| {
        after(Duration::from_secs(60)).await;
        Response::new(Full::<Bytes>::default())
    })
    .await;
    let failing = Backend::h2c(async |_| {
        let response =
            Response::builder().header("content-type", "application/grpc").header("grpc-status", "5");
        response.body(Full::<Bytes>::default()).unwrap()
    })
    .await;
    let to_method = |method: &str, service: &str| {
        format!("{{matches: [{{method: {{service: s, method: {method}}}}}], {}}}", to(service))
    };
    let rules = [("Empty", "empty"), ("Nobody", "nobody"), ("Gone", "gone"), ("Fails", "failing")];
    let rules = rules.map(|(method, service)| to_method(method, service)).join(", ");
    let limited = format!("{{name: limited, {}}}", to("a"));
    let policy = "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {name: one, namespace: demo}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: limited, sectionName: limited}]
  requestsPerMinute: 1
";
    let waits = format!("{{matches: [{{method: {{service: w}}}}], {}}}", to("slow"));
    let late = rule("/", &format!("{}, timeouts: {{request: 200ms}}", to("slow")));
    let world = World::new().service("a", &[&server]).service("empty", &[]).service("gone", &[&gone]);
    let world = world.h2c_service("slow", &slow).service("failing", &[&failing]);
    let world = world
        .manifest("route", &route("r", "example.org", &rules))
        .manifest("limited", &route("limited", "limited.org", &limited))
        .manifest("waits", &route("waits", "waits.org", &waits))
        .manifest("policy", policy)
        .route_of("late", "late.org", &[late]);
    let gateway = world.start().await;
    let client = client(&gateway).await;
    for (url, code) in [
        ("example.org/s/Empty", "14"),
        ("example.org/s/Nobody", "14"),
        ("example.org/s/Gone", "14"),
        ("example.org/s/Unknown", "12"),
        ("late.org/s/Slow", "4"),
        ("example.org/s/..%2fx", "13"),
    ] {
        assert_eq!(call(&client, url, &[]).await.code(), code, "{url}");
    }
    let answer = call(&client, "waits.org/w/Slow", &[("grpc-timeout", "200m")]).await;
    assert_eq!(answer.code(), "4", "the client's own deadline");
    let answer = call(&client, "example.org/s/Fails", &[]).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (StatusCode::OK, "5"), "as the server says it");
    assert_eq!(call(&client, "limited.org/s/Any", &[]).await.body, "message");
    let refused = call(&client, "limited.org/s/Any", &[]).await;
    assert_eq!(refused.code(), "8");
    assert_ne!(refused.header("retry-after"), "");
    let counted = "nantian_http_requests_total{route=\"GRPCRoute/demo/r\",code_class=\"5xx\"}";
    assert_eq!(gateway.metric(counted).await, Some(3.0), "metrics tell what went wrong");

    let web = Request::post("http://example.org/s/Empty").header("content-type", "application/grpc-web");
    let web = client.clone().send_request(web.body(Full::default().boxed()).unwrap());
    assert_eq!(soon(web).await.unwrap().status(), 503, "gRPC-Web is HTTP like any other");
}

#[tokio::test]
async fn limits_of_calls_are_told_in_grpc() {
    let server = server("a").await;
    for (target, other) in
        [("kind: GRPCRoute, name: r", "8"), ("kind: GRPCRoute, name: r, sectionName: said", "0")]
    {
        let rules = "{name: said, matches: [{method: {service: pkg.Echo, method: Say}}], \
                      backendRefs: [{name: a, port: 80}]}, \
                     {matches: [{method: {service: pkg.Echo}}], backendRefs: [{name: a, port: 80}]}";
        let gateway = World::new()
            .service("a", &[&server])
            .manifest("route", &route("r", "example.org", rules))
            .manifest("limits", &limits("limits", target, "requestsPerMinute: 2"))
            .start()
            .await;
        let client = client(&gateway).await;
        for _ in 0..2 {
            let answer = call(&client, "example.org/pkg.Echo/Say", &[]).await;
            assert_eq!(
                (&*answer.body, &answer.trailers["grpc-status"]),
                (&b"message"[..], &"0".parse().unwrap())
            );
        }
        let refused = call(&client, "example.org/pkg.Echo/Say", &[]).await;
        assert_eq!(refused.code(), "8", "RESOURCE_EXHAUSTED: {target}");
        let wait: u64 = refused.header("grpc-retry-pushback-ms").parse().unwrap();
        assert!((1..=30_000).contains(&wait), "{target}: {wait}");
        let answer = call(&client, "example.org/pkg.Echo/Other", &[]).await;
        let status = answer.headers.get("grpc-status").or(answer.trailers.get("grpc-status"));
        assert_eq!(status.unwrap(), other, "{target}");
        let accepted = gateway.condition("TokenPolicy demo/limits", "Accepted").await;
        assert_eq!(accepted["status"], "True", "{target}");
    }
}

#[tokio::test]
async fn plugins_balancing_and_sessions_hold_for_calls() {
    let (first, second) = (server("first").await, server("second").await);
    let rules = "{sessionPersistence: {sessionName: X-Stay, type: Header}, \
                  matches: [{method: {service: pkg.Stay}}], backendRefs: [{name: a, port: 80}]}, \
                 {matches: [{method: {service: pkg.Echo}}], backendRefs: [{name: a, port: 80}]}";
    let guest = concat!(env!("CARGO_MANIFEST_DIR"), "/../nantian-wasm/tests/guests/add_header.wat");
    let module = BASE64_STANDARD.encode(wat::parse_file(guest).unwrap());
    let plugin = format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: WasmPlugin
metadata: {{name: p, namespace: demo}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: GRPCRoute, name: r}}]
  wasm: {{inline: {module}}}
"
    );
    let by_user = "loadBalancing: {consistentHash: {keyType: Header, headerName: x-user}}";
    let gateway = World::new()
        .service("a", &[&first, &second])
        .manifest("route", &route("r", "example.org", rules))
        .manifest("plugin", &plugin)
        .manifest("policy", &lb_policy("a", by_user))
        .start()
        .await;
    let client = client(&gateway).await;
    let users: Vec<_> = (0..16).map(|number| number.to_string()).collect();
    let mut homes = BTreeSet::new();
    for user in &users {
        let asked = async || call(&client, "example.org/pkg.Echo/Say", &[("x-user", user)]).await;
        let home = asked().await.header("x-server").to_owned();
        assert_eq!(asked().await.header("x-server"), home, "one user stays at one endpoint");
        homes.insert(home);
    }
    assert_eq!(homes.len(), 2, "users are spread");
    let begun = call(&client, "example.org/pkg.Stay/Say", &[("x-user", &users[0])]).await;
    assert_eq!(begun.trailers["grpc-status"], "0");
    for user in &users {
        let headers = [("x-user", user.as_str()), ("x-stay", begun.header("x-stay"))];
        let answer = call(&client, "example.org/pkg.Stay/Say", &headers).await;
        assert_eq!(answer.header("x-server"), begun.header("x-server"), "a session comes before a hash");
        assert_eq!(answer.header("x-plugged"), "demo/p", "the backend saw what the plugin added");
    }
}

#[tokio::test]
async fn a_method_without_its_service_comes_after_a_service_and_before_any_call() {
    let servers = [server("service").await, server("method").await, server("any").await];
    let to_match = |found: &str, name: &str| format!("{{matches: [{found}], {}}}", to(name));
    let rules = [
        to_match("{}", "any"),
        to_match("{headers: [{name: version, value: one}]}", "any"),
        to_match("{method: {method: Say}}", "method"),
        to_match("{method: {service: pkg.Echo}}", "service"),
    ];
    let world = ["service", "method", "any"]
        .into_iter()
        .zip(&servers)
        .fold(World::new(), |world, (name, server)| world.h2c_service(name, server));
    let gateway = world.manifest("route", &route("r", "example.org", &rules.join(", "))).start().await;
    let client = client(&gateway).await;
    let one = Some(("version", "one"));
    for (path, header, expected) in [
        ("pkg.Echo/Say", None, "service"),
        ("pkg.Other/Say", None, "method"),
        ("pkg.Other/Say", one, "method"),
        ("pkg.Other/SayMore", None, "any"),
        ("pkg.Other/Say/More", None, "any"),
    ] {
        let answer = call(&client, &format!("example.org/{path}"), header.as_slice()).await;
        assert_eq!(answer.header("x-server"), expected, "{path}");
    }
}

#[tokio::test]
async fn who_calls_what_takes_no_calls_ejects_nobody() {
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    let gateway = World::new().service("a", &[&a, &b]).route("r", &[rule("/", &to("a"))]).start().await;
    let client = client(&gateway).await;
    // Some wait for the connections that others open.
    for together in [1, 20] {
        for _ in 0..12 {
            let calls = (0..together).map(|_| call(&client, "example.org/a.B/C", &[]));
            for answer in soon(join_all(calls)).await {
                assert_eq!(answer.code(), "14");
            }
        }
    }
    for backend in [a, b] {
        assert_eq!(ejections(&gateway, &backend).await, 0.0);
    }
}

#[tokio::test]
async fn who_asks_what_takes_calls_for_something_else_ejects_nobody() {
    let (a, b) = (server("a").await, server("b").await);
    let rules = format!("{{{}}}", to("a"));
    let world = World::new().service("a", &[&a, &b]);
    let gateway = world.manifest("route", &route("r", "example.org", &rules)).start().await;
    for _ in 0..12 {
        let post = "POST /a.B/C HTTP/1.1\r\nHost: example.org\r\nContent-Length: 1\r\n\r\n1";
        let reply = soon(gateway.ask(post)).await;
        assert_eq!((reply.status(), reply.text()), (200, "1".to_owned()), "the backend answers as it likes");
        let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
        let upgrade = format!("GET /a.B/C HTTP/1.1\r\nHost: example.org\r\n{upgrade}\r\n");
        assert_eq!(soon(gateway.ask(upgrade)).await.status(), 502);
    }
    for backend in [a, b] {
        assert_eq!(ejections(&gateway, &backend).await, 0.0);
    }
}

/// How often an endpoint of the Service `a` was ejected.
async fn ejections(gateway: &Running, backend: &Backend) -> f64 {
    let labels = format!("backend=\"demo/a:80\",endpoint=\"{}\"", backend.address);
    gateway.metric(&format!("nantian_endpoint_ejections_total{{{labels}}}")).await.unwrap()
}
