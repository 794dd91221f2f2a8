//! The end of the process.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};

use crate::support::{Backend, Running, Wire, World, chat, eventually, llm, rule, to_ai, unending_provider};

/// A backend that answers when it is told to, and the gateway before it.
struct Scene {
    answer: Arc<Notify>,
    /// Requests whose head the backend has.
    begun: Arc<AtomicUsize>,
    gateway: Running,
}

impl Scene {
    async fn new(options: &[&str]) -> Self {
        let (answer, begun) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let shared = (Arc::clone(&answer), Arc::clone(&begun));
        let backend = Backend::raw(move |mut wire| {
            let (answer, begun) = shared.clone();
            async move {
                while let Ok(mut request) = wire.head().await {
                    begun.fetch_add(1, Relaxed);
                    wire.body_of(&mut request).await.unwrap();
                    answer.notified().await;
                    wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
                }
            }
        })
        .await;
        let world = World::of_backend(&backend);
        Self { answer, begun, gateway: world.options(options).start().await }
    }

    /// A connection whose request the backend has and has not answered.
    async fn ask(&self, request: &str) -> Wire {
        let known = self.begun.load(Relaxed);
        let mut wire = self.gateway.connect().await;
        wire.send(request).await;
        eventually("the backend is asked", async || self.begun.load(Relaxed) > known).await;
        wire
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test]
async fn requests_in_flight_are_finished_and_nothing_new_is_taken() {
    let mut scene = Scene::new(&[]).await;
    let mut idle = scene.ask(GET).await;
    scene.answer.notify_one();
    assert_eq!(idle.reply().await.status(), 200);
    let mut fresh = scene.gateway.connect().await;
    let mut asking = scene.ask(GET).await;
    let mut uploading = scene.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nha").await;

    let begun = Instant::now();
    scene.gateway.signal("TERM");
    assert!(fresh.is_closed().await, "who has never asked is let go");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "not before a first request could have come: {took:?}");
    assert!(idle.is_closed().await, "and so is who asks nothing more");
    let refused = async || TcpStream::connect(scene.gateway.address()).await.is_err();
    eventually("nobody listens", refused).await;
    assert_eq!(scene.gateway.admin("/healthz").await.status(), 200, "it can be watched while it drains");
    assert_eq!(scene.gateway.admin("/readyz").await.text(), "not ready: the process ends\n");

    uploading.send("lf").await;
    for wire in [&mut asking, &mut uploading] {
        scene.answer.notify_one();
        let reply = wire.reply().await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "done"));
        assert!(wire.is_closed().await);
    }
    assert_eq!(scene.gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_request_that_was_on_its_way_to_an_idle_connection_is_answered() {
    while !is_answered_that_was_on_its_way().await {}
}

/// A test that says nothing where the machine takes too long: for the second in which a request may come, or
/// to tell a worker.
async fn is_answered_that_was_on_its_way() -> bool {
    let mut scene = Scene::new(&[]).await;
    let mut idle = scene.ask(GET).await;
    scene.answer.notify_one();
    assert_eq!(idle.reply().await.status(), 200);
    let mut asking = scene.ask(GET).await;
    let begun = Instant::now();
    scene.gateway.signal("TERM");
    scene.gateway.log.more("\"draining\"", 0).await;
    let known = scene.begun.load(Relaxed);
    idle.send(GET).await;
    if begun.elapsed() > Duration::from_millis(900) {
        return false;
    }
    eventually("the backend is asked", async || scene.begun.load(Relaxed) > known).await;
    for wire in [&mut asking, &mut idle] {
        scene.answer.notify_one();
        let reply = wire.reply().await;
        assert_eq!(reply.status(), 200);
        if reply.header("connection") != Some("close") {
            // Its worker has not heard of the drain yet.
            return false;
        }
        assert!(wire.is_closed().await);
    }
    assert_eq!(scene.gateway.exit().await.code(), Some(0));
    true
}

#[tokio::test]
async fn a_request_that_hangs_is_cut_when_the_time_is_over() {
    let mut scene = Scene::new(&["--drain-timeout", "1s"]).await;
    let mut hanging = scene.ask(GET).await;
    let mut watching = Wire::connect(scene.gateway.admin_address().await).await;
    watching.send("GET /metrics HTTP/1.1\r\nHost: h\r\n").await;
    let begun = Instant::now();
    scene.gateway.signal("TERM");
    assert!(hanging.is_closed().await);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?} is too early");
    let exit = timeout(Duration::from_secs(20), scene.gateway.exit()).await.expect("it ends in time");
    assert_eq!(exit.code(), Some(0));
}

#[tokio::test]
async fn what_is_cut_is_told_from_what_ends_and_from_who_leaves() {
    let backend = Backend::raw(async |mut wire| {
        let Ok(request) = wire.message().await else { return };
        if request.start.contains("/stream") {
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let world = World::of_backend(&backend);
    let mut gateway = world.options(&["--drain-timeout", "100ms", "--access-log", "json"]).start().await;
    let mut streaming = gateway.connect().await;
    streaming.send("GET /stream HTTP/1.0\r\n\r\n").await;
    assert_eq!(streaming.reply_head().await.status(), 200);
    let mut waiting = gateway.connect().await;
    waiting.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").await;
    eventually("the backend is asked", async || backend.connections() == 2).await;
    gateway.signal("TERM");
    assert_eq!(streaming.end().await, Some(ErrorKind::ConnectionReset));
    assert!(gateway.exit().await.success());
    for (path, status, error) in [
        ("/stream", json!(200), "the process ended before all was sent"),
        ("/wait", Value::Null, "the process ended before there was a response"),
    ] {
        let line = gateway.output.all().into_iter().find(|line| line.contains(path)).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["status"], &line["error"]), (&status, &error.into()));
    }
}

#[tokio::test]
async fn a_stream_of_a_model_that_is_cut_ends_with_an_error_of_its_dialect() {
    let provider = unending_provider().await;
    let mut gateway = llm(&provider, "").options(&["--drain-timeout", "100ms"]).start().await;
    let openai = chat("h", true);
    let anthropic = openai.replace("/v1/chat/completions", "/v1/messages");
    let mut streams = Vec::new();
    for request in [&openai, &anthropic] {
        let mut wire = gateway.connect().await;
        wire.send(request).await;
        let head = wire.reply_head().await;
        assert_eq!(head.status(), 200);
        streams.push((wire, head));
    }
    gateway.signal("TERM");
    for ((mut wire, mut reply), error) in
        streams.into_iter().zip(["data: {\"error\":", "event: error\ndata: "])
    {
        wire.body_of(&mut reply).await.expect("it ends as a stream does");
        let text = reply.text();
        assert!(text.contains("Hel") && text.contains(error) && text.contains("broke off"), "{text}");
    }
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn what_is_cut_is_asked_of_no_other_model() {
    let asked = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&asked);
    let provider = Backend::raw(move |mut wire| {
        let asked = Arc::clone(&shared);
        async move {
            let Ok(_) = wire.message().await else { return };
            asked.fetch_add(1, Relaxed);
            wire.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
                .await;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let service = |name: &str| {
        let endpoint = format!("http://{}/v1", provider.address);
        format!(
            "apiVersion: gateway.nantian.dev/v1alpha1\nkind: AIService\nmetadata: {{name: {name}, namespace: demo}}\n\
             spec: {{provider: openai, model: m, endpoint: \"{endpoint}\", auth: {{type: none}}, retry: {{maxRetries: 2}}}}\n"
        )
    };
    let services = [service("one"), service("two")].join("---\n");
    let both = to_ai("one}, {group: gateway.nantian.dev, kind: AIService, name: two");
    let world = World::new().manifest("llm", &services).route("llm", &[rule("/", &both)]);
    let mut gateway = world.options(&["--drain-timeout", "1s"]).start().await;
    let mut wire = gateway.connect().await;
    wire.send(chat("h", false).replace("/v1/chat/completions", "/v1/messages")).await;
    eventually("a provider is asked", async || asked.load(Relaxed) > 0).await;
    gateway.signal("TERM");
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 503);
    assert!(reply.text().contains("the proxy ends"), "{}", reply.text());
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert_eq!(asked.load(Relaxed), 1);
}

#[tokio::test]
async fn a_second_signal_ends_what_waits_for_the_first() {
    let mut scene = Scene::new(&["--drain-timeout", "1h"]).await;
    let _waiting = scene.ask(GET).await;
    scene.gateway.signal("TERM");
    eventually("it drains", async || scene.gateway.log.text().contains("draining")).await;
    scene.gateway.signal("INT");
    assert!(!scene.gateway.exit().await.success());
    assert!(scene.gateway.log.text().contains("second signal"));
}
