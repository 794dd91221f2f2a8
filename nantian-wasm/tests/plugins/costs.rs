//! What a guest makes the host keep while it lives, and what a client makes an honest guest ask for.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use nantian_wasm::{
    Action, Cause, Engine, FailurePolicy, Module, Plugin, PluginConfig, Sandbox, StreamContext, StreamInfo,
    host::{CallError, Host, HttpCall, HttpCallResponse, HttpReply},
};

use crate::abuse::{CALL_NOW, LONG, MEMORY, headers, module, resident, started};
use crate::limits::calling;
use crate::support::{begin, data, exchange, frames, get, plugin_of, send};

fn of(text: &str, change: impl FnOnce(&mut PluginConfig)) -> Plugin {
    plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), change).unwrap()
}

/// A guest with eight megabytes of memory that does this in the request's headers.
fn roomy(body: &str) -> String {
    module(&headers(body)).replace(MEMORY, r#"(memory (export "memory") 128)"#)
}

#[test]
fn names_of_metrics_cost_no_more_than_what_is_kept_of_them() {
    // Three names of four megabytes, each of another beginning.
    let define = "(i32.store (i32.const 70000) (i32.add (i32.load (i32.const 70000)) (i32.const 1)))
        (drop (call $define (i32.const 0) (i32.const 70000) (i32.const 4000000) (i32.const 0)))";
    let plugin = of(&roomy(&define.repeat(3)), |_| {});
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    let before = resident();
    for _ in 0..30 {
        assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    }
    let grown = resident().saturating_sub(before);
    let status = plugin.status();
    assert_eq!((status.metrics.len(), status.traps.total()), (93, 0));
    assert!(status.metrics.iter().all(|metric| metric.name.len() <= 256));
    assert!(status.peaks[0].used < 3 * 300, "{:?} are copied", status.peaks[0]);
    assert!(grown < 64 << 20, "{grown} bytes more");
}

#[test]
fn name_of_a_metric_is_cut_between_characters_and_keeps_what_fits() {
    // 255 bytes and one character of three.
    let text = roomy(
        "(memory.fill (i32.const 70000) (i32.const 97) (i32.const 255)) (i32.store (i32.const 70255) (i32.const 0xac82e2))
        (drop (call $define (i32.const 0) (i32.const 70000) (i32.const 258) (i32.const 0)))
        (drop (call $define (i32.const 0) (i32.const 70002) (i32.const 256) (i32.const 0)))",
    );
    let plugin = of(&text, |_| {});
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    let names: Vec<_> = plugin.status().metrics.into_iter().map(|metric| metric.name).collect();
    assert_eq!(names, ["a".repeat(255), "a".repeat(253) + "\u{20ac}"]);
}

#[test]
fn details_of_an_answer_are_kept_so_long_as_a_log_shows_them() {
    let answer = |length: u32| {
        let text = roomy(&format!(
            "(memory.fill (i32.const 70000) (i32.const 255) (i32.const 4000000)) (i32.store8 (i32.const 70000) (i32.const 32))
            (drop (call $respond (i32.const 403) (i32.const 70000) (i32.const {length}) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const -1)))"
        ));
        let plugin = of(&text, |_| {});
        let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
        let mut parts = Request::new(()).into_parts().0;
        let Action::Respond(answer) = stream.on_request_headers(&mut parts, true) else {
            panic!("not answered")
        };
        drop(stream);
        (answer.details, plugin.status().peaks[0].used)
    };
    let (details, copied) = answer(4_000_000);
    assert!(details.starts_with("_\u{fffd}") && details.len() <= 256, "{} bytes", details.len());
    assert!(copied < 300, "{copied} are copied");
    assert_eq!(answer(3).0, "_\u{fffd}\u{fffd}");
}

/// A guest that holds a request's body until it has asked about each part of it, one after the other; `$left`
/// are the parts.
fn asking(left: &str) -> String {
    format!(
        r#"(module
    (import "env" "proxy_http_call"
        (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (memory (export "memory") 1)
    (global $left (mut i32) (i32.const 0))
    (data (i32.const 100) "auth")
    (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
    (func (export "proxy_abi_version_0_2_1"))
    (func $ask (drop (call $call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0))))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (if (i32.eqz (local.get 2)) (then (return (i32.const 1))))
        (global.set $left (i32.sub {left} (i32.const 1)))
        (call $ask)
        (i32.const 1))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (drop (call $become (i32.const 2)))
        (if (global.get $left)
            (then (global.set $left (i32.sub (global.get $left) (i32.const 1))) (call $ask))
            (else (drop (call $continue (i32.const 0)))))))"#
    )
}

/// A request of this body, whose guest is answered each time it asks; how it ended, and how often that was.
fn judged(guest: &str, body: usize) -> (Action, usize, Plugin) {
    let engine = Engine::new().unwrap().0;
    let (plugin, outside) = calling(&engine, guest);
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
    let mut context = Context::from_waker(Waker::noop());
    let mut chunk = Bytes::from(vec![b'a'; body]);
    let mut action = stream.on_request_body(&mut chunk, true);
    let mut asked = 0;
    loop {
        let replies = std::mem::take(&mut *outside.http.lock().unwrap());
        if replies.is_empty() {
            break;
        }
        for reply in replies {
            asked += 1;
            reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
        }
        if let std::task::Poll::Ready(interrupted) = stream.poll_interrupt(&mut context) {
            return (interrupted, asked, plugin);
        }
    }
    if matches!(action, Action::Pending) {
        assert!(stream.poll_request(&mut context).is_ready());
        action = stream.on_request_body(&mut chunk, true);
    }
    (action, asked, plugin)
}

#[test]
fn plugin_may_ask_about_each_piece_of_a_body_that_it_may_hold() {
    let pieces = "(i32.add (i32.div_u (local.get 1) (i32.const 1800)) (i32.const 1))";
    let (action, asked, plugin) = judged(&asking(pieces), 1 << 20);
    assert!(matches!(action, Action::Continue), "{action:?}");
    assert_eq!((asked, plugin.status().traps.total()), (583, 0));
}

#[test]
fn plugin_may_ask_about_each_piece_of_a_response_that_it_holds() {
    let guest = asking("(i32.div_u (local.get 1) (i32.const 2048))")
        .replace("proxy_on_request_body", "proxy_on_response_body")
        .replace("(call $continue (i32.const 0))", "(call $continue (i32.const 1))");
    let engine = Engine::new().unwrap().0;
    let (plugin, outside) = calling(&engine, &guest);
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let (mut request, mut response) = (Request::new(()).into_parts().0, Response::new(()).into_parts().0);
    assert!(matches!(stream.on_request_headers(&mut request, true), Action::Continue));
    assert!(matches!(stream.on_response_headers(&mut response, false), Action::Continue));
    let mut chunk = Bytes::from(vec![b'a'; 200 << 10]);
    assert!(matches!(stream.on_response_body(&mut chunk, true), Action::Pending));
    let mut asked = 0;
    while let Some(reply) = { outside.http.lock().unwrap().pop() } {
        asked += 1;
        reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
        let _ = stream.poll_response(&mut Context::from_waker(Waker::noop()));
    }
    let action = stream.on_response_body(&mut chunk, true);
    assert!(matches!(action, Action::Continue), "{action:?}");
    assert_eq!((asked, chunk.len(), plugin.status().traps.total()), (100, 200 << 10, 0));
}

#[test]
fn stream_that_asks_for_ever_ends_and_its_instance_lives_on() {
    let (action, asked, plugin) = judged(&asking("(i32.const 100000)"), 4);
    assert!(matches!(action, Action::Fail(_)), "{action:?}");
    assert_eq!((asked, plugin.status().traps.total()), (64, 0));
    let (_, asked, plugin) = judged(&asking("(i32.const 100000)"), 10 << 10);
    assert_eq!((asked, plugin.status().traps.total()), (74, 0), "one more for each kibibyte of body");
}

#[test]
fn body_that_a_plugin_encodes_for_its_judge_may_be_as_long_as_one_it_may_hold() {
    // Base64 of a mebibyte.
    let call = CALL_NOW.replacen(
        "(i32.const 61) (i32.const 0) (i32.const 0)",
        "(i32.const 61) (i32.const 70000) (i32.const 1398104)",
        1,
    );
    let text = module(&headers(&call));
    assert!(text.contains("1398104"), "{CALL_NOW}");
    let plugin = started(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), LONG).unwrap();
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    assert_eq!((plugin.status().traps.total(), plugin.status().failures), (0, 0));
}

/// Holds a body, reads all of it at its end and writes it back.
const REWRITER: &str = r#"(module
    (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1200)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (if (i32.eqz (local.get 2)) (then (return (i32.const 1))))
        (drop (call $get (i32.const 0) (i32.const 0) (local.get 1) (i32.const 0) (i32.const 4)))
        (drop (call $set (i32.const 0) (i32.const 0) (local.get 1) (i32.const 65536) (local.get 1)))
        (i32.const 0)))"#;

#[test]
fn body_as_long_as_may_be_held_can_be_read_and_written() {
    let plugin = of(REWRITER, |config| {
        config.sandbox.max_memory = 128 << 20;
        config.sandbox.max_buffered_body = 40 << 20;
        config.sandbox.max_execution_time = LONG;
    });
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
    let mut passed = 0;
    for megabyte in 0..34 {
        let mut chunk = Bytes::from(vec![1; 1 << 20]);
        let action = stream.on_request_body(&mut chunk, megabyte == 33);
        assert!(matches!(action, Action::Continue | Action::Pending), "{megabyte}: {action:?}");
        passed += if matches!(action, Action::Continue) { chunk.len() } else { 0 };
    }
    assert_eq!((passed, plugin.status().traps.total()), (34 << 20, 0));
}

#[test]
fn body_that_becomes_far_too_long_ends_its_stream_and_not_the_instance() {
    // As if a small one had been inflated to twenty megabytes.
    let inflate =
        "(drop (call $set (i32.const 0) (i32.const 0) (local.get 1) (i32.const 65536) (i32.const 20000000)))";
    let text = REWRITER.replace(
        "(drop (call $set (i32.const 0) (i32.const 0) (local.get 1) (i32.const 65536) (local.get 1)))",
        inflate,
    );
    assert!(text.contains(inflate));
    let plugin = of(&text, |config| config.sandbox.max_memory = 128 << 20);
    let request = Request::post("/").header("host", "a").body(frames([data("small")])).unwrap();
    let seen = exchange([plugin.clone()], request, Response::new(frames([])));
    assert_eq!((seen.status(), plugin.status().traps.total()), (413, 0));
    // One that comes in one frame, and is longer than any guest may be shown at once.
    let plugin = of(REWRITER, |config| config.sandbox.max_memory = 128 << 20);
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
    let action = stream.on_request_body(&mut Bytes::from(vec![1; 33 << 20]), true);
    assert!(
        matches!(&action, Action::Fail(failure) if matches!(failure.cause, Cause::BodyTooLarge { .. })),
        "{action:?}"
    );
    assert_eq!(plugin.status().traps.total(), 0);
}

/// A guest that does this under a policy of failing open, and the way of a request with many and long headers
/// past it.
fn client_passes(body: &str) -> (u16, bool, Plugin) {
    let plugin = of(&module(&headers(body)), |config| {
        config.failure_policy = FailurePolicy::FailOpen;
        config.sandbox.max_execution_time = LONG;
    });
    let seen = send([plugin.clone()], get("/"));
    (seen.status(), seen.request.is_some(), plugin)
}

#[test]
fn client_that_brings_about_more_than_a_stream_may_cost_does_not_get_past_a_plugin() {
    let twice_33_kib =
        "(drop (call $replace (i32.const 0) (i32.const 100) (i32.const 3) (i32.const 70000) (i32.const 33792)))"
            .repeat(2);
    let fill = "(memory.fill (i32.const 70000) (i32.const 97) (i32.const 70000))";
    let headers_of_bytes = format!("{fill} {twice_33_kib}");
    let properties =
        "(drop (call $set_property (i32.const 100) (i32.const 3) (i32.const 70000) (i32.const 66000)))";
    // Six hundred names of two letters each.
    let many = format!(
        "{fill} (i32.store (i32.const 40) (i32.const 600))
        (loop $more
            (i32.store8 (i32.const 50) (i32.add (i32.const 97) (i32.rem_u (i32.load (i32.const 40)) (i32.const 26))))
            (i32.store8 (i32.const 51) (i32.add (i32.const 97) (i32.div_u (i32.load (i32.const 40)) (i32.const 26))))
            (drop (call $add (i32.const 0) (i32.const 50) (i32.const 2) (i32.const 110) (i32.const 1)))
            (i32.store (i32.const 40) (i32.sub (i32.load (i32.const 40)) (i32.const 1)))
            (br_if $more (i32.load (i32.const 40))))"
    );
    for (guest, what) in [
        (headers_of_bytes.as_str(), "header bytes"),
        (properties, "property bytes"),
        (many.as_str(), "header entries"),
    ] {
        let (status, has_reached, plugin) = client_passes(guest);
        assert_eq!((status, has_reached), (503, false), "{what}");
        let told = plugin.status();
        assert_eq!(
            told.last_failure.unwrap().cause.to_string(),
            format!("budget of the stream exceeded: {what}")
        );
        assert_eq!(told.traps.total(), 0, "{what}");
    }
}

/// Keeps what is to be sent, as if nobody took it.
#[derive(Default)]
struct Unsent(Mutex<Vec<(HttpCall, HttpReply)>>);

impl Host for Unsent {
    fn http_call(&self, _: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        self.0.lock().unwrap().push((call, reply));
        Ok(())
    }
}

#[test]
fn plugin_has_so_many_call_outs_under_way_and_so_many_bytes_in_them() {
    let engine = Engine::new().unwrap().0;
    // Ten calls of a mebibyte each for each stream; refused ones are counted.
    let text = r#"(module
    (import "env" "proxy_http_call"
        (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (memory (export "memory") 20)
    (data (i32.const 100) "auth")
    (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
    (data (i32.const 300) "refused")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (i32.eqz (call $define (i32.const 0) (i32.const 300) (i32.const 7) (i32.const 0))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (local $left i32)
        (local.set $left (i32.const 10))
        (loop $more
            (if (i32.eq (i32.const 10) (call $call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61)
                (i32.const 1000) (i32.const 1048576) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0)))
                (then (drop (call $record (i32.const 4) (i64.const 1)))))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $more (local.get $left)))
        (i32.const 0)))"#;
    let module = Module::compile(&engine, &wat::parse_str(text).unwrap(), None).unwrap();
    let config = PluginConfig::new("probe").with_instances(NonZeroUsize::MIN);
    let config = config.with_sandbox(Sandbox::default().with_allow_network(true));
    let unsent = Arc::<Unsent>::default();
    let plugin = Plugin::with_host(&module, config, Arc::clone(&unsent)).unwrap();
    let refused = || plugin.status().metrics[0].value;
    let streams: Vec<_> = (0..7).map(|_| begin(&plugin)).collect();
    assert_eq!((unsent.0.lock().unwrap().len(), refused()), (63, 7), "with what their heads take, 64 MiB");
    drop(streams);
    let half_read = unsent.0.lock().unwrap().pop().unwrap();
    assert!(half_read.1.holds(1 << 19) && !half_read.1.holds(1 << 20), "its response counts, too");
    drop(half_read);
    unsent.0.lock().unwrap().clear();
    let _stream = begin(&plugin);
    assert_eq!((unsent.0.lock().unwrap().len(), refused()), (10, 7), "there is room again");
    assert_eq!((plugin.status().traps.total(), plugin.status().failures), (0, 0));
}
