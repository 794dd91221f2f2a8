//! Replies to call-outs: whose time they take, and what becomes of a message that they answer.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use nantian_wasm::{
    Action, Cause, Engine, Hooks, Module, Plugin, PluginConfig, Sandbox, StreamContext, StreamInfo,
    WasmLayer,
    body::{BodyError, RequestBody, ResponseBody},
    host::{CallError, ForeignError, Host, HttpCall, HttpCallResponse, HttpReply},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{
    Frames, Logged, ThenSilent, Ticking, data, frames, get, plugin_of, send, ticks_with_logs,
};

/// Answers each call-out at once, and lets a millisecond pass with each foreign call.
struct Answering {
    engine: Engine,
    calls: AtomicUsize,
}

impl Host for Answering {
    fn http_call(&self, _: &str, _: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
        Ok(())
    }

    fn foreign_function(&self, _: &str, _: &str, _: &[u8]) -> Option<Result<Vec<u8>, ForeignError>> {
        self.engine.tick();
        None
    }
}

/// A guest that makes a call-out and does `MORE` before it holds the message in the callback `HELD`, does
/// `REPLY` when one returns, and logs the status of the response at its end.
const ASKING: &str = r#"(module
    (import "env" "proxy_http_call" (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
    (import "env" "proxy_send_local_response" (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $value (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "auth")
    (data (i32.const 110) ":status")
    (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $call
        (drop (call $http_call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 8))))
    (func $toil (param $milliseconds i32)
        (loop $more
            (drop (call $foreign (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 12)))
            (local.set $milliseconds (i32.sub (local.get $milliseconds) (i32.const 1)))
            (br_if $more (local.get $milliseconds))))
    (func $answer (drop (call $respond (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const -1))))
    (func (export "HELD") (param i32 i32 i32) (result i32) (call $call) MORE (i32.const 1))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (drop (call $become (i32.const 2)))
        REPLY)
    (func (export "proxy_on_log") (param i32)
        (drop (call $value (i32.const 2) (i32.const 110) (i32.const 7) (i32.const 8) (i32.const 12)))
        (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12)))))
    (func (export "proxy_on_delete") (param i32) (drop (call $log (i32.const 2) (i32.const 100) (i32.const 4)))))"#;

fn asking(held: &str, reply: &str) -> (Plugin, Arc<Answering>) {
    asking_and(held, "", reply)
}

fn asking_and(held: &str, more: &str, reply: &str) -> (Plugin, Arc<Answering>) {
    let engine = Engine::new().unwrap().0;
    let text = ASKING.replace("HELD", held).replace("MORE", more).replace("REPLY", reply);
    let module = Module::compile(&engine, &wat::parse_str(text).unwrap(), None).unwrap();
    let config = PluginConfig::new("asks").with_instances(NonZeroUsize::MIN);
    let config = config.with_sandbox(Sandbox::default().with_allow_network(true));
    let host = Arc::new(Answering { engine, calls: AtomicUsize::new(0) });
    let plugin = Plugin::with_host(&module, config, Arc::clone(&host)).unwrap();
    (plugin, host)
}

#[test]
fn time_of_replies_is_that_of_the_stream_that_has_asked() {
    let (plugin, host) = asking("proxy_on_request_headers", "(call $toil (i32.const 60)) (call $call)");
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    let mut context = Context::from_waker(Waker::noop());
    let failure = loop {
        match stream.on_request_headers(&mut parts, true) {
            Action::Pending => {
                while stream.poll_request(&mut context).is_pending() {
                    assert!(host.calls.load(Ordering::Relaxed) < 60, "never stopped");
                    host.engine.maintain();
                }
            }
            Action::Fail(failure) => break failure,
            action => panic!("{action:?}"),
        }
    };
    assert_eq!(failure.cause, Cause::Budget { what: "time of the stream" });
    // A second of 60 ms each, and what came back meanwhile.
    let calls = host.calls.load(Ordering::Relaxed);
    assert!((16..=20).contains(&calls), "{calls} calls");
    let status = plugin.status();
    assert_eq!((status.traps.total(), status.live_instances), (0, 1), "the instance lives on");
}

#[test]
fn stream_that_is_dropped_with_an_answer_that_nobody_took_is_forgotten_all_the_same() {
    let (plugin, host) = asking("proxy_on_request_headers", "(call $answer)");
    let lines = Logged::during(|| {
        let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
        let mut parts = Request::new(()).into_parts().0;
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Pending));
        host.engine.maintain();
        drop(stream);
    });
    assert!(lines.iter().any(|line| line.ends_with("auth")), "{lines:?}");
}

#[test]
fn response_that_a_reply_answers_is_logged_as_it_was_sent() {
    let (plugin, _) = asking("proxy_on_response_headers", "(call $answer)");
    let lines = Logged::during(|| assert_eq!(send([plugin], get("/")).status(), 418));
    assert!(lines.iter().any(|line| line.contains("418")), "{lines:?}");
}

#[test]
fn answer_that_comes_with_the_response_is_shown_to_plugins_in_its_place() {
    let shown = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $value (i32.const 2) (i32.const 110) (i32.const 7) (i32.const 8) (i32.const 12)))
        (drop (call $log (i32.const 2) (i32.const 110) (i32.const 7)))
        (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12))))
    (func (export "proxy_on_log")"#;
    let text =
        ASKING.replace("HELD", "proxy_on_request_headers").replace("MORE (i32.const 1)", "(i32.const 0)");
    let text = text.replace("REPLY", "(call $answer)").replace(r#"(func (export "proxy_on_log")"#, shown);
    let (_engine, plugin, host) = later(&text);
    let inner = service_fn(move |_: Request<RequestBody<Frames>>| {
        host.answer();
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(frames([data("ok")]))))
    });
    let service = WasmLayer::new([plugin]).layer(inner);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let lines = Logged::during(|| {
        let response = runtime.block_on(service.oneshot(get("/"))).unwrap();
        assert_eq!(response.status(), 418);
    });
    let lines: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("holds: ")).collect();
    assert_eq!(lines, [":status", "418", "418", "auth"], "shown, logged and deleted");
}

#[test]
fn answer_of_a_callback_that_ends_while_the_response_waits_is_shown_to_plugins() {
    let (plugin, _) = asking_and("proxy_on_request_body", "(call $toil (i32.const 5)) (call $answer)", "");
    let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
    let mut request = Request::post("/").body(()).unwrap().into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut request, false), Action::Continue));
    assert!(matches!(stream.on_request_body(&mut Bytes::from("a"), true), Action::Pending));
    let mut context = Context::from_waker(Waker::noop());
    let mut response = Response::new(()).into_parts().0;
    // The task of the response alone goes on with the call.
    for _ in 0..100 {
        let _ = stream.poll_response(&mut context);
    }
    let Action::Respond(answer) = stream.on_response_headers(&mut response, true) else { panic!("goes on") };
    assert!(!stream.has_shown_response(), "no plugin has seen anything");
    let mut answer = answer.into_response(false).into_parts().0;
    assert!(matches!(stream.on_response_headers(&mut answer, true), Action::Continue));
    assert!(stream.has_shown_response());
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn reply_that_ends_the_stream_breaks_off_a_response_of_which_nothing_comes() {
    for (reply, cause) in
        [("(drop (call $close (i32.const 1)))", Cause::Closed), ("(call $answer)", Cause::LateAnswer)]
    {
        for callback in ["proxy_on_response_body", "proxy_on_response_headers"] {
            let text = ASKING.replace("HELD", callback).replace("MORE (i32.const 1)", "(i32.const 0)");
            let (_engine, plugin, host) = later(&text.replace("REPLY", reply));
            let inner = service_fn(async |_: Request<RequestBody<Frames>>| {
                Ok::<_, std::convert::Infallible>(Response::new(ThenSilent(Some(data("first")))))
            });
            let service = WasmLayer::new([plugin.clone()]).layer(inner);
            let response = service.oneshot(get("/")).now_or_never().unwrap().unwrap();
            let mut body = std::pin::pin!(response.into_body());
            let wakes = Arc::<Wakes>::default();
            let waker = Waker::from(Arc::clone(&wakes));
            let mut poll = || http_body::Body::poll_frame(body.as_mut(), &mut Context::from_waker(&waker));
            assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))), "{callback}");
            assert!(poll().is_pending(), "{callback}");
            assert_eq!(wakes.0.swap(0, Ordering::Relaxed), 0, "{callback}: it waits");
            host.answer();
            let end = loop {
                assert!(wakes.0.swap(0, Ordering::Relaxed) > 0, "{callback}: nobody looks");
                if let Poll::Ready(end) = poll() {
                    break end;
                }
            };
            let error = end.unwrap().unwrap_err();
            let Some(BodyError::Failed(failure)) = error.downcast_ref() else { panic!("{error}") };
            assert_eq!((&failure.cause, plugin.status().failures), (&cause, 1), "{callback}");
        }
    }
}

/// What a reply's callback does that is cut into slices.
const TOILS: &str = "(loop $more
    (drop (call $log (i32.const 2) (i32.const 100) (i32.const 4)))
    (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1)))
    (br_if $more (i32.lt_u (i32.load (i32.const 16)) (i32.const 60))))";

/// A guest that makes a call-out in this callback, looks at bodies of requests and, if it is to, responses,
/// and takes long over the reply.
fn toiling(callback: &str, is_watched: bool, reply: &str) -> (Engine, Plugin, Arc<Later>) {
    let text = ASKING.replace("HELD", callback).replace("MORE (i32.const 1)", "(i32.const 0)");
    let body = |message| {
        format!(r#"(func (export "proxy_on_{message}_body") (param i32 i32 i32) (result i32) (i32.const 0))"#)
    };
    let also = if is_watched { body("response") } else { String::new() } + &body("request");
    let log = r#"(func (export "proxy_on_log")"#;
    let text = text.replace(log, &format!("{also} {log}")).replace("REPLY", &format!("{TOILS} {reply}"));
    later(&text)
}

/// What becomes of a body that waits for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    GoesOn,
    IsDropped,
}

#[test]
fn body_waits_for_a_guest_that_has_its_stream_and_keeps_no_other_waiting_when_it_is_gone() {
    use Fate::{GoesOn, IsDropped, Waits};
    for (is_watched, is_upload_first, fate) in [
        (false, false, Waits),
        (false, false, GoesOn),
        (false, false, IsDropped),
        (false, true, IsDropped),
        (true, false, Waits),
        (true, false, IsDropped),
        (true, true, IsDropped),
    ] {
        let case = format!("{is_watched}, {is_upload_first}, {fate:?}");
        let (engine, plugin, host) = toiling("proxy_on_response_headers", is_watched, "");
        let [has_upload, has_more] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let begun = Mutex::new(None);
        let inner = service_fn(|request: Request<RequestBody<Late>>| {
            *begun.lock().unwrap() = Some(Box::pin(request.into_body()));
            let body = Late(Arc::clone(&has_more), frames([data("more")]));
            std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(body)))
        });
        let service = WasmLayer::new([plugin]).layer(inner);
        let request = Late(Arc::clone(&has_upload), frames([data("upload")]));
        let request = Request::post("/").header("host", "a").body(request).unwrap();
        let response = service.oneshot(request).now_or_never().unwrap().unwrap();
        let mut response = Some(Box::pin(response.into_body()));
        let mut upload = begun.lock().unwrap().take();

        let wakes = [(); 2].map(|()| Arc::<Wakes>::default());
        let wakers = wakes.each_ref().map(|wakes| Waker::from(Arc::clone(wakes)));
        let woken = |place: usize| wakes[place].0.swap(0, Ordering::Relaxed);
        let poll_upload = |upload: &mut Option<Pin<Box<RequestBody<_>>>>| {
            let mut context = Context::from_waker(&wakers[0]);
            http_body::Body::poll_frame(upload.as_mut().unwrap().as_mut(), &mut context)
        };
        let poll_response = |response: &mut Option<Pin<Box<ResponseBody<_>>>>| {
            let mut context = Context::from_waker(&wakers[1]);
            http_body::Body::poll_frame(response.as_mut().unwrap().as_mut(), &mut context)
        };
        tracing::subscriber::with_default(ticks_with_logs(engine.clone(), 1), || {
            assert!(poll_response(&mut response).is_pending(), "{case}");
            host.answer();
            let _ = woken(1);
            if is_upload_first {
                has_upload.store(true, Ordering::Relaxed);
                assert!(poll_upload(&mut upload).is_pending(), "{case}: the guest has the stream");
                assert!(poll_response(&mut response).is_pending(), "{case}");
                upload = None;
            } else {
                assert!(poll_response(&mut response).is_pending(), "{case}");
                assert_eq!(woken(1), 0, "{case}: it waits");
                has_upload.store(fate != Waits, Ordering::Relaxed);
                assert!(
                    upload.is_none() || poll_upload(&mut upload).is_pending(),
                    "{case}: the guest has it"
                );
                match fate {
                    Waits => {}
                    GoesOn => {
                        has_more.store(true, Ordering::Relaxed);
                        assert!(poll_response(&mut response).is_ready(), "{case}");
                    }
                    IsDropped => response = None,
                }
            }
            let waiter = usize::from(response.is_some() && fate != GoesOn);
            let mut turns = 0;
            while woken(waiter) == 0 {
                turns += 1;
                assert!(turns < 1_000, "{case}: nobody wakes it");
                engine.maintain();
            }
            if waiter == 0 {
                while poll_upload(&mut upload).is_pending() {
                    turns += 1;
                    assert!(turns < 1_000 && woken(0) > 0, "{case}: nobody wakes it");
                }
            }
        });
    }
}

#[test]
fn exchange_that_awaits_its_response_waits_for_a_guest_that_has_its_stream() {
    for is_dropped in [false, true] {
        let (engine, plugin, host) = toiling("proxy_on_request_headers", false, "(call $answer)");
        let has_upload = Arc::new(AtomicBool::new(false));
        let begun = Mutex::new(None);
        let inner = service_fn(|request: Request<RequestBody<Late>>| {
            *begun.lock().unwrap() = Some(Box::pin(request.into_body()));
            std::future::pending::<Result<Response<Frames>, std::convert::Infallible>>()
        });
        let request = Late(Arc::clone(&has_upload), frames([data("upload")]));
        let request = Request::post("/").header("host", "a").body(request).unwrap();
        let mut exchange = Some(Box::pin(WasmLayer::new([plugin]).layer(inner).oneshot(request)));

        let wakes = [(); 2].map(|()| Arc::<Wakes>::default());
        let wakers = wakes.each_ref().map(|wakes| Waker::from(Arc::clone(wakes)));
        let [mut of_upload, mut of_exchange] = wakers.each_ref().map(Context::from_waker);
        let woken = |place: usize| wakes[place].0.swap(0, Ordering::Relaxed) > 0;
        tracing::subscriber::with_default(ticks_with_logs(engine.clone(), 1), || {
            assert!(exchange.as_mut().unwrap().as_mut().poll(&mut of_exchange).is_pending());
            host.answer();
            let mut upload = begun.lock().unwrap().take().unwrap();
            let _ = woken(1);
            assert!(exchange.as_mut().unwrap().as_mut().poll(&mut of_exchange).is_pending());
            assert!(!woken(1), "it waits");
            has_upload.store(true, Ordering::Relaxed);
            let mut poll_upload = || http_body::Body::poll_frame(upload.as_mut(), &mut of_upload);
            assert!(poll_upload().is_pending(), "the guest has the stream");
            if is_dropped {
                exchange = None;
            }
            let mut turns = 0;
            while !woken(usize::from(!is_dropped)) {
                turns += 1;
                assert!(turns < 1_000, "nobody wakes whoever waits, {is_dropped}");
                engine.maintain();
            }
            if let Some(exchange) = &mut exchange {
                let Poll::Ready(Ok(response)) = exchange.as_mut().poll(&mut of_exchange) else {
                    panic!("the guest has answered")
                };
                assert_eq!(response.status(), 418);
            }
            assert!(poll_upload().is_ready(), "{is_dropped}");
        });
    }
}

/// A guest that answers twice.
const ANSWERS: &str = r#"(module
    (import "env" "proxy_send_local_response" (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "first second")
    (data (i32.const 120) "response\00code_details")
    (data (i32.const 200) "\02\00\00\00\0e\00\00\00\01\00\00\00\03\00\00\00\01\00\00\00content-length\009\00x-a\00b\00")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $answer (param $status i32) (param $details i32) (param $length i32)
        (drop (call $respond (local.get $status) (local.get $details) (local.get $length) (i32.const 100) (i32.const 5)
            (i32.const 200) (i32.const 43) (i32.const -1))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $answer (i32.const 401) (i32.const 100) (i32.const 5))
        (call $answer (i32.const 403) (i32.const 106) (i32.const 6))
        (i32.const 1))
    (func (export "proxy_on_log") (param i32)
        (drop (call $property (i32.const 120) (i32.const 21) (i32.const 8) (i32.const 12)))
        (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12))))))"#;

#[test]
fn first_answer_is_sent_and_the_details_of_the_last_one_are_logged() {
    let module = wat::parse_str(ANSWERS).unwrap();
    let plugin = plugin_of(&Engine::new().unwrap().0, &module, |_| {}).unwrap();
    let lines = Logged::during(|| {
        let seen = send([plugin], get("/"));
        assert_eq!((seen.status(), seen.text()), (401, "first"));
        let names: Vec<_> = seen.response.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["content-length", "x-a", "content-type"], "in the order that it gave them");
        assert_eq!(seen.response_header("content-length"), Some("5"), "the right one");
    });
    assert!(lines.iter().any(|line| line.ends_with("second")), "{lines:?}");
}

/// A guest that holds both messages for a call-out each, and logs the length of each part of a body and
/// whether it is the last one.
const HOLDS: &str = r#"(module
    (import "env" "proxy_http_call" (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "auth")
    (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
    (global $held (mut i32) (i32.const 0))
    (func (export "proxy_abi_version_0_2_1"))
    (func $hold (param $stream i32) (result i32)
        (global.set $held (local.get $stream))
        (drop (call $http_call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 60000) (i32.const 8)))
        (i32.const 1))
    (func $tell (param $name i32) (param $length i32) (param $end i32) (result i32)
        (i32.store8 (i32.const 0) (local.get $name))
        (i32.store8 (i32.const 1) (i32.add (i32.const 48) (local.get $length)))
        (i32.store8 (i32.const 2) (i32.add (i32.const 48) (local.get $end)))
        (drop (call $log (i32.const 2) (i32.const 0) (i32.const 3)))
        (i32.const 0))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $hold (i32.const 0)))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $hold (i32.const 1)))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (call $tell (i32.const 113) (local.get 1) (local.get 2)))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
        (call $tell (i32.const 112) (local.get 1) (local.get 2)))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (drop (call $become (i32.const 2)))
        (drop (call $continue (global.get $held)))))"#;

/// Answers a call-out when it is told to.
#[derive(Default)]
struct Later(Mutex<Option<HttpReply>>);

impl Later {
    fn answer(&self) {
        let reply = self.0.lock().unwrap().take().unwrap();
        reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
    }
}

impl Host for Later {
    fn http_call(&self, _: &str, _: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        *self.0.lock().unwrap() = Some(reply);
        Ok(())
    }
}

/// A body of these parts, whose reader's call-out is answered before what comes last: its end or its
/// trailers.
fn answered_at_the_end(
    host: &Arc<Later>,
    parts: &'static [&'static str],
    has_trailers: bool,
) -> impl http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Unpin + use<> {
    let host = Arc::clone(host);
    let frames = futures_util::stream::unfold(0, move |place| {
        let frame = parts.get(place).map(|part| Frame::data(Bytes::from_static(part.as_bytes())));
        let frame = frame.or_else(|| {
            if place == parts.len() {
                host.answer();
            }
            (has_trailers && place == parts.len()).then(|| Frame::trailers(HeaderMap::new()))
        });
        std::future::ready(frame.map(|frame| (Ok(frame), place + 1)))
    });
    http_body_util::StreamBody::new(frames)
}

fn holding() -> (Engine, Plugin, Arc<Later>) {
    later(HOLDS)
}

/// A guest whose call-out is answered later.
fn later(text: &str) -> (Engine, Plugin, Arc<Later>) {
    later_with(Hooks::ALL, text)
}

fn later_with(hooks: Hooks, text: &str) -> (Engine, Plugin, Arc<Later>) {
    let engine = Engine::new().unwrap().0;
    let module = Module::compile(&engine, &wat::parse_str(text).unwrap(), None).unwrap();
    let config = PluginConfig::new("holds").with_instances(NonZeroUsize::MIN);
    let config = config.with_hooks(hooks).with_sandbox(Sandbox::default().with_allow_network(true));
    let host = Arc::<Later>::default();
    let plugin = Plugin::with_host(&module, config, Arc::clone(&host)).unwrap();
    (engine, plugin, host)
}

#[test]
fn headers_that_wait_for_a_body_which_a_hook_leaves_out_wait_for_call_outs_and_no_longer() {
    type IsRight = fn(&Action) -> bool;

    let watched = r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_log")"#;
    let text = ASKING.replace(r#"(func (export "proxy_on_log")"#, watched);
    let text = text.replace("version_0_2_1", "version_0_2_100").replace("MORE", "");
    let text = text.replace("HELD", "proxy_on_response_headers");
    let heard = "proxy_on_http_call_response";
    let rows: [(&str, &str, IsRight); 5] = [
        (heard, "", |action| matches!(action, Action::Continue)),
        ("nobody", "", |action| matches!(action, Action::Continue)),
        (heard, "(call $answer)", |action| matches!(action, Action::Respond(_))),
        (heard, "(call $call)", |action| matches!(action, Action::Pending)),
        (heard, "(unreachable)", |action| matches!(action, Action::Fail(_))),
    ];
    for (callback, reply, is_right) in rows {
        let hooks = Hooks::ALL.with_on_stream_chunk(false);
        let text = text.replace(heard, callback).replace("REPLY", reply);
        let (_engine, plugin, host) = later_with(hooks, &text);
        let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
        let mut request = Request::new(()).into_parts().0;
        assert!(matches!(stream.on_request_headers(&mut request, true), Action::Continue));
        let response = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
        let mut response = response.into_parts().0;
        assert!(matches!(stream.on_response_headers(&mut response, false), Action::Pending), "{reply}");
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(stream.poll_response(&mut Context::from_waker(&waker)).is_pending(), "{reply}");
        host.answer();
        let action = stream.on_response_headers(&mut response, false);
        assert!(is_right(&action), "{reply}: {action:?}");
        let is_woken = wakes.0.load(Ordering::Relaxed) > 0;
        assert_eq!(is_woken, !matches!(action, Action::Pending), "{reply}");
    }
}

#[test]
fn request_that_is_held_stays_with_its_guest_when_call_outs_that_a_response_has_waited_for_are_over() {
    let imports = r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))"#;
    let callbacks = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.eqz (call $period (i32.const 10))))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_tick") (param i32)
            (drop (call $become (i32.const 2)))
            (drop (call $add (i32.const 1) (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4)))
            (drop (call $continue (i32.const 0))))
        (func (export "proxy_on_log")"#;
    let text = ASKING.replace("(module", imports).replace(r#"(func (export "proxy_on_log")"#, callbacks);
    let text = text.replace("version_0_2_1", "version_0_2_100").replace("MORE", "").replace("REPLY", "");
    let text = text.replace("HELD", "proxy_on_response_headers");
    let (engine, plugin, host) = later_with(Hooks::ALL.with_on_stream_chunk(false), &text);
    let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
    let mut request = Request::post("/").body(()).unwrap().into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut request, false), Action::Continue));
    let mut chunk = Bytes::from_static(b"part");
    assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Pending));
    let response = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
    let mut response = response.into_parts().0;
    assert!(matches!(stream.on_response_headers(&mut response, false), Action::Pending));
    host.answer();
    assert!(matches!(stream.on_response_headers(&mut response, false), Action::Continue));
    (0..20).for_each(|_| engine.tick());
    engine.maintain();
    assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Continue));
    assert_eq!(stream.take_request_trailers().unwrap()["auth"], "auth");
}

#[test]
fn messages_without_bodies_that_were_held_have_none() {
    let (engine, plugin, host) = holding();
    let answering = std::thread::spawn(move || {
        for _ in 0..2 {
            while host.0.lock().unwrap().is_none() {
                std::thread::yield_now();
            }
            host.answer();
        }
    });
    let lines = Logged::during(|| {
        let _upkeep = Ticking::upkeep(&engine);
        let inner = service_fn(async |request: Request<RequestBody<Frames>>| {
            let is_empty = http_body::Body::is_end_stream(request.body());
            let response = Response::builder().status(if is_empty { 200 } else { 500 });
            Ok::<_, std::convert::Infallible>(response.body(frames([])).unwrap())
        });
        let service = WasmLayer::new([plugin]).layer(inner);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let response = runtime.block_on(service.oneshot(get("/"))).unwrap();
        assert_eq!(
            (response.status().as_u16(), http_body::Body::is_end_stream(response.body())),
            (200, true)
        );
    });
    answering.join().unwrap();
    assert_eq!(lines, [""; 0], "no callback about a body");
}

#[test]
fn what_comes_of_a_body_while_its_headers_are_held_is_shown_as_one_part() {
    for (has_trailers, expected) in [(false, ["q61", "p61"]), (true, ["q60", "p60"])] {
        let (engine, plugin, host) = holding();
        let request = Request::post("/").header("host", "a").body(answered_at_the_end(
            &host,
            &["one", "two"],
            has_trailers,
        ));
        let inner = service_fn(async |request: Request<RequestBody<_>>| {
            let body = request.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "onetwo");
            let body = answered_at_the_end(&host, &["six", "ty!"], has_trailers);
            Ok::<_, std::convert::Infallible>(Response::new(body))
        });
        let lines = Logged::during(|| {
            let _upkeep = Ticking::upkeep(&engine);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = runtime.block_on(async {
                let service = WasmLayer::new([plugin]).layer(inner);
                let response = service.oneshot(request.unwrap()).await.unwrap();
                response.into_body().collect().await.unwrap().to_bytes()
            });
            assert_eq!(body, "sixty!");
        });
        let lines: Vec<_> = lines.iter().map(|line| line.trim_start_matches("holds: ")).collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn body_longer_than_may_be_held_is_refused_before_its_headers_are_let_go_where_the_guest_buffers_it() {
    const LIMIT: usize = 1 << 20;
    for (message, direction, verdict, length, refused) in [
        ("request", 0, 3, LIMIT + 1, Some(413)),
        ("request", 0, 3, LIMIT, None),
        ("request", 0, 1, LIMIT + 1, None),
        ("request", 0, 4, LIMIT + 1, None),
        ("response", 1, 3, LIMIT + 1, Some(500)),
        ("response", 1, 3, LIMIT, None),
        ("response", 1, 4, LIMIT + 1, None),
    ] {
        let case = format!("{message}, {verdict}, {length}");
        let text = ASKING.replace("HELD", &format!("proxy_on_{message}_headers"));
        let text = text.replace("MORE (i32.const 1)", &format!("(i32.const {verdict})"));
        let reply = format!("(drop (call $continue (i32.const {direction})))");
        let (_engine, plugin, host) = later(&text.replace("REPLY", &reply));
        let body = || frames([Frame::data(Bytes::from(vec![b'a'; length - 1])), data("a")]);
        let inner = service_fn(async |request: Request<RequestBody<Frames>>| {
            let request = request.into_body().collect().await.unwrap();
            assert_eq!(request.to_bytes().len(), length);
            Ok::<_, std::convert::Infallible>(Response::new(body()))
        });
        let service = WasmLayer::new([plugin]).layer(inner);
        let request = Request::post("/").header("host", "a").body(body()).unwrap();
        let mut answered = std::pin::pin!(service.oneshot(request));
        let early = answered.as_mut().now_or_never().map(|response| response.unwrap().status().as_u16());
        assert_eq!(early, refused, "{case}");
        if refused.is_none() {
            host.answer();
            let response = answered.as_mut().now_or_never().unwrap().unwrap();
            let body = response.into_body().collect().now_or_never().unwrap().unwrap();
            assert_eq!(body.to_bytes().len(), length, "{case}");
        }
    }
}

/// A body of which nothing is there before it has come.
struct Late(Arc<AtomicBool>, Frames);

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.0.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.1).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.1.is_end_stream()
    }
}

#[test]
fn body_that_came_before_its_headers_were_let_go_is_one_part_whichever_has_woken_the_task() {
    let (_engine, plugin, host) = holding();
    let has_come = Arc::new(AtomicBool::new(false));
    let late = |text| Late(Arc::clone(&has_come), frames([data(text)]));
    let lines = Logged::during(|| {
        let inner = service_fn(|request: Request<RequestBody<Late>>| async {
            let body = request.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "one");
            has_come.store(false, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Response::new(late("sixty")))
        });
        let service = WasmLayer::new([plugin]).layer(inner);
        let request = Request::post("/").header("host", "a").body(late("one")).unwrap();
        let mut answered = std::pin::pin!(service.oneshot(request));
        let mut context = Context::from_waker(Waker::noop());
        for message in ["request", "response"] {
            assert!(answered.as_mut().poll(&mut context).is_pending(), "the {message} is held");
            has_come.store(true, Ordering::Relaxed);
            host.answer();
        }
        let Poll::Ready(Ok(response)) = answered.as_mut().poll(&mut context) else { panic!("let go") };
        let body = response.into_body().collect().now_or_never().unwrap().unwrap();
        assert_eq!(body.to_bytes(), "sixty");
    });
    assert_eq!(lines, ["holds: q31", "holds: p51"]);
}

#[test]
fn headers_that_were_held_and_announce_a_length_do_not_wait_for_a_body_that_nobody_looks_at() {
    for (message, direction) in [("request", 0), ("response", 1)] {
        let text = ASKING.replace("HELD", &format!("proxy_on_{message}_headers"));
        let text = text.replace("MORE (i32.const 1)", "(i32.const 3)");
        let reply = format!("(drop (call $continue (i32.const {direction})))");
        let (_engine, plugin, host) = later(&text.replace("REPLY", &reply));
        let inner = service_fn(async |request: Request<RequestBody<Late>>| {
            let response = Response::builder().header("content-length", &request.headers()["content-length"]);
            Ok::<_, std::convert::Infallible>(response.body(request.into_body()).unwrap())
        });
        let service = WasmLayer::new([plugin]).layer(inner);
        let has_come = Arc::new(AtomicBool::new(false));
        let request = Request::post("/").header("host", "a").header("content-length", "4");
        let request = request.body(Late(Arc::clone(&has_come), frames([data("late")]))).unwrap();
        let mut answered = std::pin::pin!(service.oneshot(request));
        assert!(answered.as_mut().now_or_never().is_none(), "the {message} is held");
        host.answer();
        let response = answered.as_mut().now_or_never().expect(message).unwrap();
        assert_eq!(response.headers()["content-length"], "4", "{message}");
        has_come.store(true, Ordering::Relaxed);
        let body = response.into_body().collect().now_or_never().unwrap().unwrap();
        assert_eq!(body.to_bytes(), "late", "{message}");
    }
}

/// Takes a step until it is no longer pending.
fn passed(
    stream: &mut StreamContext,
    mut step: impl FnMut(&mut StreamContext) -> Action,
    poll: impl Fn(&mut StreamContext, &mut Context<'_>) -> Poll<()>,
) -> Action {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match step(stream) {
            Action::Pending => {
                let is_ready = (0..10).any(|_| poll(stream, &mut context).is_ready());
                assert!(is_ready, "waits for what has come already");
            }
            action => return action,
        }
    }
}

#[test]
fn message_is_let_go_by_a_reply_that_comes_before_its_guest_has_said_that_it_holds_it() {
    for (callback, direction) in [
        ("proxy_on_request_headers", 0),
        ("proxy_on_request_body", 0),
        ("proxy_on_response_headers", 1),
        ("proxy_on_response_body", 1),
    ] {
        for milliseconds in 1..=3 {
            let toil = format!("(call $toil (i32.const {milliseconds}))");
            let reply = format!("(drop (call $continue (i32.const {direction})))");
            let (plugin, _) = asking_and(callback, &toil, &reply);
            let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
            let mut request = Request::new(()).into_parts().0;
            let mut response = Response::new(()).into_parts().0;
            let [mut sent, mut received] = [Bytes::from_static(b"ping"), Bytes::from_static(b"pong")];
            let actions = [
                passed(
                    &mut stream,
                    |stream| stream.on_request_headers(&mut request, false),
                    StreamContext::poll_request,
                ),
                passed(
                    &mut stream,
                    |stream| stream.on_request_body(&mut sent, true),
                    StreamContext::poll_request,
                ),
                passed(
                    &mut stream,
                    |stream| stream.on_response_headers(&mut response, false),
                    StreamContext::poll_response,
                ),
                passed(
                    &mut stream,
                    |stream| stream.on_response_body(&mut received, true),
                    StreamContext::poll_response,
                ),
            ];
            let have_passed = actions.iter().all(|action| matches!(action, Action::Continue));
            assert!(have_passed, "{callback}: {actions:?}");
            assert_eq!((&sent[..], &received[..]), (&b"ping"[..], &b"pong"[..]));
        }
    }
}

#[test]
fn body_is_let_go_by_a_reply_that_comes_before_its_guest_has_said_that_it_holds_the_next_part_too() {
    let second = "(i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1)))
        (if (i32.eq (i32.load (i32.const 16)) (i32.const 2)) (then (drop (call $continue (i32.const 0)))))";
    let (plugin, _) = asking_and("proxy_on_request_body", "(call $toil (i32.const 3))", second);
    let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
    let mut request = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut request, false), Action::Continue));
    let mut sent = Vec::new();
    for (part, end) in [("pi", false), ("ng", true)] {
        let mut chunk = Bytes::from_static(part.as_bytes());
        let action = passed(
            &mut stream,
            |stream| stream.on_request_body(&mut chunk, end),
            StreamContext::poll_request,
        );
        assert!(matches!(action, Action::Continue), "{action:?}");
        sent.push(chunk);
    }
    assert_eq!(sent, ["", "ping"]);
}
