//! A guest that loops is ended within its limit, wherever it loops, and its slices leave room for others.
//! Time is the engine's clock, and each round of the loop takes a millisecond of it: what is measured here is
//! the same on any machine.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;
use nantian_wasm::{Engine, Plugin, WasmLayer, body::RequestBody};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::abuse::{CALL_NOW, module, on, returning, started, trailers};
use crate::support::{Frames, data, frames, get, guest, plugin_of, send, ticks_with_logs};

/// Milliseconds that a callback may run.
const LIMIT: u64 = 20;
/// How much more until it is over.
const GRACE: u64 = 10;
/// Longest time without a pause: two beats of a first slice, and another one where a step of the stream
/// follows at once.
const SLICE: u64 = 3;

/// A guest that counts and logs for ever in this callback, and has these parts besides.
fn spinning(name: &str, parts: &str) -> String {
    let spin = "(loop $for_ever (drop (call $record (i32.const 4) (i64.const 1)))
        (drop (call $log (i32.const 2) (i32.const 100) (i32.const 3))) (br $for_ever))";
    let spin = match name {
        // That of a stream, not of the root.
        "proxy_on_context_create" => format!("(if (local.get 1) (then {spin}))"),
        _ => spin.to_owned(),
    };
    let define = "(drop (call $define (i32.const 0) (i32.const 220) (i32.const 3) (i32.const 0)))
        (drop (call $tick (i32.const 10)))";
    module(&format!(
        "{} {parts} {}",
        on(name, &spin),
        returning("proxy_on_configure", define, "(i32.const 1)")
    ))
}

/// Rounds of the loop so far.
fn rounds(plugin: &Plugin) -> u64 {
    plugin.status().metrics[0].value
}

/// Serves one request until the guest has ended, as a worker does that has others to serve between its
/// slices; the rounds that it looped, and most of them without a pause.
fn served(engine: &Engine, plugin: &Plugin) -> (u64, u64) {
    let innocent = plugin_of(engine, &guest("add_header"), |_| {}).unwrap();
    let body = |bytes| frames([data(bytes), trailers()]);
    let request = http::Request::post("/").header("host", "example.com").body(body("body")).unwrap();
    let inner = service_fn(|request: http::Request<RequestBody<Frames>>| async {
        request.into_body().collect().await.map(|_| Response::new(body("ok")))
    });
    let service = WasmLayer::new([plugin.clone()]).layer(inner);
    let mut exchange = pin!(async move {
        let response = service.oneshot(request).await.unwrap();
        drop(response.into_body().collect().await);
    });
    let mut context = Context::from_waker(Waker::noop());
    let (mut is_over, mut longest) = (false, 0);
    while !is_over || plugin.status().traps.total() == 0 {
        let before = rounds(plugin);
        is_over = is_over || exchange.as_mut().poll(&mut context) != Poll::Pending;
        longest = longest.max(rounds(plugin) - before);
        assert_eq!(send([innocent.clone()], get("/")).status(), 200);
        engine.maintain();
    }
    (rounds(plugin), longest)
}

#[test]
fn guest_that_loops_anywhere_ends_within_its_limit_and_gives_way_at_each_beat() {
    for (name, parts) in [
        ("proxy_on_context_create", String::new()),
        ("proxy_on_request_headers", String::new()),
        ("proxy_on_request_body", String::new()),
        ("proxy_on_request_trailers", String::new()),
        ("proxy_on_response_headers", String::new()),
        ("proxy_on_response_body", String::new()),
        ("proxy_on_response_trailers", String::new()),
        ("proxy_on_log", String::new()),
        ("proxy_on_done", String::new()),
        ("proxy_on_delete", String::new()),
        ("proxy_on_http_call_response", returning("proxy_on_request_headers", CALL_NOW, "(i32.const 1)")),
        (
            "proxy_on_queue_ready",
            on(
                "proxy_on_request_headers",
                "(drop (call $register (i32.const 260) (i32.const 5) (i32.const 0)))
                (drop (call $enqueue (i32.const 1) (i32.const 100) (i32.const 3)))",
            ),
        ),
    ] {
        let engine = Engine::new().unwrap().0;
        let text = spinning(name, &parts);
        let plugin = started(&engine, &wat::parse_str(text).unwrap(), Duration::from_millis(LIMIT)).unwrap();
        let (ran, longest) = tracing::subscriber::with_default(ticks_with_logs(engine.clone(), 1), || {
            served(&engine, &plugin)
        });
        assert!((LIMIT..=LIMIT + GRACE).contains(&ran), "{name}: {ran} ms");
        assert!(longest <= SLICE, "{name}: {longest} ms in one slice");
        assert_eq!(plugin.status().traps.time_limit, 1, "{name}");
    }
}

#[test]
fn tick_that_loops_ends_within_its_limit() {
    let engine = Engine::new().unwrap().0;
    let text = spinning("proxy_on_tick", "");
    let plugin = started(&engine, &wat::parse_str(text).unwrap(), Duration::from_millis(LIMIT)).unwrap();
    (0..10).for_each(|_| engine.tick());
    tracing::subscriber::with_default(ticks_with_logs(engine.clone(), 1), || {
        while plugin.status().traps.time_limit == 0 {
            engine.maintain();
        }
    });
    let ran = rounds(&plugin);
    assert!((LIMIT..=LIMIT + GRACE).contains(&ran), "{ran} ms");
}
