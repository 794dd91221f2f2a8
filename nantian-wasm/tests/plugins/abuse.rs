//! A table of guests that mean harm, one for each way into the guest and each budget: what becomes of the
//! stream, whether the instance survives, and that others are served meanwhile and afterwards.
//!
//! | harm | guests, here unless another file is named |
//! |---|---|
//! | escape from the sandbox | `module_that_is_a_bomb…` (proposals that are off), `loading.rs` (shared memories) |
//! | errors of the host: pointers, lengths, re-entrancy, contexts that are gone | `lies`, `lies.rs` (each function), `allocators`, `out_of_turn`, `automaton.rs`, `invariants.rs` |
//! | time: in any callback, in start, in configuration, in ticks | `loops`, `guest_that_does_not_start…`, `tick_that_loops…`, `slices.rs`, `beats.rs` (to the millisecond) |
//! | memory of the host | `floods`, `bulk`, `costs.rs`, `limits.rs` (what waits for the guest), `suffer` (resident memory) |
//! | memory and tables of the guest | `stack_and_memory`, `allocators`, `guest_that_does_not_start…` |
//! | the stack | `stack_and_memory` |
//! | the compiler | `module_that_is_a_bomb…`, `loading.rs` (counts and sizes) |
//! | what is outside, reached more often than is good: calls, logs, metrics, queues | `floods`, `limits.rs`, `hostile.rs` (log lines of a stream and of a plugin) |
//! | bytes that are no HTTP, or another message | `smuggling`, `bad_responses`, `call_outs.rs`, `headers.rs` |
//! | requests in the name of the host | `sdk.rs` (unknown upstreams, no network), `capabilities.rs`; addresses are the embedder's |
//! | what others have | `sdk.rs` (data of another plugin) |
//! | modules that are not those that were meant | `loading.rs` (digests) |
//!
//! | budget | guests |
//! |---|---|
//! | time of a callback, of start and configuration | `loops`, `hostile.rs` |
//! | time of a stream | `slices.rs` |
//! | pause | `out_of_turn`, `stalls.rs` |
//! | linear memory, table | `stack_and_memory` |
//! | header entries and bytes, blocks of pairs | `floods`, `bulk`, `lies` |
//! | held bodies, growth of bodies, answers | `bulk`, `bodies.rs` |
//! | bytes out of the guest and into it | `floods` |
//! | call-outs: of a stream, at a time, of a plugin, their bodies, what waits of their answers | `floods`, `bulk`, `costs.rs`, `limits.rs` |
//! | log lines and bytes of a stream, rate of a plugin | `hostile.rs` |
//! | shared data, queues, metrics, properties | `floods`, `limits.rs` |
//! | ticks | `lifecycle.rs` |
//! | size, types, functions, globals, exports, elements, data segments of a module | `module_that_is_a_bomb…`, `loading.rs` |

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use nantian_wasm::{
    Action, Engine, Module, ModuleError, Plugin, PluginConfig, PluginError, StreamContext, StreamInfo,
    host::{CallError, Host, HttpCall, HttpCallResponse, HttpReply},
};

use crate::support::{Frames, Ticking, data, exchange, frames, get, guest, plugin_of, send};

/// What every guest of the table imports, and where its strings lie.
const PRELUDE: &str = r#"
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_pairs" (func $get_pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_header_map_pairs" (func $set_pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_http_call"
    (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
  (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
  (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
  (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (func (export "proxy_abi_version_0_2_1"))
  (data (i32.const 100) "x-a")
  (data (i32.const 110) "value")
  (data (i32.const 130) "a\0d\0ax-b: 1")
  (data (i32.const 150) ":path")
  (data (i32.const 160) ":status")
  (data (i32.const 170) "transfer-encoding")
  (data (i32.const 190) "chunked")
  (data (i32.const 200) "content-length")
  (data (i32.const 220) "now")
  (data (i32.const 224) "never")
  (data (i32.const 245) "/a b")
  (data (i32.const 250) "bad name")
  (data (i32.const 260) "queue")
  (data (i32.const 270) ":method")
  (data (i32.const 280) "CONNECT")
  (data (i32.const 290) "a\00b")
  (data (i32.const 300) ":authority")
  (data (i32.const 400) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
  (data (i32.const 500) "\01\00\00\00\03\00\00\00\09\00\00\00x-a\00a\0d\0ax-b: 1\00")
  (data (i32.const 600) "\ff\ff\ff\ff\ff\ff\ff\ff\ff\ff\ff\ff")
"#;

/// A bump allocator that starts again when it has come far.
const ALLOCATOR: &str = r#"
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
"#;

pub(crate) const MEMORY: &str = r#"(memory (export "memory") 40)"#;

const LOOP: &str = "(loop $for_ever (br $for_ever))";

/// A call of the 61 bytes of `:method GET`, `:path /`, `:authority a`.
pub(crate) const CALL_NOW: &str = "(drop (call $call (i32.const 220) (i32.const 3) (i32.const 400) (i32.const 61) (i32.const 0) \
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 0)))";

/// An answer 200 without headers and body.
const RESPOND: &str = "(drop (call $respond (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) \
    (i32.const 0) (i32.const 0) (i32.const -1)))";

/// What becomes of the attacked stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// The client gets this status, and a whole body.
    Answered(u16),
    /// The response breaks off.
    Broken,
}

use Stream::{Answered, Broken};

/// A guest, and how it ends.
struct Abuse {
    name: &'static str,
    guest: String,
    stream: Stream,
    /// Words of the cause; none when the plugin does not fail the stream.
    cause: &'static str,
    /// Whether the instance ends.
    ends_instance: bool,
}

/// Parameters and results of a callback.
fn shape(name: &str) -> (usize, bool) {
    match name {
        "proxy_on_request_headers"
        | "proxy_on_request_body"
        | "proxy_on_response_headers"
        | "proxy_on_response_body" => (3, true),
        "proxy_on_request_trailers" | "proxy_on_response_trailers" => (2, true),
        "proxy_on_vm_start" | "proxy_on_configure" => (2, true),
        "proxy_on_done" | "proxy_on_memory_allocate" => (1, true),
        "proxy_on_context_create" | "proxy_on_queue_ready" => (2, false),
        "proxy_on_http_call_response" => (5, false),
        "_initialize" | "_start" => (0, false),
        _ => (1, false),
    }
}

/// A callback that does this, and returns zero where it returns something.
pub(crate) fn on(name: &str, body: &str) -> String {
    returning(name, body, "(i32.const 0)")
}

pub(crate) fn returning(name: &str, body: &str, result: &str) -> String {
    let (parameters, has_result) = shape(name);
    let parameters = "i32 ".repeat(parameters);
    let (ty, result) = if has_result { ("(result i32)", result) } else { ("", "") };
    format!("(func (export \"{name}\") (param {parameters}) {ty} {body} {result})\n")
}

pub(crate) fn headers(body: &str) -> String {
    on("proxy_on_request_headers", body)
}

/// Does this for ever.
fn flood(body: &str) -> String {
    format!("(loop $for_ever {body} (br $for_ever))")
}

pub(crate) fn module(parts: &str) -> String {
    format!("(module {PRELUDE} {MEMORY} {ALLOCATOR} {parts})")
}

fn with_allocator(allocator: &str, parts: &str) -> String {
    let allocator = returning("proxy_on_memory_allocate", "", allocator);
    format!("(module {PRELUDE} {MEMORY} {allocator} {parts})")
}

fn ends(name: &'static str, guest: String, stream: Stream, cause: &'static str) -> Abuse {
    Abuse { name, guest, stream, cause, ends_instance: true }
}

fn fails(name: &'static str, guest: String, stream: Stream, cause: &'static str) -> Abuse {
    Abuse { name, guest, stream, cause, ends_instance: false }
}

fn harmless(name: &'static str, guest: String) -> Abuse {
    Abuse { name, guest, stream: Answered(200), cause: "", ends_instance: false }
}

/// Loops in every way into the guest that a stream has.
fn loops() -> Vec<Abuse> {
    let time = "time limit";
    let looping = |name: &str| module(&on(name, LOOP));
    vec![
        ends("loop in request headers", looping("proxy_on_request_headers"), Answered(503), time),
        ends("loop in request body", looping("proxy_on_request_body"), Answered(503), time),
        ends("loop in request trailers", looping("proxy_on_request_trailers"), Answered(503), time),
        ends("loop in response headers", looping("proxy_on_response_headers"), Answered(503), time),
        ends("loop in response body", looping("proxy_on_response_body"), Broken, time),
        ends("loop in response trailers", looping("proxy_on_response_trailers"), Broken, time),
        ends("loop in log", looping("proxy_on_log"), Answered(200), ""),
        ends("loop in done", looping("proxy_on_done"), Answered(200), ""),
        ends("loop in delete", looping("proxy_on_delete"), Answered(200), ""),
        ends(
            "loop when a stream is created",
            module(
                "(func (export \"proxy_on_context_create\") (param i32 i32) \
                 (if (local.get 1) (then (loop $for_ever (br $for_ever)))))",
            ),
            Answered(503),
            time,
        ),
        ends(
            "loop in a call's response",
            module(&format!(
                "{}{}",
                returning("proxy_on_request_headers", CALL_NOW, "(i32.const 1)"),
                on("proxy_on_http_call_response", LOOP)
            )),
            Answered(503),
            "instance lost",
        ),
        ends(
            "loop when a queue is ready",
            module(&format!(
                "{}{}",
                headers(
                    "(drop (call $register (i32.const 260) (i32.const 5) (i32.const 0))) \
                     (drop (call $enqueue (i32.const 1) (i32.const 100) (i32.const 3)))"
                ),
                on("proxy_on_queue_ready", LOOP)
            )),
            Answered(503),
            "instance lost",
        ),
        ends(
            "loop over the whole memory",
            module(&headers(&flood("(memory.fill (i32.const 70000) (i32.const 1) (i32.const 2000000))"))),
            Answered(503),
            time,
        ),
        ends(
            "loop of waits",
            module(&headers(&flood(
                "(drop (call $poll (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)))",
            ))),
            Answered(503),
            time,
        ),
    ]
}

/// The allocator.
fn allocators() -> Vec<Abuse> {
    let reads = headers("(drop (call $get_pairs (i32.const 0) (i32.const 0) (i32.const 4)))");
    let insists =
        headers("(if (call $get_pairs (i32.const 0) (i32.const 0) (i32.const 4)) (then (unreachable)))");
    vec![
        harmless("allocator that has nothing", with_allocator("(i32.const 0)", &reads)),
        ends(
            "allocator that has nothing, and a guest that aborts",
            with_allocator("(i32.const 0)", &insists),
            Answered(503),
            "unreachable",
        ),
        harmless("allocator far outside", with_allocator("(i32.const -1)", &reads)),
        harmless("allocator at the last byte", with_allocator("(i32.const 2621439)", &reads)),
        ends(
            "allocator that loops",
            with_allocator("(loop $l (result i32) (br $l))", &reads),
            Answered(503),
            "time limit",
        ),
        ends("allocator that traps", with_allocator("(unreachable)", &reads), Answered(503), "unreachable"),
        ends(
            "allocator that exits",
            with_allocator("(call $exit (i32.const 3)) (i32.const 0)", &reads),
            Answered(503),
            "code 3",
        ),
        ends(
            "allocator that needs the allocator",
            with_allocator("(call $get_pairs (i32.const 0) (i32.const 0) (i32.const 4))", &reads),
            Answered(503),
            "allocator",
        ),
        ends(
            "allocator that takes all memory",
            with_allocator(
                "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)",
                &reads,
            ),
            Answered(503),
            "unreachable",
        ),
        ends(
            "allocator that answers the client",
            with_allocator(&format!("{RESPOND} (unreachable)"), &reads),
            Answered(503),
            "unreachable",
        ),
    ]
}

/// The stack and memory.
fn stack_and_memory() -> Vec<Abuse> {
    vec![
        ends(
            "recursion",
            module(&format!(
                "(func $down (param i64) (result i64) (i64.add (i64.const 1) (call $down (local.get 0)))) {}",
                headers("(drop (call $down (i64.const 1)))")
            )),
            Answered(503),
            "stack",
        ),
        ends(
            "recursion with large frames",
            module(&format!(
                "(func $down (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64) (i64.add (local.get 7) (call $down (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6) (local.get 7) (local.get 0)))) {}",
                headers(
                    "(drop (call $down (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)))"
                )
            )),
            Answered(503),
            "stack",
        ),
        ends(
            "memory bomb",
            module(&headers(
                "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)",
            )),
            Answered(503),
            "unreachable",
        ),
        ends(
            "table bomb",
            module(&format!(
                "(table $t 1 funcref) {}",
                headers(
                    "(loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 4096)) (i32.const -1)))) (unreachable)"
                )
            )),
            Answered(503),
            "unreachable",
        ),
        ends(
            "read outside of memory",
            module(&headers("(drop (i32.load (i32.const -4)))")),
            Answered(503),
            "out of bounds",
        ),
        ends(
            "division by zero",
            module(&headers("(drop (i32.div_u (i32.const 1) (i32.const 0)))")),
            Answered(503),
            "divide by zero",
        ),
    ]
}

/// Host calls without end.
fn floods() -> Vec<Abuse> {
    let big = "(i32.const 70000) (i32.const 200000)";
    let flooding = |name, body: &str, cause| ends(name, module(&headers(&flood(body))), Answered(503), cause);
    vec![
        flooding(
            "flood of header bytes",
            "(drop (call $add (i32.const 0) (i32.const 100) (i32.const 3) (i32.const 70000) (i32.const 0)))",
            "header",
        ),
        flooding(
            "flood of one header",
            "(drop (call $replace (i32.const 0) (i32.const 100) (i32.const 3) (i32.const 70000) (i32.const 1000)))",
            "header bytes",
        ),
        flooding(
            "flood of reads",
            "(drop (call $get_pairs (i32.const 0) (i32.const 0) (i32.const 4)))",
            "bytes into the guest",
        ),
        flooding(
            "flood of properties",
            "(drop (call $set_property (i32.const 100) (i32.const 3) (i32.const 70000) (i32.const 1000)))",
            "property bytes",
        ),
        flooding(
            "flood of property paths",
            "(drop (call $get_property (i32.const 70000) (i32.const 4000) (i32.const 0) (i32.const 4)))",
            "bytes from the guest",
        ),
        flooding(
            "flood of shared data",
            &format!(
                "(i32.store (i32.const 40) (i32.add (i32.load (i32.const 40)) (i32.const 1))) (drop (call $share (i32.const 40) (i32.const 4) {big} (i32.const 0)))"
            ),
            "bytes from the guest",
        ),
        flooding(
            "flood of metrics",
            "(i32.store (i32.const 40) (i32.add (i32.load (i32.const 40)) (i32.const 1))) (drop (call $define (i32.const 0) (i32.const 40) (i32.const 4) (i32.const 0)))",
            "time limit",
        ),
        flooding(
            "flood of definitions of one metric",
            "(drop (call $define (i32.const 0) (i32.const 100) (i32.const 3) (i32.const 0)))",
            "time limit",
        ),
        flooding(
            "flood of queues",
            "(i32.store (i32.const 40) (i32.add (i32.load (i32.const 40)) (i32.const 1))) (drop (call $register (i32.const 40) (i32.const 4) (i32.const 0)))",
            "queues",
        ),
        flooding(
            "flood of queued items",
            "(drop (call $register (i32.const 260) (i32.const 5) (i32.const 0))) (drop (call $enqueue (i32.const 1) (i32.const 100) (i32.const 3)))",
            "time limit",
        ),
        flooding(
            "flood of random bytes",
            "(drop (call $random (i32.const 70000) (i32.const 65536)))",
            "time limit",
        ),
        flooding(
            "flood of log lines",
            "(drop (call $log (i32.const 2) (i32.const 100) (i32.const 3)))",
            "time limit",
        ),
        flooding(
            "flood of writes",
            "(i32.store (i32.const 40) (i32.const 70000)) (i32.store (i32.const 44) (i32.const 200000)) (drop (call $write (i32.const 1) (i32.const 40) (i32.const 1) (i32.const 0)))",
            "bytes from the guest",
        ),
        flooding(
            "flood of call-outs that are not answered",
            &CALL_NOW.replace("(i32.const 220) (i32.const 3)", "(i32.const 224) (i32.const 5)"),
            "call-outs",
        ),
    ]
}

/// Much at once.
fn bulk() -> Vec<Abuse> {
    vec![
        ends(
            "body that grows and grows",
            module(&on(
                "proxy_on_request_body",
                &flood(
                    "(drop (call $set_buffer (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 70000) (i32.const 100000)))",
                ),
            )),
            Answered(503),
            "bytes from the guest",
        ),
        fails(
            "answer of two megabytes",
            module(&headers(
                "(drop (call $respond (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 70000) (i32.const 2000000) (i32.const 0) (i32.const 0) (i32.const -1)))",
            )),
            Answered(502),
            "invalid local response: body of 2000000 bytes",
        ),
        fails(
            "call-out of two megabytes and a half",
            module(&headers(
                "(drop (call $call (i32.const 220) (i32.const 3) (i32.const 400) (i32.const 61) (i32.const 70000) (i32.const 2500000) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0)))",
            )),
            Answered(503),
            "call-out body",
        ),
        fails(
            "headers of one megabyte",
            module(&headers("(drop (call $set_pairs (i32.const 0) (i32.const 70000) (i32.const 1048577)))")),
            Answered(503),
            "header bytes",
        ),
    ]
}

/// Pointers, lengths and blocks that lie.
fn lies() -> Vec<Abuse> {
    vec![
        harmless(
            "path of five kilobytes",
            module(&headers(
                "(drop (call $get_property (i32.const 70000) (i32.const 5000) (i32.const 0) (i32.const 4)))",
            )),
        ),
        harmless(
            "block that counts four billion pairs",
            module(&headers("(drop (call $set_pairs (i32.const 0) (i32.const 600) (i32.const 12)))")),
        ),
        harmless(
            "length of four gigabytes",
            module(&headers(
                "(drop (call $add (i32.const 0) (i32.const 100) (i32.const -1) (i32.const 110) (i32.const 5)))",
            )),
        ),
        harmless(
            "pointer and length that wrap",
            module(&headers(
                "(drop (call $add (i32.const 0) (i32.const -2) (i32.const 4) (i32.const 110) (i32.const 5)))",
            )),
        ),
        harmless(
            "result to be written nowhere",
            module(&headers("(drop (call $get_pairs (i32.const 0) (i32.const -1) (i32.const -1)))")),
        ),
        harmless(
            "buffer from its far end",
            module(&on(
                "proxy_on_request_body",
                "(drop (call $get_buffer (i32.const 0) (i32.const -1) (i32.const -1) (i32.const 0) (i32.const 4)))",
            )),
        ),
        harmless(
            "map and buffer that do not exist",
            module(&headers(
                "(drop (call $get_pairs (i32.const 99) (i32.const 0) (i32.const 4))) (drop (call $get_buffer (i32.const 99) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)))",
            )),
        ),
        harmless(
            "four billion vectors to write",
            module(&headers(
                "(drop (call $write (i32.const 1) (i32.const 40) (i32.const -1) (i32.const 0)))",
            )),
        ),
    ]
}

/// Adds a header to a map.
fn add(map: u32, name: &str, value: &str) -> String {
    format!("(drop (call $add (i32.const {map}) {name} {value}))")
}

/// Answers with a status and a block of headers.
fn answer(status: u32, block: &str) -> String {
    let nothing = "(i32.const 0) (i32.const 0)";
    headers(&format!(
        "(drop (call $respond (i32.const {status}) {nothing} {nothing} {block} (i32.const -1)))"
    ))
}

/// What must not reach the wire.
fn smuggling() -> Vec<Abuse> {
    let (field, split) = ("(i32.const 100) (i32.const 3)", "(i32.const 130) (i32.const 9)");
    let value = "(i32.const 110) (i32.const 5)";
    vec![
        fails(
            "header that splits a request",
            module(&headers(&add(0, field, split))),
            Answered(503),
            "invalid header",
        ),
        fails(
            "header that splits a response",
            module(&on("proxy_on_response_headers", &add(2, field, split))),
            Answered(502),
            "invalid header",
        ),
        fails(
            "header with a NUL",
            module(&headers(&add(0, field, "(i32.const 290) (i32.const 3)"))),
            Answered(503),
            "invalid header",
        ),
        fails(
            "header name with a space",
            module(&headers(&add(0, "(i32.const 250) (i32.const 8)", value))),
            Answered(503),
            "invalid header",
        ),
        fails(
            "header without a name",
            module(&headers(&add(0, "(i32.const 250) (i32.const 0)", value))),
            Answered(503),
            "invalid header",
        ),
        fails(
            "path with a space",
            module(&headers(&add(0, "(i32.const 150) (i32.const 5)", "(i32.const 245) (i32.const 4)"))),
            Answered(503),
            "invalid header",
        ),
        fails(
            "path that splits a request",
            module(&headers(&add(0, "(i32.const 150) (i32.const 5)", split))),
            Answered(503),
            "invalid header",
        ),
        fails(
            "request that becomes a tunnel",
            module(&headers(&add(0, "(i32.const 270) (i32.const 7)", "(i32.const 280) (i32.const 7)"))),
            Answered(503),
            "invalid header",
        ),
        fails(
            "authority that splits a request",
            module(&headers(&add(0, "(i32.const 300) (i32.const 10)", split))),
            Answered(503),
            "invalid header",
        ),
        fails(
            "block that splits a request",
            module(&headers("(drop (call $set_pairs (i32.const 0) (i32.const 500) (i32.const 26)))")),
            Answered(503),
            "invalid header",
        ),
    ]
}

/// Answers that are none, and framing.
fn bad_responses() -> Vec<Abuse> {
    let none = "(i32.const 0) (i32.const 0)";
    let (field, split) = ("(i32.const 100) (i32.const 3)", "(i32.const 130) (i32.const 9)");
    vec![
        fails(
            "trailer that splits a request",
            module(&on("proxy_on_request_trailers", &add(1, field, split))),
            Answered(503),
            "invalid header",
        ),
        fails(
            "trailer that splits a response",
            module(&on("proxy_on_response_trailers", &add(3, field, split))),
            Broken,
            "invalid header",
        ),
        fails(
            "answer that splits a response",
            module(&answer(200, "(i32.const 500) (i32.const 26)")),
            Answered(502),
            "invalid local response",
        ),
        fails("answer of status 99", module(&answer(99, none)), Answered(502), "invalid local response"),
        fails("answer of status 101", module(&answer(101, none)), Answered(502), "invalid local response"),
        fails("answer of status 1000", module(&answer(1000, none)), Answered(502), "invalid local response"),
        fails(
            "response without a status",
            module(&on(
                "proxy_on_response_headers",
                "(drop (call $remove (i32.const 2) (i32.const 160) (i32.const 7)))",
            )),
            Answered(502),
            "invalid status",
        ),
        harmless(
            "framing of another kind",
            module(&headers(&add(0, "(i32.const 170) (i32.const 17)", "(i32.const 190) (i32.const 7)"))),
        ),
        harmless(
            "length of another body",
            module(&headers(&add(0, "(i32.const 200) (i32.const 14)", "(i32.const 110) (i32.const 0)"))),
        ),
    ]
}

/// Streams that are held, continued and answered out of turn.
fn out_of_turn() -> Vec<Abuse> {
    let paused = |name: &str| module(&returning(name, "", "(i32.const 1)"));
    let undecided = |name: &str| module(&returning(name, "", "(i32.const 77)"));
    let steer = format!(
        "(drop (call $continue (i32.const 0))) (drop (call $close (i32.const 0))) (drop (call $close (i32.const 1))) {RESPOND}"
    );
    vec![
        fails(
            "headers and a verdict that does not exist",
            undecided("proxy_on_request_headers"),
            Answered(503),
            "held",
        ),
        harmless("a body and a verdict that does not exist", undecided("proxy_on_request_body")),
        fails(
            "trailers and a verdict that does not exist",
            undecided("proxy_on_request_trailers"),
            Answered(503),
            "held",
        ),
        fails("request headers held for ever", paused("proxy_on_request_headers"), Answered(503), "held"),
        fails("request body held for ever", paused("proxy_on_request_body"), Answered(503), "held"),
        fails("request trailers held for ever", paused("proxy_on_request_trailers"), Answered(503), "held"),
        fails("response headers held for ever", paused("proxy_on_response_headers"), Answered(503), "held"),
        fails("response body held for ever", paused("proxy_on_response_body"), Broken, "held"),
        harmless("end of a body withheld", module(&returning("proxy_on_response_body", "", "(i32.const 3)"))),
        harmless(
            "stream continued that is not held",
            module(&headers("(drop (call $continue (i32.const 0))) (drop (call $continue (i32.const 1)))")),
        ),
        harmless("stream answered and closed while it is logged", module(&on("proxy_on_log", &steer))),
        harmless("stream answered and closed when it is done", module(&on("proxy_on_done", &steer))),
        harmless("stream answered and closed when it is deleted", module(&on("proxy_on_delete", &steer))),
        harmless("call-out of a stream that is deleted", module(&on("proxy_on_delete", CALL_NOW))),
        harmless(
            "answers that follow the first",
            module(&headers(&format!("{RESPOND} {RESPOND} (drop (call $continue (i32.const 0)))"))),
        ),
        harmless(
            "answer of a root context",
            module(&headers(&format!("(drop (call $become (i32.const 1))) {RESPOND}"))),
        ),
        harmless("context that does not exist", module(&headers("(drop (call $become (i32.const 12345)))"))),
        fails(
            "answer behind the response's headers",
            module(&on("proxy_on_response_body", RESPOND)),
            Broken,
            "after response headers",
        ),
        fails("stream closed", module(&headers("(drop (call $close (i32.const 0)))")), Broken, "closed"),
    ]
}

/// Answers calls to `now` at once, and those to `never` never.
#[derive(Default)]
struct Upstreams(Mutex<Vec<HttpReply>>);

impl Host for Upstreams {
    fn http_call(&self, _: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        match call.upstream.as_str() {
            "now" => reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new()))),
            "never" => self.0.lock().unwrap().push(reply),
            _ => return Err(CallError::UnknownUpstream),
        }
        Ok(())
    }
}

pub(crate) fn trailers() -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]))
}

/// A request with trailers, if the guest looks at some.
fn attack(abuse: &Abuse) -> (Request<Frames>, Response<Frames>) {
    let has_trailers = abuse.guest.contains("_trailers\"");
    let body = |bytes| frames([data(bytes)].into_iter().chain(has_trailers.then(trailers)));
    let request = Request::post("/").header("host", "example.com").header("x-long", "l".repeat(30_000));
    let request = request.body(body("body")).unwrap();
    (request, Response::new(body("ok")))
}

/// Time for guests that are to use up their time.
const SHORT: Duration = Duration::from_millis(500);
/// Time for guests that are to reach another limit first, on however busy a machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn started(engine: &Engine, guest: &[u8], time: Duration) -> Result<Plugin, PluginError> {
    let module = Module::compile(engine, guest, None).unwrap_or_else(|error| panic!("{error}"));
    let mut config = PluginConfig::new("probe");
    config.instances = NonZeroUsize::new(1);
    config.sandbox.max_memory = 4 << 20;
    config.sandbox.max_execution_time = time;
    config.sandbox.max_pause = Duration::from_secs(2);
    config.sandbox.allow_network = true;
    Plugin::with_host(&module, config, Upstreams::default())
}

/// Resident memory of this process, in bytes; zero where there is no procfs.
pub(crate) fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<usize> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4096
}

/// Attacks an engine that serves another plugin's stream meanwhile.
fn suffer(abuse: &Abuse) {
    let (name, before) = (abuse.name, resident());
    let engine = Engine::new().unwrap().0;
    let bytes = wat::parse_str(&abuse.guest).unwrap_or_else(|error| panic!("{name}: {error}"));
    let innocent = plugin_of(&engine, &guest("add_header"), |_| {}).unwrap();
    // Where a guest loops outside of its stream's callbacks, the stream is told that the instance is lost, or
    // nothing.
    let time = if matches!(abuse.cause, "" | "time limit" | "instance lost") { SHORT } else { LONG };
    let plugin = started(&engine, &bytes, time).unwrap_or_else(|error| panic!("{name}: {error:?}"));

    let (mut parts, ()) = Request::new(()).into_parts();
    let mut other = StreamContext::new([innocent.clone()].into(), StreamInfo::default());
    assert!(matches!(other.on_request_headers(&mut parts, true), Action::Continue), "{name}");
    let seen = {
        let (_ticking, _kept) = (Ticking::of(&engine), Ticking::upkeep(&engine));
        let (request, response) = attack(abuse);
        let seen = exchange([plugin.clone()], request, response);
        // What still runs when the client has its answer is upkeep's to end.
        while abuse.ends_instance && plugin.status().traps.total() == 0 {
            std::thread::yield_now();
        }
        seen
    };
    let (mut parts, ()) = Response::new(()).into_parts();
    assert!(matches!(other.on_response_headers(&mut parts, true), Action::Continue), "{name}");
    // The plugin is still there: two memories of 4 MiB, what a callback may copy, what is kept of all that,
    // and the compiler's.
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{name}: {grown} bytes more while it lives");

    let stream = if seen.body.is_err() { Broken } else { Answered(seen.status()) };
    let status = plugin.status();
    let cause = status.last_failure.map_or_else(String::new, |failure| failure.cause.to_string());
    assert_eq!(stream, abuse.stream, "{name}: {cause}");
    assert!(cause.contains(abuse.cause) && cause.is_empty() == abuse.cause.is_empty(), "{name}: {cause}");
    assert_eq!(status.traps.total() > 0, abuse.ends_instance, "{name}: {:?}", status.traps);
    assert!(status.memory <= 4 << 20, "{name}: {}", status.memory);
    for (field, value) in seen.response.headers() {
        assert!(!value.as_bytes().contains(&b'\n') && field != "x-b", "{name}: {field}");
    }
    if let Some(request) = &seen.request {
        assert!(!request.headers.contains_key("transfer-encoding"), "{name}");
        assert!(!request.headers.contains_key("content-length"), "{name}");
    }
    engine.maintain();
    assert_eq!(plugin.status().live_instances, 1, "{name}: upkeep has replaced it");
    assert_eq!(send([innocent], get("/")).request_header("x-wasm-plugin"), Some("probe"), "{name}");
}

fn suffer_all(abuses: Vec<Abuse>) {
    let before = resident();
    let failed: Vec<_> = abuses
        .iter()
        .filter(|abuse| std::panic::catch_unwind(|| suffer(abuse)).is_err())
        .map(|abuse| abuse.name)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    // One plugin at a time: its memory, what a stream may copy and keep, and its compiled code.
    let grown = resident().saturating_sub(before);
    assert!(grown < 96 << 20, "{} guests: {grown} bytes more", abuses.len());
}

#[test]
fn i5_guest_that_loops_anywhere_is_stopped_by_its_time_limit() {
    suffer_all(loops());
}

#[test]
fn i6_guest_that_abuses_allocator_stack_or_memory_ends_alone() {
    suffer_all(allocators());
    suffer_all(stack_and_memory());
}

#[test]
fn guest_that_floods_the_host_ends_by_a_budget() {
    suffer_all(floods());
    suffer_all(bulk());
}

#[test]
fn guest_that_lies_about_its_memory_gains_nothing() {
    suffer_all(lies());
}

#[test]
fn i10_guest_that_smuggles_reaches_no_wire() {
    suffer_all(smuggling());
    suffer_all(bad_responses());
}

#[test]
fn guest_that_acts_out_of_turn_ends_by_policy_or_is_ignored() {
    suffer_all(out_of_turn());
}

#[test]
fn guest_that_does_not_start_is_told_and_costs_nobody() {
    let engine = Engine::new().unwrap().0;
    let _kept = Ticking::of(&engine);
    let innocent = plugin_of(&engine, &guest("add_header"), |_| {}).unwrap();
    for (place, words) in [
        ("_initialize", "start"),
        ("_start", "start"),
        ("proxy_on_context_create", "start"),
        ("proxy_on_vm_start", "start"),
    ] {
        let refused =
            started(&engine, &wat::parse_str(module(&on(place, LOOP))).unwrap(), SHORT).unwrap_err();
        assert_eq!(refused.to_string(), format!("plugin ended in {words}"), "{place}");
    }
    let configured = on("proxy_on_configure", LOOP);
    let refused = started(&engine, &wat::parse_str(module(&configured)).unwrap(), SHORT).unwrap_err();
    assert_eq!(refused.to_string(), "plugin ended in configure");
    for parts in [
        "(func $s (loop $l (br $l))) (start $s)",
        "(func $s unreachable) (start $s)",
        "(func $s (call $exit (i32.const 1))) (start $s)",
        "(data (i32.const 99999999) \"outside\")",
    ] {
        let refused = started(&engine, &wat::parse_str(module(parts)).unwrap(), SHORT).unwrap_err();
        assert!(matches!(refused, PluginError::Start { .. }), "{parts}: {refused:?}");
    }
    assert_eq!(send([innocent], get("/")).status(), 200);
}

#[test]
fn module_that_is_a_bomb_for_the_compiler_is_refused_by_its_counts() {
    let engine = Engine::new().unwrap().0;
    let refusal = |parts: String| {
        let text = format!(
            "(module (func (export \"proxy_abi_version_0_2_1\")) (memory (export \"memory\") 1) {parts})"
        );
        Module::compile(&engine, &wat::parse_str(text).unwrap(), None).map(|_| ()).unwrap_err()
    };
    for (parts, what) in [
        ("(func)".repeat(20_001), "functions"),
        (format!("(func {})", "nop ".repeat(300_000)), "bytes of a function"),
        ("(global i32 (i32.const 0))".repeat(1_001), "globals"),
        ((0..1_001).map(|index| format!("(func (export \"f{index}\"))")).collect(), "exports"),
        ("(data (i32.const 0) \"\")".repeat(100_001), "data segments"),
        ("(type (func))".repeat(10_001), "types"),
        ("(elem func)".repeat(10_001), "element segments"),
        (format!("(func $f) (elem func {})", "$f ".repeat(100_001)), "elements"),
        (format!("(func $f) {}", format!("(elem func {})", "$f ".repeat(50_001)).repeat(2)), "elements"),
        ("(table 100000000 funcref)".to_owned(), "table elements"),
        ("(table 1 funcref) (table 1 funcref)".to_owned(), "tables"),
    ] {
        let refused = refusal(parts);
        assert!(
            matches!(&refused, ModuleError::TooLarge { what: counted, .. } if *counted == what),
            "{what}: {refused:?}"
        );
    }
    for parts in [
        format!("(func (local {}))", "i64 ".repeat(60_000)),
        "(memory 1)".to_owned(),
        "(memory i64 1)".to_owned(),
        "(tag (param i32))".to_owned(),
        format!("(rec {})", "(type (func))".repeat(10_001)),
    ] {
        let refused = refusal(parts.clone());
        assert!(
            !matches!(refused, ModuleError::TooLarge { .. }),
            "{}: {refused:?}",
            &parts[..20.min(parts.len())]
        );
    }
}

#[test]
fn module_that_nests_as_deep_as_a_function_can_is_compiled_and_ends() {
    let engine = Engine::new().unwrap().0;
    let depth = 80_000;
    let nested = format!("{} {}", "block ".repeat(depth), "end ".repeat(depth));
    let plugin = started(&engine, &wat::parse_str(module(&headers(&nested))).unwrap(), SHORT).unwrap();
    assert_eq!(send([plugin], get("/")).status(), 200);
    let far = "(data (i32.const 2147483000) \"beyond\")";
    let refused = started(&engine, &wat::parse_str(module(far)).unwrap(), SHORT).unwrap_err();
    assert!(matches!(refused, PluginError::Start { .. }), "{refused:?}");
}

#[test]
fn tick_that_loops_costs_the_instance_and_no_stream() {
    let engine = Engine::new().unwrap().0;
    let text = module(&format!(
        "{}{}",
        returning("proxy_on_configure", "(drop (call $tick (i32.const 1)))", "(i32.const 1)"),
        on("proxy_on_tick", LOOP)
    ));
    let plugin = started(&engine, &wat::parse_str(text).unwrap(), SHORT).unwrap();
    let innocent = plugin_of(&engine, &guest("add_header"), |_| {}).unwrap();
    {
        let _ticking = Ticking::of(&engine);
        while plugin.status().traps.time_limit == 0 {
            engine.maintain();
            std::thread::yield_now();
        }
    }
    assert_eq!(send([innocent], get("/")).status(), 200);
}

#[test]
fn the_table_has_more_guests_than_were_promised() {
    let tables = [
        loops(),
        allocators(),
        stack_and_memory(),
        floods(),
        bulk(),
        lies(),
        smuggling(),
        bad_responses(),
        out_of_turn(),
    ];
    assert!(tables.iter().map(Vec::len).sum::<usize>() >= 80);
}
