//! What a guest exports, looked up once per instance.

use super::abi::Abi;
use wasmtime::{AsContextMut, Instance, Memory, TypedFunc, WasmParams, WasmResults};

use super::pingora::{self, Verdicts};
use super::state::Facts;
use crate::config::Capabilities;
use crate::module::Traits;

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
    ("proxy_on_http_call_response", &[(5, 0)]),
    ("proxy_on_grpc_receive_initial_metadata", &[(3, 0)]),
    ("proxy_on_grpc_receive", &[(3, 0)]),
    ("proxy_on_grpc_receive_trailing_metadata", &[(3, 0)]),
    ("proxy_on_grpc_close", &[(3, 0)]),
    ("proxy_on_queue_ready", &[(2, 0)]),
    ("proxy_on_done", &[(1, 1)]),
    ("proxy_on_log", &[(1, 0)]),
    ("proxy_on_delete", &[(1, 0)]),
];

/// Allocates memory for what the guest asks for: not a callback about anything that happens.
const ALLOCATOR: &str = "proxy_on_memory_allocate";

/// A callback that answers with an action.
pub(crate) type Callback<P> = Option<TypedFunc<P, u32>>;

/// What `proxy_on_http_call_response` takes: root context, id, headers, body bytes, trailers.
type CallResponse = (u32, u32, u32, u32, u32);

/// A callback about something that arrived.
pub(crate) type Notice = Option<TypedFunc<(u32, u32, u32), ()>>;

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
    pub(crate) on_http_call_response: Option<TypedFunc<CallResponse, ()>>,
    pub(crate) on_grpc_initial_metadata: Notice,
    pub(crate) on_grpc_receive: Notice,
    pub(crate) on_grpc_trailing_metadata: Notice,
    pub(crate) on_grpc_close: Notice,
    pub(crate) on_queue_ready: Option<TypedFunc<(u32, u32), ()>>,
    pub(crate) on_done: Callback<u32>,
    pub(crate) on_log: Option<TypedFunc<u32, ()>>,
    pub(crate) on_delete: Option<TypedFunc<u32, ()>>,
    /// The hooks of the other ABI, whose modules have none of the callbacks above.
    pub(crate) verdicts: Option<Verdicts>,
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
    pub(crate) fn of(
        instance: &Instance,
        mut store: impl AsContextMut,
        facts: &Facts,
        traits: Traits,
    ) -> Self {
        let mut store = store.as_context_mut();
        let instance = &Exports { instance, capabilities: &facts.capabilities };
        let verdicts = (traits.abi == Abi::Pingora).then(|| Verdicts {
            on_request: find(instance, &mut store, pingora::ON_REQUEST),
            on_response: find(instance, &mut store, pingora::ON_RESPONSE),
            on_stream_chunk: find(instance, &mut store, pingora::ON_STREAM_CHUNK),
            alloc: find(instance, &mut store, pingora::ALLOC),
            reads_body: traits.reads_body,
        });
        Self {
            memory: instance.instance.get_memory(&mut store, "memory"),
            allocator: find(instance, &mut store, ALLOCATOR).or_else(|| find(instance, &mut store, "malloc")),
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
            on_http_call_response: find(instance, &mut store, "proxy_on_http_call_response"),
            on_grpc_initial_metadata: find(instance, &mut store, "proxy_on_grpc_receive_initial_metadata"),
            on_grpc_receive: find(instance, &mut store, "proxy_on_grpc_receive"),
            on_grpc_trailing_metadata: find(instance, &mut store, "proxy_on_grpc_receive_trailing_metadata"),
            on_grpc_close: find(instance, &mut store, "proxy_on_grpc_close"),
            on_queue_ready: find(instance, &mut store, "proxy_on_queue_ready"),
            on_done: find(instance, &mut store, "proxy_on_done"),
            on_log: find(instance, &mut store, "proxy_on_log"),
            on_delete: find(instance, &mut store, "proxy_on_delete"),
            verdicts: verdicts.map(|verdicts| verdicts.only(facts.hooks)),
        }
    }
}

/// What an instance exports and may be called for.
struct Exports<'a> {
    instance: &'a Instance,
    capabilities: &'a Capabilities,
}

fn find<P: WasmParams, R: WasmResults>(
    exports: &Exports<'_>,
    mut store: impl AsContextMut,
    name: &str,
) -> Option<TypedFunc<P, R>> {
    if name.starts_with("proxy_on_") && name != ALLOCATOR && !exports.capabilities.allow(name) {
        return None;
    }
    let function = exports.instance.get_func(&mut store, name)?;
    function.typed(&store).ok()
}

fn headers(exports: &Exports<'_>, mut store: impl AsContextMut, name: &str) -> Headers {
    if let Some(long) = find(exports, &mut store, name) {
        return Headers::Long(long);
    }
    find(exports, &mut store, name).map_or(Headers::Absent, Headers::Short)
}
