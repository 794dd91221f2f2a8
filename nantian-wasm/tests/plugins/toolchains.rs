//! Modules as toolchains make them: what they import and export besides callbacks, and how they are started.
//!
//! The lists of Go, the C++ SDK and AssemblyScript are those of modules that were built with them, the other
//! ones what their documentation promises; Rust's own are built by the tests in `sdk.rs`.

use nantian_wasm::Engine;

use crate::support::{get, plugin_of, send};

/// What a toolchain puts around the callbacks of a plugin.
struct Toolchain {
    name: &'static str,
    marker: &'static str,
    /// Module, name, parameters and results of each import, one letter for a type.
    imports: &'static [(&'static str, &'static str, &'static str, &'static str)],
    allocator: &'static str,
    /// Started like this, after which it has `$started`.
    start: &'static str,
    /// Parameters of the callback of the request's headers.
    header_parameters: usize,
}

const WASI: &str = "wasi_snapshot_preview1";
const START: &str = "(global.set $started (i32.add (global.get $started) (i32.const 1)))";

const TOOLCHAINS: &[Toolchain] = &[
    // `GOOS=wasip1 go build -buildmode=c-shared`, Go 1.24 and later.
    Toolchain {
        name: "Go",
        marker: "proxy_abi_version_0_2_1",
        imports: &[
            (WASI, "sched_yield", "", "i"),
            (WASI, "proc_exit", "i", ""),
            (WASI, "args_get", "ii", "i"),
            (WASI, "args_sizes_get", "ii", "i"),
            (WASI, "clock_time_get", "iIi", "i"),
            (WASI, "environ_get", "ii", "i"),
            (WASI, "environ_sizes_get", "ii", "i"),
            (WASI, "fd_write", "iiii", "i"),
            (WASI, "random_get", "ii", "i"),
            (WASI, "poll_oneoff", "iiii", "i"),
            (WASI, "fd_close", "i", "i"),
            (WASI, "fd_read", "iiii", "i"),
            (WASI, "fd_filestat_get", "ii", "i"),
            (WASI, "path_filestat_get", "iiiii", "i"),
            (WASI, "path_open", "iiiiiIIii", "i"),
            (WASI, "fd_fdstat_get", "ii", "i"),
            (WASI, "fd_fdstat_set_flags", "ii", "i"),
            (WASI, "fd_prestat_get", "ii", "i"),
            (WASI, "fd_prestat_dir_name", "iii", "i"),
        ],
        allocator: "proxy_on_memory_allocate",
        start: "_initialize",
        header_parameters: 3,
    },
    // `tinygo build -target=wasi`: a command whose `main` registers the plugin and returns.
    Toolchain {
        name: "TinyGo",
        marker: "proxy_abi_version_0_2_0",
        imports: &[
            (WASI, "fd_write", "iiii", "i"),
            (WASI, "clock_time_get", "iIi", "i"),
            (WASI, "args_sizes_get", "ii", "i"),
            (WASI, "args_get", "ii", "i"),
            (WASI, "environ_sizes_get", "ii", "i"),
            (WASI, "environ_get", "ii", "i"),
            (WASI, "random_get", "ii", "i"),
        ],
        allocator: "proxy_on_memory_allocate",
        start: "_start",
        header_parameters: 3,
    },
    // The C++ SDK: `em++ -s STANDALONE_WASM=1 --no-entry`, with the allocator of the C library.
    Toolchain {
        name: "C++",
        marker: "proxy_abi_version_0_2_1",
        imports: &[
            ("env", "emscripten_notify_memory_growth", "i", ""),
            (WASI, "proc_exit", "i", ""),
            (WASI, "fd_close", "i", "i"),
            (WASI, "fd_seek", "iIii", "i"),
            (WASI, "fd_write", "iiii", "i"),
            (WASI, "environ_sizes_get", "ii", "i"),
            (WASI, "environ_get", "ii", "i"),
            (WASI, "clock_time_get", "iIi", "i"),
        ],
        allocator: "malloc",
        start: "_initialize",
        header_parameters: 3,
    },
    // The same for the first Istio with plugins.
    Toolchain {
        name: "C++ of 2019",
        marker: "proxy_abi_version_0_1_0",
        imports: &[
            ("env", "proxy_get_configuration", "ii", "i"),
            ("env", "proxy_clear_route_cache", "", "i"),
            ("wasi_unstable", "fd_write", "iiii", "i"),
            ("wasi_unstable", "proc_exit", "i", ""),
            ("env", "emscripten_notify_memory_growth", "i", ""),
        ],
        allocator: "malloc",
        start: "_start",
        header_parameters: 2,
    },
    // AssemblyScript with `--use abort=abort_proc_exit`, which initialises its globals in a start function.
    Toolchain {
        name: "AssemblyScript",
        marker: "proxy_abi_version_0_2_0",
        imports: &[
            ("wasi_unstable", "proc_exit", "i", ""),
            ("env", "proxy_get_buffer_bytes", "iiiii", "i"),
            ("env", "proxy_set_effective_context", "i", "i"),
        ],
        allocator: "malloc",
        start: "",
        header_parameters: 3,
    },
    // Zig and C with no library at all.
    Toolchain {
        name: "freestanding",
        marker: "proxy_abi_version_0_2_100",
        imports: &[("env", "proxy_get_log_level", "i", "i")],
        allocator: "proxy_on_memory_allocate",
        start: "",
        header_parameters: 3,
    },
];

// === impl Toolchain ===

impl Toolchain {
    /// A plugin that puts the path into `x-path`, if it was started once and got its configuration.
    fn module(&self) -> String {
        let types = |codes: &str| codes.replace('i', " i32").replace('I', " i64");
        let imports = self.imports.iter().map(|(module, name, parameters, results)| {
            let (parameters, results) = (types(parameters), types(results));
            format!("(import \"{module}\" \"{name}\" (func (param{parameters}) (result{results})))\n")
        });
        let start = match self.start {
            "" => format!("(func $start {START}) (start $start)"),
            start => format!("(func (export \"{start}\") {START})"),
        };
        let (imports, parameters) = (imports.collect::<String>(), "i32 ".repeat(self.header_parameters));
        let Self { marker, allocator, .. } = self;
        format!(
            r#"(module
            {imports}
            (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (table (export "__indirect_function_table") 1 funcref)
            (data (i32.const 16) ":path")
            (data (i32.const 32) "x-path")
            (global $started (mut i32) (i32.const 0))
            (func (export "{marker}"))
            {start}
            (func (export "{allocator}") (param i32) (result i32) (i32.const 1024))
            (func (export "free") (param i32))
            (func (export "proxy_validate_configuration") (param i32 i32) (result i32) unreachable)
            (func (export "proxy_on_context_create") (param i32 i32))
            (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
                (i32.eq (global.get $started) (i32.const 1)))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (i32.eq (local.get 1) (i32.const 6)))
            (func (export "proxy_on_request_headers") (param {parameters}) (result i32)
                (drop (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4)))
                (call $add (i32.const 0) (i32.const 32) (i32.const 6)
                    (i32.load (i32.const 0)) (i32.load (i32.const 4))))
            (func (export "proxy_on_request_metadata") (param i32 i32) (result i32) unreachable)
            (func (export "proxy_on_new_connection") (param i32) (result i32) unreachable)
            (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
            (func (export "proxy_on_log") (param i32))
            (func (export "proxy_on_delete") (param i32)))"#
        )
    }
}

#[test]
fn modules_of_every_toolchain_are_started_and_serve() {
    for toolchain in TOOLCHAINS {
        let module = wat::parse_str(toolchain.module()).unwrap();
        let plugin =
            plugin_of(&Engine::new().unwrap().0, &module, |config| config.configuration = "config".into())
                .unwrap_or_else(|error| panic!("{}: {error:?}", toolchain.name));
        let seen = send([plugin], get("/things"));
        assert_eq!(
            (seen.status(), seen.request_header("x-path")),
            (200, Some("/things")),
            "{}",
            toolchain.name
        );
    }
}
