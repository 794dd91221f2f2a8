//! Guests made with the Rust SDK: what its users write, compiled as they compile it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use nantian_wasm::{
    Action, Cause, Engine, FailurePolicy, Module, Plugin, PluginConfig, StreamContext, StreamFraming,
    StreamInfo,
    host::{
        CallError, CallFailure, ForeignError, GrpcCall, GrpcReplies, GrpcStream, Host, HttpCall,
        HttpCallResponse, HttpReply,
    },
};

use crate::support::{
    self, Frames, Seen, Ticking, built, counts, data, exchange, frames, get, plugin_of, send, ticks_with_logs,
};

fn guest() -> Vec<u8> {
    built("sdk_guest")
}

/// Answers calls to the upstream `auth` as told, and notes what was sent.
struct Upstream {
    outcome: Result<(u16, &'static str), CallFailure>,
    delay: Duration,
    sent: Arc<Mutex<Vec<HttpCall>>>,
}

impl Upstream {
    fn new(outcome: Result<(u16, &'static str), CallFailure>) -> Self {
        Self { outcome, delay: Duration::ZERO, sent: Arc::default() }
    }
}

fn reply_with(outcome: Result<(u16, &'static str), CallFailure>, reply: HttpReply) {
    reply.send(outcome.map(|(status, text)| {
        let response = Response::builder().status(status).header("x-from", "upstream");
        HttpCallResponse::new(response.body(Bytes::from_static(text.as_bytes())).unwrap(), HeaderMap::new())
    }));
}

struct Sending(GrpcReplies, Vec<Bytes>);

impl GrpcStream for Sending {
    fn send(&mut self, message: Bytes) {
        self.1.push(message);
    }

    fn close(&mut self) {
        for message in self.1.drain(..) {
            self.0.message(message);
        }
    }
}

impl Host for Upstream {
    fn http_call(&self, plugin: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        assert_eq!(plugin, "probe");
        if call.upstream != "auth" {
            return Err(CallError::UnknownUpstream);
        }
        self.sent.lock().unwrap().push(call);
        let (outcome, delay) = (self.outcome, self.delay);
        if delay.is_zero() {
            reply_with(outcome, reply);
        } else {
            std::thread::spawn(move || {
                std::thread::park_timeout(delay);
                reply_with(outcome, reply);
            });
        }
        Ok(())
    }

    fn grpc_call(
        &self,
        _: &str,
        call: GrpcCall,
        replies: GrpcReplies,
    ) -> Result<Box<dyn GrpcStream>, CallError> {
        assert_eq!((call.service.as_str(), call.metadata.len() < 2), ("echo.Echo", true));
        match call.message {
            None => return Ok(Box::new(Sending(replies, Vec::new()))),
            Some(message) if call.upstream == "auth" => replies.message(message),
            Some(_) => replies.close(13, "broken"),
        }
        struct Done;
        impl GrpcStream for Done {
            fn send(&mut self, _: Bytes) {}
            fn close(&mut self) {}
        }
        Ok(Box::new(Done))
    }

    fn foreign_function(
        &self,
        _: &str,
        name: &str,
        arguments: &[u8],
    ) -> Option<Result<Vec<u8>, ForeignError>> {
        (name == "echo").then(|| Ok(arguments.to_ascii_uppercase()))
    }
}

fn sdk_on(
    engine: &Engine,
    configuration: &str,
    host: Upstream,
    change: impl FnOnce(&mut PluginConfig),
) -> Result<Plugin, nantian_wasm::PluginError> {
    let module = Module::compile(engine, &guest(), None).unwrap();
    let mut config = PluginConfig::new("probe");
    config.configuration = Bytes::copy_from_slice(configuration.as_bytes());
    config.instances = std::num::NonZeroUsize::new(1);
    config.sandbox.allow_network = true;
    change(&mut config);
    Plugin::with_host(&module, config, host)
}

fn sdk(configuration: &str, outcome: Result<(u16, &'static str), CallFailure>) -> Plugin {
    sdk_on(&Engine::new().unwrap().0, configuration, Upstream::new(outcome), |_| {}).unwrap()
}

fn quiet(configuration: &str) -> Plugin {
    sdk(configuration, Err(CallFailure::Reset))
}

fn post(parts: &[&'static str]) -> Request<Frames> {
    let parts: Vec<_> = parts.iter().map(|part| data(part)).collect();
    Request::post("/").header("host", "example.com").body(frames(parts)).unwrap()
}

fn all<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let headers = &seen.request.as_ref().unwrap().headers;
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn headers_are_edited_and_keep_their_order() {
    let request = Request::get("/things")
        .header("host", "example.com")
        .header("x-first", "1")
        .header("x-remove", "1")
        .header("x-last", "1")
        .body(frames([]))
        .unwrap();
    let seen = send([quiet("headers")], request);
    let parts = seen.request.as_ref().unwrap();
    assert_eq!(parts.uri, "/rewritten?by=guest");
    assert_eq!(
        all(&seen, "x-names"),
        [":authority :path :method :scheme x-first x-remove x-last"],
        "pseudo headers first, then the order of arrival"
    );
    assert_eq!(all(&seen, "x-added"), ["1", "2"]);
    let names: Vec<_> = parts.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["host", "x-last", "x-names", "x-first", "x-added"]);
    assert_eq!(seen.response_header("x-guest"), Some("stream 2"), "the root context is 1");
}

#[test]
fn bytes_that_are_no_text_end_no_instance_and_are_the_backends_to_judge() {
    let bytes = HeaderValue::from_bytes(b"caf\xe9").unwrap();
    let request = || {
        let request = Request::get("/things").header("host", "example.com").header("x-last", &bytes);
        request.header("user-agent", &bytes).body(frames([])).unwrap()
    };
    let guest = quiet("headers");
    let seen = send([guest.clone()], request());
    assert_eq!((seen.status(), guest.status().traps.total()), (200, 0));
    assert_eq!(seen.request.unwrap().headers["x-last"], bytes);
    let guest = quiet("light 1");
    let seen = send([guest.clone()], request());
    assert_eq!((seen.status(), guest.status().traps.total()), (200, 0));
    let headers = seen.request.unwrap().headers;
    assert_eq!((headers["x-plugin"].as_bytes(), &headers["user-agent"]), ("caf\u{e9}".as_bytes(), &bytes));
}

#[test]
fn bodies_are_rewritten_when_they_are_whole() {
    let response =
        Response::builder().header("content-length", "7").body(frames([data("one"), data("more")]));
    let seen = exchange([quiet("body")], post(&["two ", "words"]), response.unwrap());
    assert_eq!(seen.request_body.as_deref(), Ok(&b"TWO WORDS"[..]));
    assert_eq!(seen.text(), "ONEMORE");
}

#[test]
fn request_that_waits_for_a_call_out_goes_on_with_what_it_said() {
    let upstream = Upstream::new(Ok((200, "alice")));
    let sent = Arc::clone(&upstream.sent);
    let plugin = sdk_on(&Engine::new().unwrap().0, "auth auth", upstream, |_| {}).unwrap();
    let seen = send([plugin], get("/"));
    // The first id, two headers with the status, the body, no trailers.
    assert_eq!((seen.status(), all(&seen, "x-call")), (200, vec!["4 2 200 alice 0"]));
    let sent = sent.lock().unwrap();
    let call = &sent[0];
    assert_eq!(
        (call.request.method().as_str(), call.request.uri().to_string().as_str()),
        ("GET", "http://auth.example/auth")
    );
    assert_eq!(
        (call.request.headers()["x-for"].as_bytes(), &call.request.body()[..]),
        (&b"me"[..], &b"who?"[..])
    );
    assert_eq!(call.timeout, Duration::from_secs(5));
}

#[test]
fn request_is_refused_when_the_call_out_says_so_or_fails() {
    for (outcome, seen_by_guest) in [
        (Ok((401, "no")), "4 2 401 no 0"),
        (Err(CallFailure::Timeout), "4 3 504 upstream request timeout 0"),
        (Err(CallFailure::Reset), "4 0 none  0"),
    ] {
        let seen = send([sdk("auth auth", outcome)], get("/"));
        assert_eq!((seen.status(), seen.text()), (403, "denied"), "{outcome:?}");
        assert_eq!(seen.response_header("x-call"), Some(seen_by_guest));
        assert!(seen.request.is_none());
    }
    for (failure, reason) in [
        (CallFailure::Unreachable, "remote connection failure"),
        (CallFailure::Disconnected, "connection termination"),
    ] {
        let seen = send([sdk("auth auth", Err(failure))], get("/"));
        let told = seen.response_header("x-call").unwrap();
        assert!(told.starts_with("4 3 503 upstream connect error"), "{told}");
        assert!(told.ends_with(&format!("reset reason: {reason} 0")), "{told}");
    }
}

#[test]
fn call_out_that_returns_from_another_thread_wakes_the_request() {
    let upstream = Upstream { delay: Duration::from_millis(20), ..Upstream::new(Ok((200, "bob"))) };
    let plugin = sdk_on(&Engine::new().unwrap().0, "auth auth", upstream, |_| {}).unwrap();
    let outer = quiet("headers");
    let seen = send([outer.clone(), plugin.clone(), outer], get("/"));
    assert_eq!((seen.status(), all(&seen, "x-call")), (200, vec!["4 2 200 bob 0"]));
    let slow = send([plugin], post(&["body"]));
    assert_eq!((slow.status(), all(&slow, "x-call")), (200, vec!["8 2 200 bob 0"]));
    assert_eq!(slow.request_body.as_deref(), Ok(&b"body"[..]));
}

#[test]
fn body_and_response_wait_for_call_outs_too() {
    for delay in [Duration::ZERO, Duration::from_millis(20)] {
        let host = || Upstream { delay, ..Upstream::new(Ok((200, "ok"))) };
        let plugin = |kind: &str| sdk_on(&Engine::new().unwrap().0, kind, host(), |_| {}).unwrap();
        let seen = send([plugin("body-call auth")], post(&["to be ", "judged"]));
        assert_eq!((seen.status(), seen.request_body.as_deref()), (200, Ok(&b"judged"[..])));
        let seen = send([plugin("response-call auth")], get("/"));
        assert_eq!((seen.text(), seen.response_header("x-call")), ("ok", Some("4 2 200 ok 0")));
    }
}

#[test]
fn answer_that_comes_while_the_backend_works_replaces_its_response() {
    let seen = send([sdk("late-answer auth", Ok((200, "")))], get("/"));
    assert_eq!((seen.status(), seen.text(), seen.response_header("x-late")), (429, "enough", Some("1")));
}

#[test]
fn call_outs_need_an_upstream_and_the_sandboxs_leave() {
    let seen = send([quiet("unknown-upstream")], get("/"));
    assert_eq!(all(&seen, "x-status"), ["Err(BadArgument)"]);
    let denied =
        sdk_on(&Engine::new().unwrap().0, "unknown-upstream", Upstream::new(Ok((200, ""))), |config| {
            config.sandbox.allow_network = false;
        });
    assert_eq!(all(&send([denied.unwrap()], get("/")), "x-status"), ["Err(InternalFailure)"]);
}

#[test]
fn grpc_calls_end_with_a_message_or_a_status() {
    let seen = send([quiet("grpc auth")], get("/"));
    assert_eq!((seen.status(), all(&seen, "x-grpc")), (200, vec!["5 0 ping"]));
    let seen = send([quiet("grpc elsewhere")], get("/"));
    assert_eq!((seen.status(), seen.response_header("x-grpc")), (503, Some("5 13 ")));
    let serialized = send([quiet("grpc \n\u{6}\n\u{4}auth")], get("/"));
    assert_eq!(all(&serialized, "x-grpc"), ["5 0 ping"], "an upstream as the C++ SDK names it");
}

#[test]
fn event_stream_is_filtered_part_by_part_or_event_by_event() {
    let stream = || {
        let parts = ["data: a sec", "ret\n\ndata: se", "cret\n\n"].map(data);
        Response::builder().header("content-type", "text/event-stream").body(frames(parts)).unwrap()
    };
    let by_part = exchange([quiet("sse")], get("/"), stream());
    assert_eq!(by_part.text(), "data: a secret\n\ndata: secret\n\n", "no part has the word");
    let by_event = sdk_on(&Engine::new().unwrap().0, "sse", Upstream::new(Ok((200, ""))), |config| {
        config.stream_framing = StreamFraming::Events;
    });
    let seen = exchange([by_event.unwrap()], get("/"), stream());
    assert_eq!(seen.text(), "data: a ******\n\ndata: ******\n\n");
}

#[test]
fn shared_counter_counts_every_stream_of_every_instance() {
    let engine = Engine::new().unwrap().0;
    let plugin = sdk_on(&engine, "counter", Upstream::new(Ok((200, ""))), |config| {
        config.instances = std::num::NonZeroUsize::new(4);
    })
    .unwrap();
    // A key that is not there has no number to compare with, as in Envoy: of two that begin it, the later
    // wins.
    assert_eq!(all(&send([plugin.clone()], get("/")), "x-count"), ["1"]);
    let largest = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let count = all(&send([plugin.clone()], get("/")), "x-count")[0].parse().unwrap();
                    largest.fetch_max(count, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(largest.into_inner(), 201);
    let module = Module::compile(&engine, &guest(), None).unwrap();
    let edited = PluginConfig::new("probe").with_configuration("counter edited");
    let successor = plugin.successor(&module, edited).unwrap();
    assert_eq!(all(&send([successor], get("/")), "x-count"), ["202"], "a new configuration keeps the data");
    let stranger = sdk_on(&engine, "counter", Upstream::new(Ok((200, ""))), |_| {}).unwrap();
    assert_eq!(all(&send([stranger], get("/")), "x-count"), ["1"], "another plugin has none of it");
}

#[test]
fn metrics_have_ids_and_values_as_in_envoy() {
    let plugin = quiet("metrics");
    assert_eq!(all(&send([plugin.clone()], get("/")), "x-ids"), ["4 5 6 true"]);
    assert_eq!(
        all(&send([plugin.clone()], get("/")), "x-ids"),
        ["8 9 10 true"],
        "each definition has its own id"
    );
    assert_eq!(
        counts(&plugin),
        [("requests".to_owned(), 4), ("level".to_owned(), 5), ("sizes".to_owned(), 200)]
    );
}

#[test]
fn queue_wakes_the_guest_that_registered_it() {
    let plugin = quiet("queue");
    for _ in 0..3 {
        assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    }
    assert_eq!(counts(&plugin), [("job".to_owned(), 3)]);
}

#[test]
fn ticks_reach_the_root_context() {
    let engine = Engine::new().unwrap().0;
    let plugin = sdk_on(&engine, "ticks", Upstream::new(Ok((200, ""))), |_| {}).unwrap();
    for _ in 0..30 {
        engine.tick();
        engine.maintain();
    }
    assert_eq!(counts(&plugin), [("ticks".to_owned(), 3)]);
}

#[test]
fn grpc_stream_of_the_root_context_hears_messages_and_its_end() {
    let plugin = quiet("grpc-stream auth");
    assert_eq!(counts(&plugin), [("message of 5".to_owned(), 1)]);
}

#[test]
fn properties_are_those_of_the_exchange_and_what_guests_leave() {
    let paths = "request.path request.method request.host request.url_path request.query request.headers.x-one \
                 request.nothing plugin_name listener_direction left left.behind connection.mtls request.size";
    let plugin = quiet(&format!("properties {paths}"));
    let seen = send(
        [plugin.clone(), plugin],
        Request::get("/a?b=c")
            .header("host", "h")
            .header("x-one", "1")
            .header("content-length", "5")
            .body(frames([data("hello")]))
            .unwrap(),
    );
    let found = all(&seen, "x-property");
    let (first, second) = found.split_at(found.len() / 2);
    assert_eq!(
        first,
        [
            "request.path=/a?b=c",
            "request.method=GET",
            "request.host=h",
            "request.url_path=/a",
            "request.query=b=c",
            "request.headers.x-one=1",
            "request.nothing=none",
            "plugin_name=probe",
            r"listener_direction=\x00\x00\x00\x00\x00\x00\x00\x00",
            "left=none",
            "left.behind=none",
            r"connection.mtls=\x00",
            r"request.size=\x05\x00\x00\x00\x00\x00\x00\x00",
        ]
    );
    assert_eq!(second[9..11], ["left=behind", "left.behind=none"]);
}

#[test]
fn log_callback_reads_both_messages() {
    let plugin = quiet("log");
    assert_eq!(send([plugin.clone()], get("/logged")).status(), 200);
    assert_eq!(plugin.status().metrics[0].name, "/logged 200 via_upstream");
}

#[test]
fn foreign_functions_are_the_hosts() {
    let seen = send([quiet("foreign")], get("/"));
    let expected = format!("Ok(Some({:?}))", b"ARGUMENT");
    assert_eq!(
        (all(&seen, "x-foreign"), all(&seen, "x-unknown")),
        (vec![expected.as_str()], vec!["Err(NotFound)"])
    );
}

#[test]
fn panic_and_refusal_of_a_guest_are_failures() {
    let plugin = quiet("panic");
    let seen = send([plugin.clone()], get("/"));
    assert_eq!((seen.status(), seen.text(), plugin.status().traps.trap), (503, "", 1));
    assert!(sdk_on(&Engine::new().unwrap().0, "refuse", Upstream::new(Ok((200, ""))), |_| {}).is_err());
}

#[test]
fn stream_that_the_guest_closes_is_reset_under_either_policy() {
    for policy in [FailurePolicy::FailClosed, FailurePolicy::FailOpen] {
        let host = Upstream::new(Err(CallFailure::Reset));
        let change = |config: &mut PluginConfig| config.failure_policy = policy;
        let plugin = sdk_on(&Engine::new().unwrap().0, "close", host, change).unwrap();
        let seen = send([plugin.clone()], get("/"));
        assert!(seen.request.is_none(), "upstream is not asked");
        assert_eq!(seen.response_header("content-length"), None, "a server must not find it complete");
        assert_eq!(seen.body.unwrap_err(), "plugin probe failed in request headers");
        assert_eq!(plugin.status().last_failure.unwrap().cause, Cause::Closed);
    }
}

/// Keeps what calls are to be answered with.
#[derive(Default)]
struct Silence(Mutex<Vec<HttpReply>>);

impl Host for Silence {
    fn http_call(&self, _: &str, _: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        self.0.lock().unwrap().push(reply);
        Ok(())
    }
}

#[test]
fn answer_of_a_call_out_waits_while_another_guest_has_the_stream() {
    let engine = Engine::new().unwrap().0;
    let module = Module::compile(&engine, &guest(), None).unwrap();
    let mut config = PluginConfig::new("probe");
    config.configuration = Bytes::from_static(b"late-answer auth");
    config.instances = std::num::NonZeroUsize::new(1);
    config.sandbox.allow_network = true;
    let host = Arc::new(Silence::default());
    let asking = Plugin::with_host(&module, config, Arc::clone(&host)).unwrap();
    let slow = plugin_of(&engine, &support::guest("slow"), |_| {}).unwrap();

    let mut stream = StreamContext::new([asking, slow].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    let subscriber = ticks_with_logs(engine.clone(), 2);
    tracing::subscriber::with_default(subscriber, || {
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Pending));
    });
    // The first guest has asked and let the request go; the second one stands still with the exchange in its
    // hands.
    let reply = host.0.lock().unwrap().pop().unwrap();
    reply_with(Ok((200, "known")), reply);
    let mut context = Context::from_waker(Waker::noop());
    while stream.poll_request(&mut context).is_pending() {}
    let Action::Respond(answer) = stream.on_request_headers(&mut parts, true) else {
        panic!("the answer is lost")
    };
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (429, &b"enough"[..]));
}

#[test]
fn call_out_that_never_returns_is_ended_with_the_pause() {
    let engine = Engine::new().unwrap().0;
    let module = Module::compile(&engine, &guest(), None).unwrap();
    let mut config = PluginConfig::new("probe");
    config.configuration = Bytes::from_static(b"auth auth");
    config.sandbox.allow_network = true;
    config.sandbox.max_pause = Duration::from_millis(10);
    let plugin = Plugin::with_host(&module, config, Silence::default()).unwrap();
    let _ticking = Ticking::with_upkeep(&engine);
    assert_eq!(send([plugin], get("/")).status(), 503, "after the five seconds of the call");
}
