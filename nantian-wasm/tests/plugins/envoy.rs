//! What stock Envoy (1.40, V8) was seen to do with a guest that tells all it is told, where no other test
//! says it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::BodyExt as _;
use nantian_wasm::{
    Action, ClientCertificate, Digest, Engine, FailurePolicy, Hooks, Plugin, PluginConfig, StreamContext,
    StreamInfo, UpstreamAddress, WasmLayer, body::RequestBody,
};
use proptest::prelude::*;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{
    Frames, Logged, Seen, built, configured, data, exchange, frames, get, plugin, plugin_of, send,
};

fn sdk(configuration: &str) -> Plugin {
    let configuration = Bytes::copy_from_slice(configuration.as_bytes());
    let change = |config: &mut PluginConfig| config.configuration = configuration;
    plugin_of(&Engine::new().unwrap().0, &built("sdk_guest"), change).unwrap()
}

fn of_text(text: &str) -> Plugin {
    plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |_| {}).unwrap()
}

fn metric(plugin: &Plugin, name: &str) -> u64 {
    plugin.status().metrics.iter().find(|metric| metric.name == name).unwrap().value
}

fn all<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let headers = &seen.request.as_ref().unwrap().headers;
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

/// Reads one frame of each message and no more, as those do who know how long a body is.
fn read_no_further(plugin: &Plugin, version: Version, body: fn() -> Frames) {
    let inner = service_fn(async |request: Request<RequestBody<Frames>>| {
        let first = request.into_body().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "hello");
        let response = Response::builder().version(version).body(body());
        Ok::<_, std::convert::Infallible>(response.unwrap())
    });
    let service = WasmLayer::new([plugin.clone()]).layer(inner);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let request = Request::post("/").version(version);
    runtime.block_on(async {
        let response = service.oneshot(request.body(body()).unwrap()).await.unwrap();
        let first = response.into_body().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "hello");
    });
}

#[test]
fn end_of_a_body_that_says_so_is_shown_though_nobody_asks_for_it() {
    let ends = |version, body| {
        let plugin = configured("body", b"u");
        read_no_further(&plugin, version, body);
        ["request-parts", "request-ends", "response-parts", "response-ends"].map(|name| metric(&plugin, name))
    };
    let of_http1 = ends(Version::HTTP_11, || frames([data("hello")]));
    assert_eq!(of_http1, [2, 1, 2, 1], "the end in a callback of its own");
    let of_http2 = ends(Version::HTTP_2, || frames([data("hello")]));
    assert_eq!(of_http2, [1, 1, 1, 1], "the frame says that it is the last one");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let coy = ends(version, || frames([data("hello")]).coy());
        assert_eq!(coy, [1, 0, 1, 0], "nobody knows that it was the last part");
    }
}

#[test]
fn answer_of_a_plugin_has_its_length_whoever_looks_at_its_body() {
    let seen = send([configured("body", b"u"), plugin("add_header", |_| {})], get("/wasm-teapot"));
    assert_eq!((seen.status(), seen.text()), (418, "short and stout\n"));
    assert_eq!(seen.response_header("content-length"), Some("16"));
    let longer = send([configured("body", b"A"), plugin("add_header", |_| {})], get("/wasm-teapot"));
    assert_eq!((longer.text(), longer.response_header("content-length")), ("short and stout\n!", Some("17")));
}

#[test]
fn answer_without_a_body_says_nothing_of_one() {
    let guest = r#"(module
        (import "env" "proxy_send_local_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "\02\00\00\00\0c\00\00\00\09\00\00\00\03\00\00\00\01\00\00\00content-type\00text/html\00x-a\001\00")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $answer (i32.const 401) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 100) (i32.const 49) (i32.const -1)))
            (i32.const 1)))"#;
    let seen = send([of_text(guest)], get("/"));
    assert_eq!((seen.status(), seen.response_header("x-a")), (401, Some("1")));
    assert_eq!((seen.response_header("content-type"), seen.response_header("content-length")), (None, None));
}

#[test]
fn values_of_some_headers_are_one_for_guests_and_for_whom_they_guard() {
    let request = Request::get("/")
        .header("host", "h")
        .header("accept", "a")
        .header("x-two", "1")
        .header("authorization", "good")
        .header("accept", "b")
        .header("x-two", "2")
        .header("authorization", "bad")
        .body(frames([]))
        .unwrap();
    let seen = send([sdk("pseudo authorization x-two :PATH HOST")], request);
    assert_eq!(all(&seen, "x-seen"), ["authorization=good,bad", "x-two=1", ":PATH=/", "HOST=h"]);
    assert_eq!((all(&seen, "accept"), all(&seen, "authorization")), (vec!["a,b"], vec!["good,bad"]));
    assert_eq!(all(&seen, "x-two"), ["1", "2"]);
    let properties = Request::get("/").header("x-two", "1").header("x-two", "2").body(frames([])).unwrap();
    let seen = send([sdk("properties request.headers.x-two request.headers.X-TWO")], properties);
    assert_eq!(all(&seen, "x-property"), ["request.headers.x-two=1,2", "request.headers.X-TWO=1,2"]);
}

#[test]
fn map_of_headers_as_a_property_has_one_entry_for_a_name_and_is_empty_before_there_is_one() {
    let request = Request::get("/").header("host", "a").header("x-two", "1").header("x-two", "2");
    let seen = send([sdk("properties request.headers response.headers")], request.body(frames([])).unwrap());
    let [request, response] = all(&seen, "x-property")[..] else { panic!("{seen:?}") };
    assert!(request.starts_with(r"request.headers=\x05\x00\x00\x00"), "{request}");
    assert!(request.ends_with(r"x-two\x001,2\x00"), "{request}");
    assert_eq!(response, r"response.headers=\x00\x00\x00\x00");
}

#[test]
fn scheme_that_a_guest_has_set_is_the_one_it_sees() {
    let seen = send([sdk("pseudo :scheme !:scheme :scheme")], get("/"));
    assert_eq!(all(&seen, "x-seen"), [":scheme=http", "!:scheme", ":scheme=https"]);
    assert_eq!(seen.request.as_ref().unwrap().uri, "/");
}

#[test]
fn response_has_properties_before_it_is_there_and_some_that_it_does_not_tell() {
    let paths = "response.flags response.size response.total_size response.trailers response.code \
                 response.grpc_status";
    let zero = r"\x00".repeat(8);
    let seen = send([sdk(&format!("properties {paths}"))], get("/"));
    assert_eq!(
        all(&seen, "x-property"),
        [
            format!("response.flags={zero}"),
            format!("response.size={zero}"),
            format!("response.total_size={zero}"),
            r"response.trailers=\x00\x00\x00\x00".to_owned(),
            "response.code=none".to_owned(),
            "response.grpc_status=none".to_owned(),
        ]
    );
    let response = Response::builder().header("content-type", "text/plain").body(frames([data("ok")]));
    let seen = exchange(
        [sdk("response-properties response.total_size response.grpc_status response.headers.content-type")],
        get("/"),
        response.unwrap(),
    );
    let found: Vec<_> = seen.response.headers().get_all("x-property").iter().collect();
    assert_eq!(
        found,
        [
            // `:status` and its value count as well: 10 bytes beside 22.
            r"response.total_size= \x00\x00\x00\x00\x00\x00\x00",
            r"response.grpc_status=\x02\x00\x00\x00\x00\x00\x00\x00",
            "response.headers.content-type=text/plain",
        ]
    );
}

#[test]
fn properties_of_the_connection_and_of_upstream_are_what_the_embedder_says() {
    let paths = "connection.id connection_id upstream.address upstream.port source.port upstream.nothing";
    let plugin = sdk(&format!("properties {paths}"));
    let told = UpstreamAddress::default();
    let info = StreamInfo::default().with_connection_id(7).with_source(([10, 0, 0, 1], 80).into());
    let info = info.with_upstream(told.clone());
    let ask = || {
        let mut request = get("/");
        request.extensions_mut().insert(info.clone());
        send([plugin.clone()], request)
    };
    let number = |low: &str| format!("{low}{}", r"\x00".repeat(7));
    let known = |seen: &Seen| all(seen, "x-property").iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let mut expected = vec![
        format!("connection.id={}", number(r"\x07")),
        format!("connection_id={}", number(r"\x07")),
        "upstream.address=none".to_owned(),
        "upstream.port=none".to_owned(),
        format!("source.port={}", number("P")),
        "upstream.nothing=none".to_owned(),
    ];
    assert_eq!(known(&ask()), expected);
    told.set(([10, 0, 0, 2], 81).into());
    expected[2] = "upstream.address=10.0.0.2:81".to_owned();
    expected[3] = format!("upstream.port={}", number("Q"));
    assert_eq!(known(&ask()), expected);
}

#[test]
fn properties_of_a_client_are_what_the_embedder_says_of_its_certificate() {
    let names =
        ["mtls", "sha256_peer_certificate_digest", "uri_san_peer_certificate", "dns_san_peer_certificate"];
    let paths = names.map(|name| format!("connection.{name}")).join(" ");
    let plugin = sdk(&format!("properties {paths}"));
    let known = |info: StreamInfo| {
        let mut request = get("/");
        request.extensions_mut().insert(info);
        let seen = send([plugin.clone()], request);
        let told =
            all(&seen, "x-property").into_iter().map(|text| text.split_once('=').unwrap().1.to_owned());
        told.collect::<Vec<_>>()
    };
    let info = StreamInfo::default().with_tls(true).with_server_name("a.example").with_tls_version("TLSv1.3");
    assert_eq!(known(info.clone()), [r"\x00", "none", "none", "none"]);
    let digest = Digest::of(b"der");
    let certificate = ClientCertificate::new(digest).with_uri("spiffe://a/b");
    let told = [r"\x01", &digest.to_string(), "spiffe://a/b", "none"];
    assert_eq!(known(info.clone().with_client_certificate(certificate.clone())), told);
    let told = [r"\x01", &digest.to_string(), "spiffe://a/b", "b.example"];
    assert_eq!(known(info.with_client_certificate(certificate.with_dns("b.example"))), told);
}

#[test]
fn buffer_that_is_not_there_is_not_found_and_one_that_can_only_be_read_is_refused() {
    let guest = r#"(module
        (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func $note (param $kind i32)
            (i32.store8 (i32.add (i32.const 100) (local.get $kind))
                (call $set (local.get $kind) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $kind i32)
            (loop $more
                (call $note (local.get $kind))
                (local.set $kind (i32.add (local.get $kind) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $kind) (i32.const 10))))
            (drop (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 10)
                (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 0)))"#;
    assert_eq!(send([of_text(guest)], get("/")).body.unwrap(), [2, 2, 2, 2, 1, 2, 2, 1, 2, 2]);
}

#[test]
fn trailers_can_be_added_when_a_body_ends_and_are_those_of_the_message() {
    let adds = plugin("trailers", |_| {});
    let seen = send([adds.clone()], get("/"));
    assert_eq!(seen.trailers.unwrap()["x-added"], "1");
    assert_eq!(metric(&adds, "status"), 0);
    let seen = send([plugin("trailers", |_| {}), adds], get("/"));
    let trailers = seen.trailers.unwrap();
    assert_eq!(
        (&trailers["x-added"], &trailers["x-seen"], trailers.len()),
        (&"1".parse().unwrap(), &"1".parse().unwrap(), 2)
    );

    let mut stream = StreamContext::new([plugin("trailers", |_| {})].into(), StreamInfo::default());
    let (mut parts, ()) = Request::post("/").body(()).unwrap().into_parts();
    assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
    let mut chunk = Bytes::from_static(b"part");
    assert!(matches!(stream.on_request_body(&mut chunk, false), Action::Continue));
    assert!(stream.take_request_trailers().is_none(), "nothing is added before the end");
    assert!(matches!(stream.on_request_body(&mut Bytes::new(), true), Action::Continue));
    assert_eq!(stream.take_request_trailers().unwrap()["x-added"], "1");
}

#[test]
fn trailers_that_a_plugin_adds_and_then_fails_open_are_taken_back() {
    let guest = r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "x-a")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
            (drop (call $add (i32.const 3) (i32.const 16) (i32.const 3) (i32.const 16) (i32.const 3)))
            (if (local.get 2) (then unreachable))
            (i32.const 0)))"#;
    let open = |config: &mut PluginConfig| config.failure_policy = FailurePolicy::FailOpen;
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(guest).unwrap(), open).unwrap();
    let seen = send([plugin], get("/"));
    assert_eq!((seen.text(), &seen.trailers), ("ok", &None));
}

#[test]
fn several_plugins_log_a_stream_before_the_first_of_them_forgets_it() {
    let named = |name: &str| plugin("trailers", |config| config.name = name.to_owned());
    let plugins = ["a", "b", "c"].map(named);
    let ends = |plugins: Vec<Plugin>| Logged::during(|| drop(send(plugins, get("/"))));
    assert_eq!(
        ends(plugins.to_vec()),
        [
            "a: log",
            "b: log",
            "c: log",
            "a: done",
            "a: delete",
            "b: done",
            "b: delete",
            "c: done",
            "c: delete"
        ]
    );
    assert_eq!(ends(vec![named("one")]), ["one: log", "one: done", "one: delete"]);
}

#[test]
fn stream_of_events_is_known_by_what_its_client_asks_for() {
    let parts = |accept: &str, length: Option<&str>| {
        let chunks = plugin("body", |config| {
            config.configuration = Bytes::from_static(b"u");
            config.hooks = Hooks::NONE.with_on_stream_chunk(true);
        });
        let mut response = Response::builder();
        if let Some(length) = length {
            response = response.header("content-length", length);
        }
        let request = Request::get("/").header("accept", accept).body(frames([])).unwrap();
        exchange([chunks.clone()], request, response.body(frames([data("ok")])).unwrap());
        metric(&chunks, "response-parts")
    };
    assert_eq!(parts("text/html, Text/Event-Stream;q=0.5", None), 2);
    assert_eq!((parts("text/event-stream", Some("2")), parts("*/*", None)), (0, 0));
}

#[test]
fn client_that_asks_for_events_hides_no_body_from_those_who_look_at_responses() {
    for on_stream_chunk in [false, true] {
        let looks = plugin("body", |config| {
            config.configuration = Bytes::from_static(b"a");
            config.hooks = Hooks::ALL.with_on_stream_chunk(on_stream_chunk);
        });
        let request = Request::get("/").header("accept", "application/json, text/event-stream");
        let response = Response::builder().header("content-type", "application/json");
        let seen = exchange(
            [looks],
            request.body(frames([])).unwrap(),
            response.body(frames([data("ok")])).unwrap(),
        );
        assert_eq!(seen.text(), "ok!!");
    }
}

#[test]
fn failed_stream_of_a_grpc_client_has_a_status_that_it_knows() {
    let guest = r#"(module
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#;
    let request =
        Request::post("/a.B/C").header("content-type", "application/grpc").body(frames([])).unwrap();
    let seen = send([of_text(guest)], request);
    assert_eq!((seen.status(), seen.response_header("content-type")), (200, Some("application/grpc")));
    assert_eq!(
        (seen.response_header("grpc-status"), seen.response_header("grpc-message")),
        (Some("14"), None)
    );
}

#[test]
fn client_with_many_headers_does_not_use_up_what_a_guest_may_add() {
    let mut request = get("/");
    for number in 0..1_500 {
        request.headers_mut().append("x-many", number.into());
        request
            .headers_mut()
            .insert(http::HeaderName::try_from(format!("x-{number}")).unwrap(), number.into());
    }
    let adds = plugin("add_header", |_| {});
    let seen = send([adds.clone()], request);
    assert_eq!((seen.status(), seen.request_header("x-wasm-plugin")), (200, Some("probe")));
    assert_eq!(adds.status().traps.total(), 0);
}

/// Reads all headers and writes them back, of both messages.
const BACK: &str = r#"(module
    (import "env" "proxy_get_header_map_pairs" (func $get (param i32 i32 i32) (result i32)))
    (import "env" "proxy_set_header_map_pairs" (func $set (param i32 i32 i32) (result i32)))
    (memory (export "memory") 32)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $back (param $map i32) (result i32)
        (drop (call $get (local.get $map) (i32.const 0) (i32.const 4)))
        (drop (call $set (local.get $map) (i32.const 1024) (i32.load (i32.const 4))))
        (i32.const 0))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $back (i32.const 0)))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $back (i32.const 2))))"#;

#[test]
fn guest_that_writes_all_headers_back_loses_none_of_them() {
    let mut request = get("/");
    for _ in 0..2_000 {
        request.headers_mut().append("x-many", "and a value that is as long as forty chars".parse().unwrap());
    }
    let back = of_text(BACK);
    let seen = send([back.clone(), back.clone()], request);
    assert_eq!((seen.status(), all(&seen, "x-many").len(), back.status().traps.total()), (200, 2_000, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_that_are_no_text_pass_guests_unchanged(
        values in prop::collection::vec(prop::collection::vec(160_u8..=255, 0..6), 1..6),
    ) {
        let (mut request, mut response) = (get("/"), Response::new(frames([])));
        for value in &values {
            request.headers_mut().append("x-bytes", HeaderValue::from_bytes(value).unwrap());
            response.headers_mut().append("x-bytes", HeaderValue::from_bytes(value).unwrap());
        }
        let seen = exchange([of_text(BACK)], request, response);
        for headers in [&seen.request.as_ref().unwrap().headers, seen.response.headers()] {
            prop_assert!(headers.get_all("x-bytes").iter().map(HeaderValue::as_bytes).eq(&values));
        }
    }
}

#[test]
fn clocks_are_those_of_wall_time_and_of_a_time_that_never_goes_back() {
    let guest = r#"(module
        (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            ;; 18 September 2020
            (if (i32.or (call $time (i32.const 0) (i64.const 0) (i32.const 0))
                    (i64.lt_u (i64.load (i32.const 0)) (i64.const 1600387200000000000))) (then unreachable))
            (if (i32.or (call $time (i32.const 1) (i64.const 0) (i32.const 0))
                    (i64.eqz (i64.load (i32.const 0)))) (then unreachable))
            (if (i32.or (call $time (i32.const 1) (i64.const 0) (i32.const 8))
                    (i64.lt_u (i64.load (i32.const 8)) (i64.load (i32.const 0)))) (then unreachable))
            (drop (call $respond (i32.add (i32.const 500) (call $time (i32.const 2) (i64.const 0) (i32.const 0)))
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 1)))"#;
    assert_eq!(send([of_text(guest)], get("/")).status(), 558, "no other clock");
}

/// A guest that knows the size of a message in the end, and is shown no body.
fn sizing(message: &str) -> Plugin {
    let text = r#"(module
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "MESSAGE\00size")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.eqz (call $define (i32.const 1) (i32.const {SIZE}) (i32.const 4) (i32.const 8))))
        (func (export "proxy_on_log") (param i32)
            (drop (call $get (i32.const 16) (i32.const {LENGTH}) (i32.const 0) (i32.const 4)))
            (drop (call $record (i32.load (i32.const 8)) (i64.load (i32.const 1024))))))"#;
    let text = text.replace("MESSAGE", message).replace("{SIZE}", &(17 + message.len()).to_string());
    of_text(&text.replace("{LENGTH}", &(message.len() + 5).to_string()))
}

#[test]
fn log_knows_the_size_of_a_request_that_says_nothing_of_it() {
    let logs = sizing("request");
    let request =
        Request::post("/").header("host", "a").body(frames([data("four"), data("seven !")])).unwrap();
    let seen = exchange([logs.clone()], request, Response::new(frames([data("ok")])));
    assert_eq!((seen.request_body.unwrap(), metric(&logs, "size")), (b"fourseven !".to_vec(), 11));
}

#[test]
fn log_knows_the_size_of_a_response_as_it_was_sent() {
    let logs = sizing("response");
    let response = Response::new(frames([data("four"), data("seven !")]));
    assert_eq!(exchange([logs.clone()], get("/"), response).text(), "fourseven !");
    assert_eq!(metric(&logs, "size"), 11);
    assert_eq!(send([logs.clone(), configured("resize", b"pkshorter")], get("/")).text(), "shorter");
    assert_eq!(metric(&logs, "size"), 7, "what has left");
}

/// A guest that logs a digit for the status of asking for a property, and its value behind it, in the
/// callbacks `FIRST` and `proxy_on_log`; it does `ACT` between them.
fn asking_for(path: &str, first: &str, act: &str) -> Plugin {
    let text = r#"(module
        (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "PATH")
        (data (i32.const 128) "too late")
        (data (i32.const 160) ":path")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1025))
        (func $tell (local $status i32)
            (i32.store (i32.const 4) (i32.const 0))
            (local.set $status (call $property (i32.const 64) (i32.const LENGTH) (i32.const 0) (i32.const 4)))
            (i32.store8 (i32.const 1024) (i32.add (i32.const 48) (local.get $status)))
            (drop (call $log (i32.const 2) (i32.const 1024) (i32.add (i32.const 1) (i32.load (i32.const 4))))))
        (func (export "FIRST") (param i32 i32 i32) (result i32) (call $tell) ACT (i32.const 0))
        (func (export "proxy_on_log") (param i32) (call $tell)))"#;
    let length = path.replace(r"\00", "0").len().to_string();
    of_text(
        &text.replace("PATH", path).replace("LENGTH", &length).replace("FIRST", first).replace("ACT", act),
    )
}

/// What such a guest has logged of one exchange.
fn told_of(path: &str, first: &str, act: &str) -> Vec<String> {
    let plugin = asking_for(path, first, act);
    let lines = Logged::during(|| drop(send([plugin], get("/"))));
    lines.into_iter().map(|line| line.trim_start_matches("probe: ").to_owned()).collect()
}

#[test]
fn request_has_no_duration_before_it_is_over() {
    let told = told_of(r"request\00duration", "proxy_on_response_headers", "");
    let statuses: Vec<_> = told.iter().map(|line| &line[..1]).collect();
    assert_eq!(statuses, ["1", "0"], "not found, and eight bytes: {told:?}");
    assert!(told[0].len() == 1 && told[1].chars().count() > 1, "{told:?}");
}

#[test]
fn bytes_of_headers_are_none_where_there_are_none_yet() {
    let seen = send([sdk("properties request.headers_bytes response.headers_bytes")], get("/"));
    let [request, response] = all(&seen, "x-property")[..] else { panic!("{seen:?}") };
    assert_eq!(
        request, r"request.headers_bytes=0\x00\x00\x00\x00\x00\x00\x00",
        "48 of pseudo headers: a digit"
    );
    assert_eq!(response, format!("response.headers_bytes={}", r"\x00".repeat(8)));
}

#[test]
fn details_of_a_stream_that_a_guest_ends_are_those_that_are_there() {
    let path = r"response\00code_details";
    let late = "(drop (call $answer (i32.const 403) (i32.const 128) (i32.const 8) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const -1)))";
    for (first, act, details) in [
        ("proxy_on_request_headers", "(drop (call $close (i32.const 0)))", "0wasm_close_stream"),
        ("proxy_on_response_headers", "(drop (call $close (i32.const 1)))", "0via_upstream"),
        ("proxy_on_response_body", "(drop (call $close (i32.const 1)))", "0via_upstream"),
        ("proxy_on_response_body", late, "0too_late"),
    ] {
        assert_eq!(told_of(path, first, act).last().map(String::as_str), Some(details), "{first} {act}");
    }
}

#[test]
fn parts_of_a_path_are_those_that_it_has_now() {
    let removes = "(drop (call $remove (i32.const 0) (i32.const 160) (i32.const 5)))";
    let told = |path| told_of(path, "proxy_on_request_headers", removes);
    assert_eq!(told(r"request\00url_path"), ["0/", "0"]);
    assert_eq!(told(r"request\00query"), ["0", "0"]);
}

#[test]
fn groups_of_properties_are_no_values_and_a_root_context_has_few() {
    let told = |path| told_of(path, "proxy_on_request_headers", "").remove(0);
    let statuses = ["filter_state", "upstream_filter_state", "xds", r"xds\00filter_chain_name"].map(told);
    assert_eq!(statuses, ["3", "1", "3", "0"], "there is no backend yet");
    let root = r#"(module
        (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "metadata")
        (data (i32.const 80) "xds")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.and
                (i32.eq (call $property (i32.const 64) (i32.const 8) (i32.const 0) (i32.const 4)) (i32.const 1))
                (i32.eq (call $property (i32.const 80) (i32.const 3) (i32.const 0) (i32.const 4))
                    (i32.const 3)))))"#;
    of_text(root);
}

#[test]
fn trailers_can_be_added_while_the_end_of_a_body_is_held_and_not_once_it_is_continued() {
    let add = "(call $add (i32.const 1) (i32.const 16) (i32.const 7) (i32.const 16) (i32.const 7))";
    let is_refused = format!("(if (i32.ne {add} (i32.const 2)) (then unreachable))");
    let added = added_to_a_held_body(&format!("(drop {add}) (drop (call $continue (i32.const 0)))"));
    assert_eq!(added.unwrap()["x-added"], "x-added");
    // Whichever way is continued.
    for way in [0, 1] {
        let continued = format!("(drop (call $continue (i32.const {way})))");
        let added =
            added_to_a_held_body(&format!("{continued} {is_refused} (drop (call $continue (i32.const 0)))"));
        assert_eq!(added, None, "{way}");
    }
}

/// The trailers of a request whose guest holds the end of its body, and does this as it ticks.
fn added_to_a_held_body(does: &str) -> Option<HeaderMap> {
    let guest = format!(
        r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_size" (func $size (param i32 i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "x-added")
        (global $held (mut i32) (i32.const 0))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.eqz (call $period (i32.const 10))))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (global.set $held (local.get 0))
            (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (if (i32.eqz (global.get $held)) (then (return)))
            (drop (call $become (global.get $held)))
            (i32.store (i32.const 8) (i32.const 7))
            (if (i32.or (call $size (i32.const 1) (i32.const 8)) (i32.load (i32.const 8))) (then unreachable))
            {does}
            (global.set $held (i32.const 0))))"#
    );
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(guest).unwrap(), |_| {}).unwrap();
    let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
    let mut parts = Request::post("/").body(()).unwrap().into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
    let mut chunk = Bytes::from_static(b"part");
    assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Pending));
    (0..20).for_each(|_| engine.tick());
    engine.maintain();
    assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Continue));
    assert_eq!(chunk, "part");
    stream.take_request_trailers()
}

#[test]
fn what_a_guest_prints_is_logged_without_its_last_line_break_and_nothing_is_logged_of_nothing() {
    let guest = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "printed  \n")
        (func (export "proxy_abi_version_0_2_1"))
        (func $print (param i32)
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (local.get 0))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $print (i32.const 0))
            (call $print (i32.const 10))
            (drop (call $log (i32.const 2) (i32.const 16) (i32.const 8)))
            (i32.const 0)))"#;
    let lines = Logged::during(|| drop(send([of_text(guest)], get("/"))));
    assert_eq!(lines, ["probe: printed  ", "probe: printed "]);
}
