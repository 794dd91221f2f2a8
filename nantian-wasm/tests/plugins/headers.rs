//! Request and response headers, answers, and what must never reach the wire.

use http::{HeaderValue, Request, Response, Version};
use nantian_wasm::{Action, Engine, FailurePolicy, Hooks, PluginConfig, StreamContext, StreamInfo};

use crate::support::{Seen, configured, data, exchange, frames, get, plugin, plugin_of, send};

/// Configuration of `write_header.wat`.
fn write(how: char, map: char, name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = [u8::try_from(name.len()).unwrap()];
    [how.to_string().as_bytes(), map.to_string().as_bytes(), &length, name, value].concat()
}

/// A block of pairs as guests write it.
fn pairs(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let word = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    let mut block = word(pairs.len()).to_vec();
    for (name, value) in pairs {
        block.extend(word(name.len()).into_iter().chain(word(value.len())));
    }
    for (name, value) in pairs {
        block.extend([name, &b"\0"[..], value, &b"\0"[..]].concat());
    }
    block
}

fn written(how: char, map: char, name: &[u8], value: &[u8]) -> Seen {
    send([configured("write_header", &write(how, map, name, value))], get("/things"))
}

#[test]
fn plugin_adds_a_request_header_with_its_name() {
    let seen = send([plugin("add_header", |config| config.name = "greeter".to_owned())], get("/"));
    assert_eq!(seen.request_header("x-wasm-plugin"), Some("greeter"));
    assert_eq!((seen.status(), seen.text()), (200, "ok"));
}

#[test]
fn plugin_answers_by_itself_and_the_request_goes_nowhere() {
    let seen = send([plugin("add_header", |_| {})], get("/wasm-teapot"));
    assert_eq!((seen.status(), seen.text()), (418, "short and stout\n"));
    assert_eq!(seen.response_header("content-type"), Some("text/plain"));
    assert_eq!(seen.response_header("content-length"), Some("16"));
    assert!(seen.request.is_none());
}

#[test]
fn configuration_reaches_the_guest_byte_for_byte() {
    let seen = send([configured("echo_config", b"{\"a\": [1,  2]}")], get("/"));
    assert_eq!(seen.request_header("x-config"), Some("{\"a\": [1,  2]}"));
}

/// Holds headers, and writes one when the body is there.
const HOLDS_HEADERS: &str = r#"(module
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "x-bodyseen")
    (func (export "proxy_abi_version_0_2_1"))
    (func $headers (param i32 i32 i32) (result i32) (i32.const 1))
    (func $body (param $map i32) (param $end i32) (result i32)
        (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
        (call $add (local.get $map) (i32.const 16) (i32.const 6) (i32.const 22) (i32.const 4)))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (call $body (i32.const 0) (local.get 2)))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
        (call $body (i32.const 2) (local.get 2)))
    (export "proxy_on_request_headers" (func $headers))
    (export "proxy_on_response_headers" (func $headers)))"#;

#[test]
fn plugin_that_holds_headers_is_shown_the_body_only_where_that_is_allowed() {
    let plugin = |allow: bool| {
        let guest = wat::parse_str(HOLDS_HEADERS).unwrap();
        let allowing = |config: &mut PluginConfig| config.allow_on_headers_stop_iteration = allow;
        plugin_of(&Engine::new().unwrap().0, &guest, allowing).unwrap()
    };
    let request = Request::post("/").body(frames([data("re"), data("quest")])).unwrap();
    let response = Response::new(frames([data("re"), data("sponse")]));
    let seen = exchange([plugin(true)], request, response);
    assert_eq!((seen.request_header("x-body"), seen.response_header("x-body")), (Some("seen"), Some("seen")));
    assert_eq!((seen.request_body.as_deref(), seen.text()), (Ok(&b"request"[..]), "response"));

    let held = |allow| {
        let mut stream = StreamContext::new([plugin(allow)].into(), StreamInfo::default());
        stream.on_request_headers(&mut Request::new(()).into_parts().0, false)
    };
    assert!(matches!((held(true), held(false)), (Action::Hold, Action::Pending)));
}

#[test]
fn headers_wait_for_no_body_that_a_hook_leaves_out_but_for_a_guest_that_looks_at_none() {
    let answered = |guest: &str, hooks: Hooks, content_type: &str| {
        let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(guest).unwrap(), |config| {
            config.allow_on_headers_stop_iteration = true;
            config.hooks = hooks.with_on_request(false);
        });
        let mut stream = StreamContext::new([plugin.unwrap()].into(), StreamInfo::default());
        let mut request = Request::new(()).into_parts().0;
        assert!(matches!(stream.on_request_headers(&mut request, true), Action::Continue));
        let response = Response::builder().header("content-type", content_type).body(()).unwrap();
        stream.on_response_headers(&mut response.into_parts().0, false)
    };
    let no_streams = Hooks::ALL.with_on_stream_chunk(false);
    let events = "text/event-stream";
    assert!(matches!(answered(HOLDS_HEADERS, no_streams, events), Action::Continue));
    assert!(matches!(answered(HOLDS_HEADERS, no_streams, "text/plain"), Action::Hold));
    assert!(matches!(answered(HOLDS_HEADERS, Hooks::ALL, events), Action::Hold));
    let without_callbacks = HOLDS_HEADERS.replace("_body\")", "_nobody\")");
    let trailers = r#"(func (export "proxy_on_response_trailers") (param i32 i32) (result i32) (i32.const 0))
        (export "proxy_on_request_headers""#;
    let trailers_alone = without_callbacks.replace(r#"(export "proxy_on_request_headers""#, trailers);
    for guest in [without_callbacks, trailers_alone] {
        assert!(matches!(answered(&guest, Hooks::ALL, "text/plain"), Action::Pending), "{guest}");
        assert!(matches!(answered(&guest, no_streams, events), Action::Pending), "{guest}");
    }
}

#[test]
fn plugin_changes_response_headers_and_still_sees_the_request() {
    let response = Response::builder().status(404).body(frames([data("nothing")])).unwrap();
    let seen = exchange([plugin("response_header", |_| {})], get("/a?b=c"), response);
    assert_eq!(seen.status(), 410);
    assert_eq!(seen.response_header("x-request-path"), Some("/a?b=c"));
    assert_eq!(seen.text(), "nothing");
}

#[test]
fn plugin_answers_in_place_of_a_response() {
    let response = Response::builder().header("x-secret", "1").body(frames([data("secret")])).unwrap();
    let seen = exchange([plugin("response_header", |_| {})], get("/"), response);
    assert_eq!((seen.status(), seen.text()), (451, "withheld\n"));
    assert_eq!(seen.response_header("x-secret"), None);
}

#[test]
fn plugins_see_requests_in_order_and_answers_in_reverse() {
    let named = |name: &str| plugin("add_header", |config| config.name = name.to_owned());
    let seen = send([named("first"), named("second")], get("/"));
    let names: Vec<_> = seen.request.as_ref().unwrap().headers.get_all("x-wasm-plugin").iter().collect();
    assert_eq!(names, ["first", "second"]);

    // The outer plugin sees the answer of the inner one, the one behind it sees nothing.
    let outer = plugin("response_header", |_| {});
    let behind = plugin("response_header", |_| {});
    let seen = send([outer, named("inner"), behind.clone()], get("/wasm-teapot"));
    assert_eq!((seen.status(), seen.response_header("x-request-path")), (418, Some("/wasm-teapot")));
    assert_eq!(behind.status().streams, 0);
}

#[test]
fn one_plugin_may_stand_in_a_chain_twice() {
    let twice = plugin("add_header", |_| {});
    let seen = send([twice.clone(), twice], get("/"));
    assert_eq!(seen.request.unwrap().headers.get_all("x-wasm-plugin").iter().count(), 2);
}

#[test]
fn hooks_that_are_off_are_not_called() {
    let seen =
        send([plugin("add_header", |config| config.hooks = Hooks::ALL.with_on_request(false))], get("/"));
    assert_eq!(seen.request_header("x-wasm-plugin"), None);
    let seen = send([plugin("response_header", |config| config.hooks = Hooks::NONE)], get("/"));
    assert_eq!(seen.response_header("x-request-path"), None);
}

#[test]
fn stream_hook_alone_sees_only_streaming_responses() {
    let only_streams =
        || plugin("response_header", |config| config.hooks = Hooks::NONE.with_on_stream_chunk(true));
    let typed =
        |content_type| Response::builder().header("content-type", content_type).body(frames([])).unwrap();
    let seen = exchange([only_streams()], get("/s"), typed("text/event-stream; charset=utf-8"));
    assert_eq!(seen.response_header("x-request-path"), Some("/s"));
    let seen = exchange([only_streams()], get("/s"), typed("application/json"));
    assert_eq!(seen.response_header("x-request-path"), None);
}

#[test]
fn header_names_are_written_in_lower_case() {
    assert_eq!(written('a', '0', b"X-Mixed-Case", b"Value").request_header("x-mixed-case"), Some("Value"));
    let seen = written('r', '2', b"Server", b"");
    assert_eq!(seen.response_header("server"), Some(""));
}

#[test]
fn header_that_is_no_http_ends_the_stream_before_the_wire() {
    let bad: [(&[u8], &[u8]); 6] = [
        (b"x-split", b"a\r\nset-cookie: admin=1"),
        (b"x-split", b"a\nb"),
        (b"x-nul", b"a\0b"),
        (b"x split", b"a"),
        (b"x\r\nsplit", b"a"),
        (b"", b"a"),
    ];
    for (name, value) in bad {
        for how in ['a', 'r'] {
            let seen = written(how, '0', name, value);
            assert_eq!((seen.status(), seen.request.is_none()), (503, true), "request {name:?}: {value:?}");
            let seen = written(how, '2', name, value);
            assert_eq!((seen.status(), seen.text()), (502, ""), "response {name:?}: {value:?}");
        }
        let seen = written('s', '2', b"", &pairs(&[(name, value)]));
        assert_eq!(seen.status(), 502, "whole map {name:?}: {value:?}");
    }
    let said = |name, value| written('a', '0', name, value).text().to_owned();
    assert_eq!(said(b"x-nul", b"a\0b"), "invalid header value for: x-nul", "as in Envoy");
    assert_eq!(said(b"x split", b"a"), "invalid header name: x split");
    let answer = written('l', '0', b"", &pairs(&[(b"x-split", b"a\r\nb")]));
    assert_eq!((answer.status(), answer.request.is_none()), (502, true));
}

#[test]
fn pseudo_header_that_a_message_does_not_have_is_neither_sent_nor_missed() {
    for (map, name) in [('0', &b":made-up"[..]), ('0', b":status"), ('2', b":made-up"), ('2', b":authority")]
    {
        for how in ['a', 'r', 'd'] {
            let seen = written(how, map, name, b"299");
            assert_eq!((seen.status(), seen.text()), (200, "ok"), "{how} {name:?}");
        }
    }
    let seen = written('s', '2', b"", &pairs(&[(b":status", b"299"), (b":freeform", b"x"), (b"x-a", b"1")]));
    assert_eq!((seen.status(), seen.response_header("x-a")), (299, Some("1")));
    let nobodys = written('r', '0', b":authority", b"");
    assert_eq!((nobodys.status(), nobodys.request_header("host")), (200, Some("")));
}

#[test]
fn status_that_a_guest_has_read_may_be_written_back() {
    let switching = |how, name: &[u8], value: &[u8]| {
        let response = Response::builder().status(101).header("upgrade", "websocket");
        let response = response.header("connection", "upgrade").body(frames([])).unwrap();
        exchange([configured("write_header", &write(how, '2', name, value))], get("/"), response)
    };
    for seen in [
        switching('r', b":status", b"101"),
        switching('s', b"", &pairs(&[(b":status", b"101"), (b"upgrade", b"websocket")])),
    ] {
        assert_eq!((seen.status(), seen.response_header("upgrade")), (101, Some("websocket")));
    }
    assert_eq!(switching('r', b":status", b"100").status(), 502, "no other one is a guest's to make");
}

#[test]
fn framing_headers_are_not_a_guests_to_write() {
    for (name, value) in [
        ("content-length", "7"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-stolen"),
        ("keep-alive", "timeout=9"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("trailer", "x-t"),
        ("upgrade", "h2c"),
    ] {
        for how in ['a', 'r'] {
            let seen = written(how, '0', name.as_bytes(), value.as_bytes());
            assert_eq!((seen.status(), seen.request_header(name)), (200, None));
            assert_eq!(written(how, '2', name.as_bytes(), value.as_bytes()).response_header(name), None);
        }
        let seen = written('s', '0', b"", &pairs(&[(name.as_bytes(), value.as_bytes())]));
        assert_eq!((seen.status(), seen.request_header(name)), (200, None));
        let answer = written('l', '0', b"", &pairs(&[(name.as_bytes(), value.as_bytes())]));
        assert_eq!(answer.response_header(name).filter(|_| name != "content-length"), None);
    }
}

#[test]
fn status_that_is_not_final_becomes_502() {
    for status in ["", "abc", "42", "100", "101", "199", "1000", "20\r\n0"] {
        assert_eq!(written('r', '2', b":status", status.as_bytes()).status(), 502, "{status:?}");
    }
    assert_eq!(written('d', '2', b":status", b"").status(), 502);
    assert_eq!(written('r', '2', b":status", b"999").status(), 999);
}

#[test]
fn path_method_and_authority_can_be_rewritten() {
    let rewritten = |name: &str, value: &str| written('r', '0', name.as_bytes(), value.as_bytes());
    let request = |seen: Seen| seen.request.unwrap();
    assert_eq!(request(rewritten(":path", "/new?q=1")).uri, "/new?q=1");
    assert_eq!(request(rewritten(":method", "PURGE")).method, "PURGE");
    assert_eq!(request(rewritten(":authority", "other.example:8443")).headers["host"], "other.example:8443");
    assert_eq!(request(rewritten("Host", "other.example")).headers["host"], "other.example");
    for (name, value) in [(":path", "/a b"), (":path", "a\r\nb"), (":authority", "a b"), (":method", "")] {
        assert_eq!(rewritten(name, value).status(), 503, "{name}: {value:?}");
    }
    assert_eq!(rewritten(":method", "CONNECT").status(), 503);
}

#[test]
fn request_that_leads_nowhere_is_answered_as_by_the_router_of_envoy() {
    let removed = |name: &str| written('d', '0', name.as_bytes(), b"");
    let answered = |seen: Seen| {
        assert!(seen.request.is_none());
        (seen.status(), seen.text().to_owned())
    };
    for path in ["no-slash", "", "*", "?q"] {
        let seen = written('r', '0', b":path", path.as_bytes());
        assert_eq!(answered(seen), (404, String::new()), "{path:?}");
    }
    assert_eq!(answered(removed(":path")), (404, String::new()));
    assert_eq!(answered(removed(":method")), (503, "missing required header: :method".to_owned()));
    for name in [":authority", "host", ":scheme"] {
        let seen = removed(name);
        assert_eq!((seen.status(), seen.request_header("host")), (200, Some("example.com")), "{name}");
    }
}

#[test]
fn path_that_was_removed_is_not_there_until_another_one_is() {
    let text = r#"(module
        (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) ":path/?0")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $remove (i32.const 0) (i32.const 16) (i32.const 5)))
            (i32.store8 (i32.const 23) (i32.add (i32.const 48)
                (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4))))
            (drop (call $add (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 21) (i32.const 3)))
            (i32.const 0)))"#;
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |_| {}).unwrap();
    let seen = send([plugin], get("/old"));
    assert_eq!(seen.request.unwrap().uri, "/?1", "what it is set to, and that it was not found meanwhile");
}

#[test]
fn absolute_targets_keep_scheme_and_authority_together() {
    let request = Request::get("https://a.example/x").version(Version::HTTP_2).body(frames([])).unwrap();
    let seen = send([configured("write_header", &write('r', '0', b":authority", b"b.example"))], request);
    assert_eq!(seen.request.unwrap().uri, "https://b.example/x");
}

#[test]
fn cookies_that_http2_has_apart_are_one_header_for_guests_and_backends() {
    for (version, expected) in
        [(Version::HTTP_2, vec!["theme=dark; token=t"]), (Version::HTTP_11, vec!["theme=dark", "token=t"])]
    {
        let request = Request::get("/").version(version).header("host", "a.example");
        let request =
            request.header("cookie", "theme=dark").header("cookie", "token=t").body(frames([])).unwrap();
        let seen = send([configured("write_header", &write('a', '0', b"x-seen", b"1"))], request);
        let cookies = seen.request.as_ref().unwrap().headers.get_all("cookie").iter();
        assert_eq!(cookies.map(|cookie| cookie.to_str().unwrap()).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn replacing_all_headers_keeps_the_message_whole() {
    let request = Request::post("/upload").header("host", "a.example").header("content-length", "2");
    let request =
        request.header("connection", "close").header("x-old", "1").body(frames([data("hi")])).unwrap();
    let block = pairs(&[(b"x-new", b"1"), (b"content-length", b"2")]);
    let seen = send([configured("write_header", &write('s', '0', b"", &block))], request);
    let parts = seen.request.unwrap();
    assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/upload"));
    let mut names: Vec<_> = parts.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["connection", "content-length", "host", "x-new"]);
}

#[test]
fn block_that_does_not_decode_empties_the_map() {
    let request =
        Request::get("/").header("host", "a.example").header("x-old", "1").body(frames([])).unwrap();
    let seen = send([configured("write_header", &write('s', '0', b"", b"\xff\xff\xff\xff"))], request);
    assert_eq!(seen.status(), 200);
    assert_eq!((seen.request_header("x-old"), seen.request_header("host")), (None, Some("a.example")));
}

#[test]
fn plugin_that_fails_open_leaves_the_exchange_as_it_was() {
    let open = |configuration: Vec<u8>| {
        plugin("write_header", |config| {
            config.configuration = configuration.into();
            config.failure_policy = FailurePolicy::FailOpen;
        })
    };
    let half_good = pairs(&[(b"x-good", b"1"), (b":path", b"/other"), (b"x-bad", b"a\r\nb")]);
    let seen = send([open(write('s', '0', b"", &half_good))], get("/things"));
    assert_eq!((seen.status(), seen.request_header("x-good")), (200, None));
    assert_eq!(seen.request.unwrap().uri, "/things");
    let seen = send([open(write('s', '2', b"", &half_good))], get("/things"));
    assert_eq!((seen.status(), seen.response_header("x-good"), seen.text()), (200, None, "ok"));
}

#[test]
fn grpc_client_gets_a_refusal_it_understands() {
    let request =
        Request::get("/wasm-teapot").header("content-type", "application/grpc").body(frames([])).unwrap();
    let seen = send([plugin("add_header", |_| {})], request);
    assert_eq!((seen.status(), seen.response_header("grpc-status")), (200, Some("2")));
    assert_eq!(seen.response_header("grpc-message"), Some("short and stout%0A"));
    let request = Request::get("/").header("content-type", "application/grpc").body(frames([])).unwrap();
    let sized = write('l', '0', b"", &pairs(&[(b"content-length", b"16")]));
    let seen = send([configured("write_header", &sized)], request);
    assert_eq!((seen.status(), seen.response_header("grpc-status")), (200, Some("2")));
    assert_eq!(seen.response_header("content-length"), None, "which the plugin gave");
}

#[test]
fn core_runs_without_a_service_around_it() {
    let mut stream = StreamContext::new([plugin("add_header", |_| {})].into(), StreamInfo::default());
    let (mut parts, ()) = Request::get("/wasm-teapot").body(()).unwrap().into_parts();
    let Action::Respond(answer) = stream.on_request_headers(&mut parts, true) else { panic!("no answer") };
    assert_eq!((answer.status.as_u16(), answer.details.as_str()), (418, "teapot"));
}

#[test]
fn size_of_a_map_is_that_of_the_values_that_are_shown_and_totals_count_what_has_come() {
    // A count, and of each pair two lengths and two ends.
    let guest = r#"(module
        (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_size" (func $size (param i32 i32) (result i32)))
        (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "request\00headers_bytes")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (local $size i32) (local $count i32)
            (drop (call $size (i32.const 0) (i32.const 8)))
            (local.set $size (i32.load (i32.const 8)))
            (drop (call $pairs (i32.const 0) (i32.const 8) (i32.const 12)))
            (local.set $count (i32.load (i32.load (i32.const 8))))
            (if (i32.ne (i32.load (i32.const 12)) (i32.add (i32.add (i32.const 4)
                (i32.mul (i32.const 10) (local.get $count))) (local.get $size))) (then unreachable))
            (drop (call $property (i32.const 100) (i32.const 21) (i32.const 8) (i32.const 12)))
            (if (i32.ne (i32.load (i32.load (i32.const 8))) (i32.sub (local.get $size) (i32.const 1)))
                (then unreachable))
            (i32.const 0)))"#;
    let guest = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(guest).unwrap(), |_| {}).unwrap();
    let mut request = get("/");
    request.headers_mut().insert("x-last", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    assert_eq!(send([guest], request).status(), 200);
}
