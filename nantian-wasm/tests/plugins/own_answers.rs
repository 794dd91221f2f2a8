//! What plugins see of responses that the embedder makes, and of those that do not come whole.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use nantian_wasm::{
    Engine, Plugin, WasmLayer,
    body::{RequestBody, ResponseBody},
    respond::{LocalReply, ReplacedExtensions},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Frames, built, configured, frames, plugin, plugin_of};

fn sdk(configuration: &'static str) -> Plugin {
    let change = |config: &mut nantian_wasm::PluginConfig| config.configuration = configuration.into();
    plugin_of(&Engine::new().unwrap().0, &built("sdk_guest"), change).unwrap()
}

/// What these plugins make of this response to `GET /`.
fn past<B>(plugins: &[Plugin], response: impl Fn() -> Response<B>) -> Response<ResponseBody<B>>
where
    B: http_body::Body<Data = Bytes, Error: Into<nantian_wasm::BoxError>>,
{
    let inner =
        service_fn(|_: Request<RequestBody<Frames>>| std::future::ready(Ok::<_, Infallible>(response())));
    let service = WasmLayer::new(plugins.to_vec()).layer(inner);
    service.oneshot(Request::new(frames([]))).now_or_never().unwrap().unwrap()
}

fn own(reply: LocalReply) -> impl Fn() -> Response<Full<Bytes>> {
    move || {
        let mut response = Response::new(Full::from("no endpoint"));
        response.extensions_mut().insert(reply.clone());
        response
    }
}

fn counts(plugin: &Plugin) -> [u64; 2] {
    let metrics = plugin.status().metrics;
    ["response-parts", "response-ends"]
        .map(|name| metrics.iter().find(|metric| metric.name == name).unwrap().value)
}

#[test]
fn answer_of_the_embedder_is_a_whole_and_says_why_it_is() {
    let tells =
        sdk("response-properties response.code_details response.flags response.headers.content-length");
    let looks = configured("body", b"u");
    let response = past(&[looks.clone(), tells], own(LocalReply::new("no_healthy_upstream", 2)));
    let told: Vec<_> = response.headers().get_all("x-property").iter().collect();
    assert_eq!(
        told,
        [
            "response.code_details=no_healthy_upstream",
            r"response.flags=\x02\x00\x00\x00\x00\x00\x00\x00",
            "response.headers.content-length=11",
        ]
    );
    assert_eq!((&response.headers()["content-length"], counts(&looks)), (&"11".parse().unwrap(), [1, 1]));
    let body = response.into_body().collect().now_or_never().unwrap().unwrap();
    assert_eq!(body.to_bytes(), "no endpoint");
}

/// Refuses each request.
const REFUSES: &str = r#"(module
    (import "env" "proxy_send_local_response" (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "too late today")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $respond (i32.const 403) (i32.const 100) (i32.const 8) (i32.const 109) (i32.const 5)
            (i32.const 0) (i32.const 0) (i32.const -1)))
        (i32.const 1)))"#;

/// The response that plugins of an outer layer see in the place of what this guest in an inner one prevents.
fn seen_outside(guest: &str, outer: [Plugin; 2]) -> Response<ResponseBody<ResponseBody<Full<Bytes>>>> {
    let refuses = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(guest).unwrap(), |_| {}).unwrap();
    let inner = service_fn(|_: Request<RequestBody<RequestBody<Frames>>>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    });
    let service = WasmLayer::new(outer).layer(WasmLayer::new([refuses]).layer(inner));
    service.oneshot(Request::new(frames([]))).now_or_never().unwrap().unwrap()
}

#[test]
fn failure_of_a_plugin_says_to_those_of_an_outer_layer_what_it_is() {
    let (tells, looks) = (sdk("response-properties response.code_details"), configured("body", b"u"));
    let traps = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#;
    let response = seen_outside(traps, [looks, tells]);
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["x-property"], "response.code_details=wasm_fail_stream");
}

#[test]
fn answer_of_a_plugin_is_a_whole_for_those_of_an_outer_layer_and_says_why_it_is() {
    let (tells, looks) = (sdk("response-properties response.code_details"), configured("body", b"u"));
    let response = seen_outside(REFUSES, [looks.clone(), tells]);
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["x-property"], "response.code_details=too_late");
    assert_eq!(counts(&looks), [1, 1]);
    let body = response.into_body().collect().now_or_never().unwrap().unwrap();
    assert_eq!(body.to_bytes(), "today");
}

#[test]
fn what_is_sent_in_the_place_of_a_response_has_the_extensions_of_the_first_one() {
    let at_headers = REFUSES.replace("request_headers", "response_headers");
    let holds =
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 1))"#;
    let at_body = REFUSES.replace("request_headers", "response_body").replace("_0_2_1", "_0_2_100");
    let at_body = at_body.replace("(data", &format!("{holds} (data"));
    for guest in [at_headers, at_body] {
        let refuses = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(guest).unwrap(), |_| {}).unwrap();
        let first = past(std::slice::from_ref(&refuses), || {
            let mut response = Response::new(Full::from("some"));
            response.extensions_mut().insert("of the first");
            response
        });
        let first = std::sync::Mutex::new(Some(first));
        let second = past(&[refuses], || {
            let mut first = first.lock().unwrap().take().unwrap();
            first.extensions_mut().insert("of the second");
            first
        });
        assert_eq!(second.status(), 403);
        let ReplacedExtensions(replaced) = second.extensions().get().unwrap();
        assert_eq!(replaced.get(), Some(&"of the first"));
    }
}

#[test]
fn answer_that_nobody_gets_is_shown_to_no_plugin_and_logged() {
    let (logs, looks) = (sdk("log"), configured("body", b"u"));
    let reply = LocalReply::for_nobody("downstream_remote_disconnect", 1 << 14);
    drop(past(&[logs.clone(), looks.clone()], own(reply)));
    assert_eq!(counts(&looks), [0, 0]);
    assert_eq!(logs.status().metrics[0].name, "/  downstream_remote_disconnect", "without a status");
}

#[test]
fn response_too_large_to_be_held_is_logged_as_one() {
    let holds = plugin("body", |config| {
        config.configuration = "h".into();
        config.sandbox.max_buffered_body = 5;
    });
    let logs = sdk("log");
    let response = past(&[logs.clone(), holds], || Response::new(Full::from("longer")));
    let ended = response.into_body().collect().now_or_never();
    assert!(ended.is_none_or(|ended| ended.is_err()));
    assert_eq!(logs.status().metrics[0].name, "/ 200 response_payload_too_large");
}

#[test]
fn response_that_breaks_off_is_logged_as_one() {
    let logs = sdk("log");
    let response = past(std::slice::from_ref(&logs), || {
        let parts = [Ok(Frame::data(Bytes::from_static(b"half"))), Err("cut")];
        Response::new(StreamBody::new(futures_util::stream::iter(parts)))
    });
    let mut body = response.into_body();
    while let Some(Some(Ok(_))) = body.frame().now_or_never() {}
    drop(body);
    let details = "upstream_reset_after_response_started{protocol_error}";
    assert_eq!(logs.status().metrics[0].name, format!("/ 200 {details}"));
}

#[test]
fn what_a_guest_has_let_go_is_sent_before_the_end_that_it_spoils() {
    // It answers, and it traps, in the callback of the end.
    for ends in [0x10, 0x80] {
        let response = past(&[configured("scripted", &[0, 0, 0, ends])], || {
            Response::builder().header("content-length", 5).body(Full::from("hello")).unwrap()
        });
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-length"]),
            (200, &"5".parse().unwrap())
        );
        let mut body = response.into_body();
        let first = body.frame().now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "hello");
        assert!(body.frame().now_or_never().is_none(), "what is there is sent first");
        assert!(body.frame().now_or_never().unwrap().unwrap().is_err());
    }
}
