//! Which bytes become a plugin, and what the others are told.

use bytes::Bytes;
use nantian_wasm::{Abi, Cause, Digest, Engine, Inventory, Module, ModuleError, Phase, PluginError};
use std::time::Duration;

use crate::support::{get, guest, plugin_of, send};

const MARKER: &str = r#"(func (export "proxy_abi_version_0_2_1")) (memory (export "memory") 1)"#;

fn compile(text: &str) -> Result<Module, ModuleError> {
    Module::compile(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), None)
}

fn refusal(text: &str) -> String {
    compile(text).expect_err(text).to_string()
}

#[test]
fn abi_is_found_in_the_bytes() {
    for (marker, abi) in [
        ("proxy_abi_version_0_1_0", Abi::V0_1_0),
        ("proxy_abi_version_0_2_0", Abi::V0_2_0),
        ("proxy_abi_version_0_2_1", Abi::V0_2_1),
        ("proxy_abi_version_0_2_100", Abi::V0_2_100),
    ] {
        let text = format!(r#"(module (func (export "{marker}")) (memory (export "memory") 1))"#);
        assert_eq!(compile(&text).unwrap().abi(), abi);
    }
}

#[test]
fn of_several_markers_the_first_counts_that_envoy_knows() {
    for (markers, abi) in [
        (["0_2_0", "0_2_1"], Abi::V0_2_0),
        (["0_2_1", "0_1_0"], Abi::V0_2_1),
        (["0_2_100", "0_2_1"], Abi::V0_2_1),
        (["0_3_0", "0_2_100"], Abi::V0_2_100),
    ] {
        let markers = markers.map(|version| format!(r#"(func (export "proxy_abi_version_{version}"))"#));
        let text = format!(r#"(module {} (memory (export "memory") 1))"#, markers.concat());
        assert_eq!(compile(&text).unwrap().abi(), abi, "{text}");
        assert_eq!(Inventory::of(&wat::parse_str(&text).unwrap()).unwrap().abi, Some(abi), "{text}");
    }
}

#[test]
fn main_that_cannot_be_called_is_refused_where_it_would_be() {
    let main = r#"(func (export "main") (result i32) (i32.const 0))"#;
    let refusal = refusal(&format!(r#"(module {MARKER} {main} (func (export "_initialize")))"#));
    assert_eq!(refusal, "export main has type () -> (i32), expected (i32, i32) -> (i32)");
    assert!(compile(&format!(r#"(module {MARKER} {main} (func (export "_start")))"#)).is_ok());
}

#[test]
fn anything_else_is_told_what_was_looked_for() {
    for (text, found) in [
        ("(module)", "found none of them"),
        (
            r#"(module (func (export "proxy_abi_version_0_3_0")) (memory (export "memory") 1))"#,
            "found none of them",
        ),
        ("(component)", "found a component"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains("proxy_abi_version_0_2_1") && refusal.contains(found), "{refusal}");
    }
    for (bytes, beginning) in [
        (&b"#!/bin/sh\n"[..], r##"begins with "#!/bin/sh\n""##),
        (b"<!DOCTYPE html><html lang='en'>", r#"begins with "<!DOCTYPE html><html lan""#),
        (b"", "is empty"),
    ] {
        let refused = Module::compile(&Engine::new().unwrap().0, bytes, None).unwrap_err();
        assert_eq!(refused.to_string(), format!("not a WebAssembly module: it {beginning}"));
    }
    let truncated = &guest("add_header")[..200];
    let refused = Module::compile(&Engine::new().unwrap().0, truncated, None);
    assert!(matches!(refused, Err(ModuleError::Malformed { .. })), "{refused:?}");
}

#[test]
fn a_memory_in_which_a_guest_could_wait_for_ever_is_refused() {
    let refusal = refusal(
        r#"(module (func (export "proxy_abi_version_0_2_1")) (memory (export "memory") 1 1 shared))"#,
    );
    assert!(refusal.contains("shared"), "{refusal}");
}

#[test]
fn digest_is_that_of_the_bytes_and_checked_before_anything_is_compiled() {
    let engine = Engine::new().unwrap().0;
    let bytes = guest("add_header");
    let digest = Digest::of(&bytes);
    assert_eq!(Module::compile(&engine, &bytes, Some(digest)).unwrap().digest(), digest);
    let other = Digest::of(b"other");
    let refused = Module::compile(&engine, &bytes, Some(other)).unwrap_err();
    assert_eq!(refused, ModuleError::Digest { expected: other, actual: digest });
    assert_eq!(refused.to_string(), format!("sha256 is {digest}, expected {other}"));
}

#[test]
fn wrong_exports_are_refused_by_name_and_type() {
    assert_eq!(refusal(r#"(module (func (export "proxy_abi_version_0_2_1")))"#), "export memory is missing");
    let wrong = format!(
        r#"(module {MARKER} (func (export "proxy_on_request_headers") (param i32 i64) (result i32) i32.const 0))"#
    );
    assert_eq!(
        refusal(&wrong),
        "export proxy_on_request_headers has type (i32, i64) -> (i32), \
         expected (i32, i32, i32) -> (i32) or (i32, i32) -> (i32)"
    );
}

#[test]
fn unknown_and_mistyped_imports_are_refused() {
    let unknown = format!(
        r#"(module (import "env" "proxy_fly" (func (param i32))) (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
           (import "wasi_snapshot_preview1" "fly" (func)) (import "env" "table" (table 1 funcref)) {MARKER})"#
    );
    assert_eq!(
        refusal(&unknown),
        "unknown imports: env.proxy_fly, wasi_snapshot_preview1.fly, env.table",
        "all of them are named"
    );
    let mistyped = format!(r#"(module (import "env" "proxy_log" (func (param i64))) {MARKER})"#);
    assert!(refusal(&mistyped).starts_with("import with a wrong type"), "{}", refusal(&mistyped));
}

#[test]
fn modules_built_to_be_costly_are_refused_before_compilation() {
    let functions = "(func)".repeat(20_001);
    let refused = compile(&format!("(module {MARKER} {functions})")).unwrap_err();
    assert_eq!(refused, ModuleError::TooLarge { what: "functions", found: 20_002, limit: 20_000 });
    let body = "nop ".repeat(300_000);
    let refused = compile(&format!("(module {MARKER} (func {body}))")).unwrap_err();
    assert!(matches!(refused, ModuleError::TooLarge { what: "bytes of a function", .. }), "{refused:?}");
    let refused = Module::compile(&Engine::new().unwrap().0, &vec![0; (32 << 20) + 1], None).unwrap_err();
    assert!(matches!(refused, ModuleError::TooLarge { what: "bytes", .. }));
}

#[test]
fn sandbox_wishes_that_cannot_be_kept_are_refused_by_field() {
    let engine = Engine::new().unwrap().0;
    let bytes = guest("add_header");
    let refused = |change: fn(&mut nantian_wasm::PluginConfig)| {
        plugin_of(&engine, &bytes, change).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|config| config.sandbox.allow_network = true),
        "sandbox.allow_network is set, and there is no host to make calls: see `Plugin::with_host`"
    );
    assert_eq!(
        refused(|config| config.sandbox.allow_file_system = true),
        "sandbox.allow_file_system is set, and no plugin has files"
    );
    assert_eq!(
        refused(|config| config.sandbox.max_memory = 1),
        "sandbox.max_memory: 1 is outside 64 KiB..=4 GiB"
    );
    assert_eq!(
        refused(|config| config.sandbox.max_execution_time = Duration::ZERO),
        "sandbox.max_execution_time: 0ns is outside 1 ms..=60 s"
    );
}

#[test]
fn guest_that_refuses_its_configuration_never_serves() {
    let refused = plugin_of(&Engine::new().unwrap().0, &guest("echo_config"), |config| {
        config.configuration = Bytes::new();
    });
    assert_eq!(refused.unwrap_err(), PluginError::Rejected { phase: Phase::Configure });
}

#[test]
fn start_functions_run_in_the_order_of_the_toolchains() {
    // A reactor's `_initialize` runs alone, `_start` only without it.
    let reactor =
        format!(r#"(module {MARKER} (func (export "_initialize")) (func (export "_start") unreachable))"#);
    assert!(plugin_of(&Engine::new().unwrap().0, &wat::parse_str(reactor).unwrap(), |_| {}).is_ok());
    let command = format!(r#"(module {MARKER} (func (export "_start") unreachable))"#);
    let refused = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(command).unwrap(), |_| {});
    assert!(matches!(refused, Err(PluginError::Start { phase: Phase::Start, .. })), "{refused:?}");
}

#[test]
fn a_program_in_the_place_of_a_library_is_called_one() {
    let start = |function: &str, code: u32| {
        let text = format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) {MARKER}
                (func (export "{function}") (call $exit (i32.const {code}))))"#
        );
        plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |_| {}).unwrap_err()
    };
    // As Go and TinyGo end `main`.
    assert_eq!(start("_start", 0), PluginError::Program);
    for (function, code) in [("_start", 1), ("_initialize", 0)] {
        let refused = PluginError::Start { phase: Phase::Start, cause: Cause::Exit { code } };
        assert_eq!(start(function, code), refused, "{function}");
    }
}

#[test]
fn callbacks_of_0_1_0_have_no_end_of_stream() {
    let text = r#"(module
        (import "env" "proxy_get_configuration" (func $get_configuration (param i32 i32) (result i32)))
        (import "env" "proxy_continue_request" (func))
        (import "env" "proxy_clear_route_cache" (func (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "x-old")
        (func (export "proxy_abi_version_0_1_0"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.eqz (call $get_configuration (i32.const 0) (i32.const 4))))
        (func (export "proxy_on_request_headers") (param i32 i32) (result i32)
            (drop (call $add_header (i32.const 0) (i32.const 64) (i32.const 5) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
            (i32.const 0)))"#;
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |config| {
        config.configuration = Bytes::from_static(b"verbatim");
    });
    assert_eq!(send([plugin.unwrap()], get("/")).request_header("x-old"), Some("verbatim"));
}

/// Names and types of everything modules made with the SDKs import: `i` is `i32`, `I` is `i64`.
const IMPORTS: &[(&str, &str, &str)] = &[
    ("proxy_log", "iii", "i"),
    ("proxy_get_log_level", "i", "i"),
    ("proxy_get_current_time_nanoseconds", "i", "i"),
    ("proxy_set_tick_period_milliseconds", "i", "i"),
    ("proxy_set_effective_context", "i", "i"),
    ("proxy_done", "", "i"),
    ("proxy_get_configuration", "ii", "i"),
    ("proxy_get_status", "iii", "i"),
    ("proxy_get_property", "iiii", "i"),
    ("proxy_set_property", "iiii", "i"),
    ("proxy_get_buffer_bytes", "iiiii", "i"),
    ("proxy_get_buffer_status", "iii", "i"),
    ("proxy_set_buffer_bytes", "iiiii", "i"),
    ("proxy_get_header_map_size", "ii", "i"),
    ("proxy_get_header_map_pairs", "iii", "i"),
    ("proxy_set_header_map_pairs", "iii", "i"),
    ("proxy_get_header_map_value", "iiiii", "i"),
    ("proxy_add_header_map_value", "iiiii", "i"),
    ("proxy_replace_header_map_value", "iiiii", "i"),
    ("proxy_remove_header_map_value", "iii", "i"),
    ("proxy_continue_stream", "i", "i"),
    ("proxy_close_stream", "i", "i"),
    ("proxy_continue_request", "", "i"),
    ("proxy_continue_response", "", ""),
    ("proxy_clear_route_cache", "", ""),
    ("proxy_send_local_response", "iiiiiiii", "i"),
    ("proxy_http_call", "iiiiiiiiii", "i"),
    ("proxy_grpc_call", "iiiiiiiiiiii", "i"),
    ("proxy_grpc_stream", "iiiiiiiii", "i"),
    ("proxy_grpc_send", "iiii", "i"),
    ("proxy_grpc_cancel", "i", "i"),
    ("proxy_grpc_close", "i", "i"),
    ("proxy_get_shared_data", "iiiii", "i"),
    ("proxy_set_shared_data", "iiiii", "i"),
    ("proxy_register_shared_queue", "iii", "i"),
    ("proxy_resolve_shared_queue", "iiiii", "i"),
    ("proxy_dequeue_shared_queue", "iii", "i"),
    ("proxy_enqueue_shared_queue", "iii", "i"),
    ("proxy_define_metric", "iiii", "i"),
    ("proxy_increment_metric", "iI", "i"),
    ("proxy_record_metric", "iI", "i"),
    ("proxy_get_metric", "ii", "i"),
    ("proxy_call_foreign_function", "iiiiii", "i"),
    ("proxy_redis_init", "iiiiiii", "i"),
    ("proxy_redis_call", "iiiii", "i"),
    ("proxy_inject_encoded_data_to_filter_chain", "iii", "i"),
    ("proxy_get_upstream_hosts", "ii", "i"),
    ("proxy_set_upstream_override_host", "ii", "i"),
    ("pthread_equal", "ii", "i"),
    ("emscripten_notify_memory_growth", "i", ""),
];

/// All of WASI preview 1.
const WASI: &[(&str, &str, &str)] = &[
    ("args_get", "ii", "i"),
    ("args_sizes_get", "ii", "i"),
    ("environ_get", "ii", "i"),
    ("environ_sizes_get", "ii", "i"),
    ("clock_res_get", "ii", "i"),
    ("clock_time_get", "iIi", "i"),
    ("fd_advise", "iIIi", "i"),
    ("fd_allocate", "iII", "i"),
    ("fd_close", "i", "i"),
    ("fd_datasync", "i", "i"),
    ("fd_fdstat_get", "ii", "i"),
    ("fd_fdstat_set_flags", "ii", "i"),
    ("fd_fdstat_set_rights", "iII", "i"),
    ("fd_filestat_get", "ii", "i"),
    ("fd_filestat_set_size", "iI", "i"),
    ("fd_filestat_set_times", "iIIi", "i"),
    ("fd_pread", "iiiIi", "i"),
    ("fd_prestat_get", "ii", "i"),
    ("fd_prestat_dir_name", "iii", "i"),
    ("fd_pwrite", "iiiIi", "i"),
    ("fd_read", "iiii", "i"),
    ("fd_readdir", "iiiIi", "i"),
    ("fd_renumber", "ii", "i"),
    ("fd_seek", "iIii", "i"),
    ("fd_sync", "i", "i"),
    ("fd_tell", "ii", "i"),
    ("fd_write", "iiii", "i"),
    ("path_create_directory", "iii", "i"),
    ("path_filestat_get", "iiiii", "i"),
    ("path_filestat_set_times", "iiiiIIi", "i"),
    ("path_link", "iiiiiii", "i"),
    ("path_open", "iiiiiIIii", "i"),
    ("path_readlink", "iiiiii", "i"),
    ("path_remove_directory", "iii", "i"),
    ("path_rename", "iiiiii", "i"),
    ("path_symlink", "iiiii", "i"),
    ("path_unlink_file", "iii", "i"),
    ("poll_oneoff", "iiii", "i"),
    ("proc_exit", "i", ""),
    ("proc_raise", "i", "i"),
    ("sched_yield", "", "i"),
    ("random_get", "ii", "i"),
    ("sock_accept", "iii", "i"),
    ("sock_recv", "iiiiii", "i"),
    ("sock_send", "iiiii", "i"),
    ("sock_shutdown", "ii", "i"),
];

#[test]
fn everything_the_sdks_import_links_however_often() {
    let types = |codes: &str| codes.replace('i', " i32").replace('I', " i64");
    let import = |module: &str, (name, params, results): &(&str, &str, &str)| {
        let (params, results) = (types(params), types(results));
        format!("(import \"{module}\" \"{name}\" (func (param{params}) (result{results})))\n")
    };
    for wasi in ["wasi_snapshot_preview1", "wasi_unstable"] {
        let mut imports: String = IMPORTS.iter().map(|function| import("env", function)).collect();
        imports.extend(WASI.iter().map(|function| import(wasi, function)));
        for text in [format!("(module {imports}{MARKER})"), format!("(module {imports}{imports}{MARKER})")] {
            let plugin =
                plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |_| {}).unwrap();
            assert_eq!(send([plugin], get("/")).status(), 200);
        }
    }
}
