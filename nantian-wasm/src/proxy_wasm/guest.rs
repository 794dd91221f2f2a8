//! What a guest exports, looked up once per instance.

use wasmtime::{AsContextMut, Instance, Memory, TypedFunc, WasmParams, WasmResults};

/// Exports with a meaning, and the shapes each may have: numbers of parameters and results, all `i32`.
pub(crate) const GUEST_EXPORTS: &[(&str, &[(usize, usize)])] = &[
    ("_initialize", &[(0, 0)]),
    ("_start", &[(0, 0)]),
    ("malloc", &[(1, 1)]),
    ("proxy_on_memory_allocate", &[(1, 1)]),
    ("proxy_on_context_create", &[(2, 0)]),
    ("proxy_on_vm_start", &[(2, 1)]),
    ("proxy_on_configure", &[(2, 1)]),
    ("proxy_on_tick", &[(1, 0)]),
    ("proxy_on_request_headers", &[(3, 1), (2, 1)]),
    ("proxy_on_request_body", &[(3, 1)]),
    ("proxy_on_request_trailers", &[(2, 1)]),
    ("proxy_on_response_headers", &[(3, 1), (2, 1)]),
    ("proxy_on_response_body", &[(3, 1)]),
    ("proxy_on_response_trailers", &[(2, 1)]),
    ("proxy_on_done", &[(1, 1)]),
    ("proxy_on_log", &[(1, 0)]),
    ("proxy_on_delete", &[(1, 0)]),
];

/// A callback that answers with an action.
pub(crate) type Callback<P> = Option<TypedFunc<P, u32>>;

/// The callbacks of one instance; absent ones are skipped.
pub(crate) struct Guest {
    pub(crate) memory: Option<Memory>,
    pub(crate) allocator: Callback<u32>,
    pub(crate) initialize: Option<TypedFunc<(), ()>>,
    pub(crate) start: Option<TypedFunc<(), ()>>,
    /// C++ modules run their `main` after `_initialize`.
    pub(crate) main: Callback<(u32, u32)>,
    pub(crate) on_context_create: Option<TypedFunc<(u32, u32), ()>>,
    pub(crate) on_vm_start: Callback<(u32, u32)>,
    pub(crate) on_configure: Callback<(u32, u32)>,
    pub(crate) on_tick: Option<TypedFunc<u32, ()>>,
    pub(crate) on_request_headers: Headers,
    pub(crate) on_request_body: Callback<(u32, u32, u32)>,
    pub(crate) on_request_trailers: Callback<(u32, u32)>,
    pub(crate) on_response_headers: Headers,
    pub(crate) on_response_body: Callback<(u32, u32, u32)>,
    pub(crate) on_response_trailers: Callback<(u32, u32)>,
    pub(crate) on_done: Callback<u32>,
    pub(crate) on_log: Option<TypedFunc<u32, ()>>,
    pub(crate) on_delete: Option<TypedFunc<u32, ()>>,
}

/// A header callback: 0.1.0 does not say whether the stream ends with the headers.
pub(crate) enum Headers {
    Absent,
    Short(TypedFunc<(u32, u32), u32>),
    Long(TypedFunc<(u32, u32, u32), u32>),
}

// === impl Guest ===

impl Guest {
    /// Looks the exports up; their types were checked before the module was compiled.
    pub(crate) fn of(instance: &Instance, mut store: impl AsContextMut) -> Self {
        let mut store = store.as_context_mut();
        Self {
            memory: instance.get_memory(&mut store, "memory"),
            allocator: find(instance, &mut store, "proxy_on_memory_allocate")
                .or_else(|| find(instance, &mut store, "malloc")),
            initialize: find(instance, &mut store, "_initialize"),
            start: find(instance, &mut store, "_start"),
            main: find(instance, &mut store, "main"),
            on_context_create: find(instance, &mut store, "proxy_on_context_create"),
            on_vm_start: find(instance, &mut store, "proxy_on_vm_start"),
            on_configure: find(instance, &mut store, "proxy_on_configure"),
            on_tick: find(instance, &mut store, "proxy_on_tick"),
            on_request_headers: headers(instance, &mut store, "proxy_on_request_headers"),
            on_request_body: find(instance, &mut store, "proxy_on_request_body"),
            on_request_trailers: find(instance, &mut store, "proxy_on_request_trailers"),
            on_response_headers: headers(instance, &mut store, "proxy_on_response_headers"),
            on_response_body: find(instance, &mut store, "proxy_on_response_body"),
            on_response_trailers: find(instance, &mut store, "proxy_on_response_trailers"),
            on_done: find(instance, &mut store, "proxy_on_done"),
            on_log: find(instance, &mut store, "proxy_on_log"),
            on_delete: find(instance, &mut store, "proxy_on_delete"),
        }
    }
}

fn find<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    mut store: impl AsContextMut,
    name: &str,
) -> Option<TypedFunc<P, R>> {
    let function = instance.get_func(&mut store, name)?;
    function.typed(&store).ok()
}

fn headers(instance: &Instance, mut store: impl AsContextMut, name: &str) -> Headers {
    if let Some(long) = find(instance, &mut store, name) {
        return Headers::Long(long);
    }
    find(instance, &mut store, name).map_or(Headers::Absent, Headers::Short)
}
