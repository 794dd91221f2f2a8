//! What a guest exports, looked up once per instance.

use std::sync::Arc;

use wasmtime::{Func, Instance, Memory, Store, TypedFunc, WasmParams, WasmResults};

use super::abi::Abi;
use super::pingora::{self, Verdicts};
use super::shim::{Callback, ShimInstance};
use super::state::State;
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
pub(crate) type Answer<P> = Option<TypedFunc<P, u32>>;

/// What `proxy_on_http_call_response` takes: root context, id, headers, body bytes, trailers.
type CallResponse = (u32, u32, u32, u32, u32);

/// A callback about something that arrived.
pub(crate) type Notice = Option<TypedFunc<(u32, u32, u32), ()>>;

/// The callbacks of one instance; absent ones are skipped.
pub(crate) struct Guest {
    pub(crate) memory: Option<Memory>,
    pub(crate) initialize: Option<TypedFunc<(), ()>>,
    pub(crate) start: Option<TypedFunc<(), ()>>,
    /// C++ modules run their `main` after `_initialize`.
    pub(crate) main: Answer<(u32, u32)>,
    pub(crate) on_context_create: Option<TypedFunc<(u32, u32), ()>>,
    pub(crate) on_vm_start: Answer<(u32, u32)>,
    pub(crate) on_configure: Answer<(u32, u32)>,
    pub(crate) on_tick: Option<TypedFunc<u32, ()>>,
    pub(crate) on_request_headers: Headers,
    pub(crate) on_request_body: Answer<(u32, u32, u32)>,
    pub(crate) on_request_trailers: Answer<(u32, u32)>,
    pub(crate) on_response_headers: Headers,
    pub(crate) on_response_body: Answer<(u32, u32, u32)>,
    pub(crate) on_response_trailers: Answer<(u32, u32)>,
    pub(crate) on_http_call_response: Option<TypedFunc<CallResponse, ()>>,
    pub(crate) on_grpc_initial_metadata: Notice,
    pub(crate) on_grpc_receive: Notice,
    pub(crate) on_grpc_trailing_metadata: Notice,
    pub(crate) on_grpc_close: Notice,
    pub(crate) on_queue_ready: Option<TypedFunc<(u32, u32), ()>>,
    /// Creation of a context and the headers of its request; absent where a guest has not both in their usual
    /// form.
    pub(crate) begin: Answer<(u32, u32, u32, u32)>,
    /// Log, done and delete, as many of them as there are.
    pub(crate) end: Option<TypedFunc<u32, ()>>,
    /// Log alone, for streams of several plugins, and what follows it.
    pub(crate) on_log: Option<TypedFunc<u32, ()>>,
    pub(crate) finish: Option<TypedFunc<u32, ()>>,
    /// Those of the root context.
    pub(crate) on_done: Answer<u32>,
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

/// What an instance exports and may be called for.
struct Exports<'a> {
    instance: &'a Instance,
    capabilities: &'a Capabilities,
}

// === impl Guest ===

impl Guest {
    /// Looks the exports up, whose types were checked before the module was compiled, and gives the shim
    /// those it calls.
    pub(super) fn of(
        instance: &Instance,
        store: &mut Store<State>,
        traits: Traits,
        shim: ShimInstance,
    ) -> wasmtime::Result<Self> {
        let plugin = Arc::clone(&store.data().plugin);
        let instance = &Exports { instance, capabilities: &plugin.capabilities };
        let verdicts = (traits.abi == Abi::Pingora).then(|| Verdicts {
            on_request: find(instance, store, pingora::ON_REQUEST),
            on_response: find(instance, store, pingora::ON_RESPONSE),
            on_stream_chunk: find(instance, store, pingora::ON_STREAM_CHUNK),
            reads_body: traits.reads_body,
        });
        let allocators: &[&str] = if verdicts.is_some() { &[pingora::ALLOC] } else { &[ALLOCATOR, "malloc"] };
        let allocator = allocators.iter().find_map(|name| instance.function(store, name));
        let on_request_headers = headers(instance, store, "proxy_on_request_headers");
        let on_context_create = find(instance, store, "proxy_on_context_create");
        let ends = [
            (Callback::Log, instance.function(store, "proxy_on_log")),
            (Callback::Done, instance.function(store, "proxy_on_done")),
            (Callback::Delete, instance.function(store, "proxy_on_delete")),
        ];
        let has_end = ends.iter().any(|(_, function)| function.is_some());
        let begins = [
            (Callback::Allocate, allocator),
            (Callback::Create, on_context_create.as_ref().map(TypedFunc::func).copied()),
            (Callback::RequestHeaders, on_request_headers.long().map(TypedFunc::func).copied()),
        ];
        for (callback, function) in begins.into_iter().chain(ends) {
            if let Some(function) = function {
                shim.set(store, callback, function)?;
            }
        }
        let memory = instance.instance.get_memory(&mut *store, "memory");
        let state = store.data_mut();
        (state.memory, state.has_allocator) = (memory, allocator.is_some());
        Ok(Self {
            memory,
            initialize: find(instance, store, "_initialize"),
            start: find(instance, store, "_start"),
            main: find(instance, store, "main"),
            on_context_create,
            on_vm_start: find(instance, store, "proxy_on_vm_start"),
            on_configure: find(instance, store, "proxy_on_configure"),
            on_tick: find(instance, store, "proxy_on_tick"),
            begin: on_request_headers.long().filter(|_| verdicts.is_none()).map(|_| shim.begin),
            on_request_headers,
            on_request_body: find(instance, store, "proxy_on_request_body"),
            on_request_trailers: find(instance, store, "proxy_on_request_trailers"),
            on_response_headers: headers(instance, store, "proxy_on_response_headers"),
            on_response_body: find(instance, store, "proxy_on_response_body"),
            on_response_trailers: find(instance, store, "proxy_on_response_trailers"),
            on_http_call_response: find(instance, store, "proxy_on_http_call_response"),
            on_grpc_initial_metadata: find(instance, store, "proxy_on_grpc_receive_initial_metadata"),
            on_grpc_receive: find(instance, store, "proxy_on_grpc_receive"),
            on_grpc_trailing_metadata: find(instance, store, "proxy_on_grpc_receive_trailing_metadata"),
            on_grpc_close: find(instance, store, "proxy_on_grpc_close"),
            on_queue_ready: find(instance, store, "proxy_on_queue_ready"),
            end: has_end.then_some(shim.end),
            on_log: find(instance, store, "proxy_on_log"),
            finish: has_end.then_some(shim.finish),
            on_done: find(instance, store, "proxy_on_done"),
            on_delete: find(instance, store, "proxy_on_delete"),
            verdicts: verdicts.map(|verdicts| verdicts.only(plugin.hooks)),
        })
    }
}

// === impl Headers ===

impl Headers {
    fn long(&self) -> Option<&TypedFunc<(u32, u32, u32), u32>> {
        match self {
            Self::Long(callback) => Some(callback),
            Self::Absent | Self::Short(_) => None,
        }
    }
}

// === impl Exports ===

impl Exports<'_> {
    /// A function, unless it is a callback that is not to be called.
    fn function(&self, store: &mut Store<State>, name: &str) -> Option<Func> {
        let is_callback = name.starts_with("proxy_on_") || pingora::HOOKS.contains(&name);
        if is_callback && name != ALLOCATOR && !self.capabilities.allow(name) {
            return None;
        }
        self.instance.get_func(store, name)
    }
}

fn find<P: WasmParams, R: WasmResults>(
    exports: &Exports<'_>,
    store: &mut Store<State>,
    name: &str,
) -> Option<TypedFunc<P, R>> {
    exports.function(store, name)?.typed(&*store).ok()
}

fn headers(exports: &Exports<'_>, store: &mut Store<State>, name: &str) -> Headers {
    if let Some(long) = find(exports, store, name) {
        return Headers::Long(long);
    }
    find(exports, store, name).map_or(Headers::Absent, Headers::Short)
}
