//! Copies of requests.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Backend, Message, World, after, eventually, post, rule, to};

/// A filter that mirrors to a Service; `share` is further fields.
fn mirror(service: &str, share: &str) -> String {
    format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: {service}, port: 80}}, {share}}}}}")
}

/// The only request that a backend has seen.
async fn only(backend: &Backend) -> Message {
    eventually("there is a copy", async || !backend.seen().is_empty()).await;
    let seen = backend.seen();
    assert_eq!(seen.len(), 1);
    seen[0].clone()
}

#[tokio::test]
async fn every_mirror_gets_what_the_backend_gets() {
    let [backend, first, second, third] = [
        Backend::echo("a").await,
        Backend::echo("first").await,
        Backend::echo("second").await,
        Backend::echo("third").await,
    ];
    let modify = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: one}]}}";
    let own = mirror("third", "");
    let filters = [modify.to_owned(), mirror("first", ""), mirror("second", "")].join(", ");
    let rule =
        rule("/", &format!("filters: [{filters}], backendRefs: [{{name: a, port: 80, filters: [{own}]}}]"));
    let world = World::new().service("a", &[&backend]).route("r", &[rule]);
    let world = world.service("first", &[&first]).service("second", &[&second]).service("third", &[&third]);
    let gateway = world.start().await;
    let reply = gateway.ask(post("/x?y=z", "content")).await;
    assert_eq!((reply.text().as_str(), reply.header("x-backend")), ("content", Some("a")));
    let original = backend.last();
    assert_eq!(original.header("x-set"), Some("one"));
    for mirror in [&first, &second, &third] {
        let copy = only(mirror).await;
        assert_eq!(copy, original);
    }
    let answered = "nantian_http_mirrored_requests_total{route=\"demo/r\",result=\"answered\"}";
    eventually("all are answered", async || gateway.metric(answered).await == Some(3.0)).await;
}

#[tokio::test]
async fn a_mirror_gets_the_trailers_too() {
    let (backend, mirrored) = (Backend::echo("a").await, Backend::echo("m").await);
    let rule = rule("/", &format!("filters: [{}], {}", mirror("m", ""), to("a")));
    let gateway =
        World::new().service("a", &[&backend]).service("m", &[&mirrored]).route("r", &[rule]).start().await;
    let upload = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                  3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
    assert_eq!(gateway.ask(upload).await.text(), "abc");
    let copy = only(&mirrored).await;
    assert_eq!(copy.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    assert_eq!(copy, backend.last());
}

#[tokio::test]
async fn a_mirror_gets_its_share() {
    let (backend, some, none) =
        (Backend::echo("a").await, Backend::echo("s").await, Backend::echo("n").await);
    let filters = [
        mirror("some", "percent: 20"),
        mirror("some", "fraction: {numerator: 1, denominator: 20}"),
        mirror("none", "percent: 0"),
    ];
    let rule = rule("/", &format!("filters: [{}], {}", filters.join(", "), to("a")));
    let world = World::new().service("a", &[&backend]).service("some", &[&some]).service("none", &[&none]);
    let gateway = world.route("r", &[rule]).start().await;
    let mut wire = gateway.connect().await;
    for _ in 0..1000 {
        assert_eq!(wire.get("/").await.status(), 200);
    }
    let answered = "nantian_http_mirrored_requests_total{route=\"demo/r\",result=\"answered\"}";
    let quarter =
        async || gateway.metric(answered).await.is_some_and(|count| (180.0..=320.0).contains(&count));
    eventually("a quarter of 1000 is answered", quarter).await;
    let arrived = async || Some(f64::from(u32::try_from(some.seen().len()).unwrap()));
    eventually("all copies arrive", async || arrived().await == gateway.metric(answered).await).await;
    assert!(quarter().await);
    assert!(none.seen().is_empty());
}

#[tokio::test]
async fn a_mirror_that_hangs_or_is_gone_changes_nothing() {
    let backend = Backend::echo("a").await;
    let hanging = Backend::raw(async |mut wire| drop(wire.rest().await)).await;
    let filters = [mirror("hanging", ""), mirror("empty", ""), mirror("nobody", "")].join(", ");
    let rule = rule("/", &format!("filters: [{filters}], {}", to("a")));
    let world = World::new().service("a", &[&backend]).service("hanging", &[&hanging]).service("empty", &[]);
    let gateway = world.route("r", &[rule]).start().await;
    let mut wire = gateway.connect().await;
    let begun = Instant::now();
    for _ in 0..400 {
        assert_eq!(wire.ask(post("/", "content")).await.text(), "content");
    }
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let left_out = "nantian_http_mirrored_requests_total{route=\"demo/r\",result=\"left_out\"}";
    assert_eq!(gateway.metric(left_out).await, Some(400.0 - 128.0), "their number is bounded");
    let result =
        |result| format!("nantian_http_mirrored_requests_total{{route=\"demo/r\",result=\"{result}\"}}");
    eventually("each fails at once", async || gateway.metric(&result("failed")).await == Some(400.0)).await;
    assert_eq!(gateway.metric(&result("answered")).await, Some(0.0));
    let condition = gateway.condition("HTTPRoute demo/r", "ResolvedRefs").await;
    assert_eq!((&condition["status"], &condition["reason"]), (&"False".into(), &"BackendNotFound".into()));
}

#[tokio::test]
async fn why_a_mirror_has_failed_is_logged() {
    let backend = Backend::echo("a").await;
    let closing = Backend::raw(async |wire| drop(wire)).await;
    for (mirrored, why) in [("closing", "the exchange with"), ("empty", "no endpoint")] {
        let rule = rule("/", &format!("filters: [{}], {}", mirror(mirrored, ""), to("a")));
        let world = World::new().service("a", &[&backend]).service("closing", &[&closing]);
        let world = world.service("empty", &[]).route("r", &[rule]);
        let gateway = world.options(&["--log-level", "info,nantian_gateway::filter=debug"]).start().await;
        assert_eq!(gateway.get("/").await.status(), 200);
        let line = gateway.log.more("a mirrored request failed", 0).await;
        assert!(line.contains(why), "{mirrored}: {line}");
    }
}

#[tokio::test]
async fn what_is_long_or_breaks_off_or_is_refused_is_not_mirrored() {
    let (backend, mirrored) = (Backend::echo("a").await, Backend::echo("m").await);
    let rule = rule("/", &format!("filters: [{}], {}", mirror("m", ""), to("a")));
    let gateway =
        World::new().service("a", &[&backend]).service("m", &[&mirrored]).route("r", &[rule]).start().await;
    let long = "x".repeat(1_100_000);
    assert_eq!(gateway.ask(post("/long", &long)).await.body.len(), long.len());
    let mut broken = gateway.connect().await;
    broken.send("POST /broken HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf").await;
    drop(broken);
    after(Duration::from_millis(200)).await;
    assert_eq!(gateway.ask(post("/short", "content")).await.text(), "content");
    assert!(only(&mirrored).await.start.starts_with("POST /short "));
}

#[tokio::test]
async fn a_mirror_that_leads_back_ends() {
    let backend = Backend::echo("a").await;
    let rule = rule("/", &format!("filters: [{}], {}", mirror("here", ""), to("a")));
    let world = World::new().service("a", &[&backend]).service("here", &[]).route("r", &[rule]);
    let gateway = world.start().await;
    gateway.edit_service("here", &[&Backend::at(gateway.address())]).await;
    for round in 1..=2 {
        assert_eq!(gateway.get("/").await.status(), 200);
        eventually("each copy that may come by has", async || backend.seen().len() == 3 * round).await;
    }
}
