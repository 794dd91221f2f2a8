//! The invariants of the reference by their number. I5 (no guest runs without a deadline), I6 (memory stays
//! within the sum of the budgets) and I10 (no guest splits a message) are asserted of every hostile guest, in
//! `abuse`.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use nantian_wasm::{Action, Engine, Module, Plugin, PluginConfig, WasmLayer, host::Host};
use proptest::prelude::*;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{
    Frames, ThenSilent, configured, data, exchange, frames, get, guest, plugin, plugin_of, send, stream,
};

fn metric(plugin: &Plugin, name: &str) -> u64 {
    plugin.status().metrics.iter().find(|metric| metric.name == name).map_or(0, |metric| metric.value)
}

fn request() -> http::request::Parts {
    Request::new(()).into_parts().0
}

fn response() -> http::response::Parts {
    Response::new(()).into_parts().0
}

fn owned(parts: &[Vec<u8>]) -> Frames {
    frames(parts.iter().map(|part| Frame::data(Bytes::from(part.clone()))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn i1_every_context_is_logged_done_and_deleted_once(steps in prop::collection::vec(0..5_usize, 1..8)) {
        let plugin = plugin("lifecycle", |_| {});
        let mut streams = Vec::new();
        for step in &steps {
            let mut stream = stream(&plugin);
            let mut chunk = Bytes::from_static(b"chunk");
            if *step > 0 {
                let _ = stream.on_request_headers(&mut request(), false);
            }
            if *step > 1 {
                let _ = stream.on_request_body(&mut chunk, true);
            }
            if *step > 2 {
                let _ = stream.on_response_headers(&mut response(), false);
            }
            if *step > 3 {
                let _ = stream.on_response_body(&mut chunk, true);
            }
            streams.push(stream);
        }
        let created = steps.iter().filter(|step| **step > 0).count() as u64;
        prop_assert_eq!((metric(&plugin, "create"), metric(&plugin, "log")), (created, 0));
        drop(streams);
        for name in ["create", "log", "done", "delete"] {
            prop_assert_eq!(metric(&plugin, name), created, "{}", name);
        }
    }

    #[test]
    fn i2_a_guest_that_only_looks_changes_no_byte_however_it_is_cut(
        request in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        response in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
    ) {
        let plugin = configured("body", b"u");
        let sent = Request::post("/").body(owned(&request)).unwrap();
        let seen = exchange([plugin], sent, Response::new(owned(&response)));
        prop_assert_eq!(seen.request_body.unwrap(), request.concat());
        prop_assert_eq!(seen.body.unwrap(), response.concat());
    }
}

#[test]
fn i3_a_request_reaches_upstream_once_whatever_is_continued() {
    // The service asserts that it is called once.
    for action in [0x20, 0x40, 0x60] {
        let seen = send([configured("scripted", &[action; 8])], get("/"));
        assert_eq!((seen.status(), seen.text()), (200, "ok"));
        assert!(seen.request.is_some());
    }
}

#[test]
fn i4_upstream_is_not_asked_after_a_local_answer() {
    for script in [&[0x10][..], &[0x70], &[0x13]] {
        let seen = send([configured("scripted", script)], get("/"));
        assert_eq!(seen.status(), 200);
        assert!(seen.request.is_none(), "{script:?}");
    }
}

#[test]
fn i7_a_dead_instance_and_its_successor_are_not_entered_by_its_streams() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &guest("scripted"), |config| {
        config.configuration = Bytes::from_static(&[0, 0x80]);
    });
    let plugin = plugin.unwrap();
    let (mut survivor, mut culprit) = (stream(&plugin), stream(&plugin));
    assert!(matches!(survivor.on_request_headers(&mut request(), true), Action::Continue));
    assert!(matches!(culprit.on_request_headers(&mut request(), true), Action::Fail(_)));
    let trace = metric(&plugin, "trace");
    engine.maintain();
    assert_eq!(plugin.status().live_instances, 1);
    assert!(matches!(survivor.on_response_headers(&mut response(), true), Action::Fail(_)));
    drop((survivor, culprit));
    assert_eq!(metric(&plugin, "trace"), trace, "no callback was called since");
}

#[tokio::test]
async fn i8_the_first_event_does_not_wait_for_the_second() {
    let inner = service_fn(async |_: Request<_>| {
        let response = Response::builder().header("content-type", "text/event-stream");
        Ok::<_, Infallible>(response.body(ThenSilent(Some(data("data: 1\n\n")))).unwrap())
    });
    let service = WasmLayer::new([configured("body", b"u"), configured("body", b"u")]).layer(inner);
    let mut body = pin!(service.oneshot(get("/")).await.unwrap().into_body());
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(first))) = body.as_mut().poll_frame(&mut context) else { panic!("no event") };
    assert_eq!(first.into_data().unwrap(), "data: 1\n\n");
    assert!(body.as_mut().poll_frame(&mut context).is_pending());
}

/// Nothing but a host whose end can be seen.
struct Marked;

impl Host for Marked {}

#[test]
fn i9_a_thousand_new_configurations_under_load_lose_no_request_and_leave_nothing_behind() {
    let engine = Engine::new().unwrap().0;
    let module = Module::compile(&engine, &guest("lifecycle"), None).unwrap();
    let config = |generation: u32| {
        let config = PluginConfig::new("swapped").with_configuration(generation.to_string());
        config.with_instances(NonZeroUsize::new(2).unwrap())
    };
    let first = Arc::new(Marked);
    let mut hosts = vec![Arc::downgrade(&first)];
    let present = Mutex::new(Plugin::with_host(&module, config(0), first).unwrap());
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let plugin = present.lock().unwrap().clone();
                    assert_eq!(send([plugin], get("/")).status(), 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for generation in 1..=1_000 {
            let host = Arc::new(Marked);
            hosts.push(Arc::downgrade(&host));
            let last = present.lock().unwrap().clone();
            let next = last.successor_with_host(&module, config(generation), host).unwrap();
            *present.lock().unwrap() = next;
            engine.maintain();
        }
        while answered.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    engine.maintain();
    let plugin = present.into_inner().unwrap();
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    let streams = answered.into_inner() + 1;
    for name in ["create", "log", "done", "delete"] {
        assert_eq!(metric(&plugin, name), streams, "{name}: the metrics are those of all generations");
    }
    assert_eq!(hosts.iter().filter(|host| host.strong_count() > 0).count(), 1, "generations that are alive");
    assert_eq!(engine.module_count(), 1);
}
