//! The Proxy-Wasm ABI: what a guest exports, and what it may call.

mod abi;
mod authority;
mod buffers;
mod call_refusal;
mod call_request;
mod callouts;
mod calls;
mod contexts;
mod control;
mod edits;
mod guest;
mod header_interner;
mod headers;
mod joined;
mod maps;
mod memory;
mod metrics;
mod pairs;
mod pingora;
mod properties;
mod protobuf;
mod queues;
mod shared;
mod shim;
mod space;
mod state;
mod text;
mod wasi;

use std::sync::Arc;

use wasmtime::{Caller, Extern, ExternType, FuncType, Linker, Store, UnknownImportError, Val};

pub use self::abi::Abi;
use self::abi::Status;
pub(crate) use self::abi::{BodyVerdict, HeadersVerdict, MapKind};
pub(crate) use self::call_refusal::CallRefusal;
pub(crate) use self::calls::{CallKind, Received};
pub(crate) use self::contexts::Registered;
pub(crate) use self::edits::{excerpt, remove as remove_header};
pub(crate) use self::guest::{GUEST_EXPORTS, Guest, Headers};
pub(crate) use self::headers::of_exchange;
pub(crate) use self::joined::{join, join_cookies};
pub(crate) use self::pingora::{
    EXPORTS as PINGORA_EXPORTS, GET_BODY, MODULE as PINGORA, ON_REQUEST, ON_RESPONSE, ON_STREAM_CHUNK, Step,
    carry_out, set_kept,
};
pub(crate) use self::shared::SharedStore;
use self::shim::Shim;
pub use self::space::SharedSpace;
pub(crate) use self::state::{EpochAction, ROOT, SharedPlugin, State};
use crate::error::ModuleError;
use crate::module::Traits;

/// Links host functions that are plain Rust functions over `&mut Caller` and numbers.
macro_rules! link_functions {
    ($linker:ident, $( $name:literal => $function:path, ($($argument:ident: $type:ty),*); )*) => {
        $(
            $linker.func_wrap("env", $name, |mut caller: Caller<'_, State>, $($argument: $type),*| {
                if !caller.data().plugin.capabilities.allow($name) {
                    return Ok(Status::InternalFailure as u32);
                }
                memory::reply($function(&mut caller, $($argument),*))
            })?;
        )*
    };
}

/// Everything a guest may import, for all modules of an engine.
pub(crate) struct HostFunctions {
    linker: Linker<State>,
    shim: Arc<Shim>,
}

/// A module whose imports are all there.
pub(crate) struct LinkedModule {
    module: wasmtime::Module,
    linker: Linker<State>,
    shim: Arc<Shim>,
}

// === impl HostFunctions ===

impl HostFunctions {
    pub(crate) fn new(engine: &wasmtime::Engine) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        link_stream(&mut linker)?;
        link_plugin(&mut linker)?;
        link_calls(&mut linker)?;
        wasi::link(&mut linker)?;
        pingora::link(&mut linker)?;
        shim::link(&mut linker)?;
        let shim = Arc::new(Shim::new(engine, &linker)?);
        Ok(Self { linker, shim })
    }

    /// The module beside each guest.
    pub(crate) fn shim(&self) -> &wasmtime::Module {
        self.shim.module()
    }

    /// Links a module.
    pub(crate) fn link(&self, module: wasmtime::Module) -> Result<LinkedModule, ModuleError> {
        let mut linker = self.linker.clone();
        // Go's linker leaves an import twice that two packages declare.
        linker.allow_shadowing(true);
        for import in module.imports() {
            if let ExternType::Func(ty) = import.ty() {
                link_as_declared(&mut linker, import.module(), import.name(), ty).map_err(refused)?;
            }
        }
        match linker.instantiate_pre(&module) {
            Ok(_) => Ok(LinkedModule { module, linker, shim: Arc::clone(&self.shim) }),
            Err(error) if error.is::<UnknownImportError>() => {
                Err(ModuleError::UnknownImports { names: unknown(&mut linker, &module).map_err(refused)? })
            }
            Err(error) => Err(refused(error)),
        }
    }
}

// === impl LinkedModule ===

impl LinkedModule {
    /// Puts an instance and a shim beside it into a store, and runs the start section.
    pub(crate) async fn instantiate(
        &self,
        store: &mut Store<State>,
        traits: Traits,
    ) -> wasmtime::Result<Guest> {
        let shim = self.shim.start(store).await?;
        let mut imports = Vec::with_capacity(self.module.imports().len());
        for import in self.module.imports() {
            let function = shim.function(store, import.module(), import.name()).map(Extern::Func);
            let found = function.or_else(|| self.linker.get_by_import(&mut *store, &import));
            let missing =
                || wasmtime::Error::msg(format!("{}.{} is not there", import.module(), import.name()));
            imports.push(found.ok_or_else(missing)?);
        }
        let instance = wasmtime::Instance::new_async(&mut *store, &self.module, &imports).await?;
        Guest::of(&instance, store, traits, shim)
    }
}

/// Names the imports that are not there. The linker tells the first one only, so each gets a stand-in.
fn unknown(linker: &mut Linker<State>, module: &wasmtime::Module) -> wasmtime::Result<Vec<String>> {
    let mut names = Vec::new();
    while let Err(error) = linker.instantiate_pre(module) {
        let Some(unknown) = error.downcast_ref::<UnknownImportError>() else { break };
        names.push(format!("{}.{}", unknown.module(), unknown.name()));
        let ExternType::Func(ty) = unknown.ty() else { break };
        linker.func_new(unknown.module(), unknown.name(), ty, |_, _, _| Ok(()))?;
    }
    Ok(names)
}

fn refused(error: wasmtime::Error) -> ModuleError {
    ModuleError::MistypedImport { reason: format!("{error:#}") }
}

/// Headers, bodies and the fate of a stream.
fn link_stream(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    link_functions! { linker,
        "proxy_get_header_map_size" => maps::get_size, (map: u32, size: u32);
        "proxy_set_header_map_pairs" => maps::set_pairs, (map: u32, data: u32, size: u32);
        "proxy_add_header_map_value" => maps::add, (map: u32, key: u32, key_size: u32, value: u32, size: u32);
        "proxy_replace_header_map_value" => maps::replace, (map: u32, key: u32, key_size: u32, value: u32, size: u32);
        "proxy_remove_header_map_value" => maps::remove, (map: u32, key: u32, key_size: u32);
        "proxy_get_buffer_status" => buffers::get_status, (kind: u32, size: u32, flags: u32);
        "proxy_set_buffer_bytes" => buffers::set_bytes, (kind: u32, start: u32, size: u32, data: u32, new_size: u32);
        "proxy_continue_stream" => control::continue_stream, (stream: u32);
        "proxy_close_stream" => control::close_stream, (stream: u32);
        "proxy_send_local_response" => control::send_local_response, (
            status: u32, details: u32, details_size: u32, body: u32, body_size: u32,
            headers: u32, headers_size: u32, grpc_status: i32
        );
        "proxy_set_property" => properties::set, (path: u32, path_size: u32, data: u32, size: u32);
    }
    Ok(())
}

/// Logs, time, contexts, shared data and metrics.
fn link_plugin(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    link_functions! { linker,
        "proxy_log" => control::log, (level: u32, message: u32, size: u32);
        "proxy_get_log_level" => control::get_log_level, (level: u32);
        "proxy_get_current_time_nanoseconds" => control::get_current_time, (time: u32);
        "proxy_set_tick_period_milliseconds" => control::set_tick_period, (period: u32);
        "proxy_set_effective_context" => control::set_effective_context, (context: u32);
        "proxy_done" => control::done, ();
        "proxy_set_shared_data" => shared::set_data, (key: u32, key_size: u32, data: u32, size: u32, cas: u32);
        "proxy_define_metric" => metrics::define_metric, (kind: u32, name: u32, name_size: u32, id: u32);
        "proxy_record_metric" => metrics::record_metric, (id: u32, value: u64);
        "proxy_increment_metric" => metrics::increment_metric, (id: u32, offset: i64);
        "proxy_get_metric" => metrics::get_metric, (id: u32, value: u32);
    }
    // Left behind by Emscripten in C++ guests, and no capabilities: they reach nothing.
    linker.func_wrap("env", "pthread_equal", |left: u32, right: u32| u32::from(left == right))?;
    linker.func_wrap("env", "emscripten_notify_memory_growth", |_: u32| {})?;
    Ok(())
}

/// Call-outs, foreign functions and queues.
fn link_calls(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    link_functions! { linker,
        "proxy_http_call" => callouts::http_call, (
            upstream: u32, upstream_size: u32, headers: u32, headers_size: u32, body: u32, body_size: u32,
            trailers: u32, trailers_size: u32, timeout: i32, id: u32
        );
        "proxy_grpc_call" => callouts::grpc_call, (
            upstream: u32, upstream_size: u32, service: u32, service_size: u32, method: u32, method_size: u32,
            metadata: u32, metadata_size: u32, message: u32, message_size: u32, timeout: u32, id: u32
        );
        "proxy_grpc_stream" => callouts::grpc_stream, (
            upstream: u32, upstream_size: u32, service: u32, service_size: u32, method: u32, method_size: u32,
            metadata: u32, metadata_size: u32, id: u32
        );
        "proxy_grpc_send" => callouts::grpc_send, (id: u32, message: u32, size: u32, end: u32);
        "proxy_grpc_cancel" => callouts::grpc_cancel, (id: u32);
        "proxy_grpc_close" => callouts::grpc_close, (id: u32);
        "proxy_register_shared_queue" => queues::register, (name: u32, name_size: u32, token: u32);
        "proxy_resolve_shared_queue" => queues::resolve, (
            vm_id: u32, vm_id_size: u32, name: u32, name_size: u32, token: u32
        );
        "proxy_enqueue_shared_queue" => queues::enqueue, (token: u32, data: u32, size: u32);
    }
    Ok(())
}

/// Links functions about whose types hosts disagree, with the type the module declares; others are left
/// alone.
fn link_as_declared(
    linker: &mut Linker<State>,
    module: &str,
    name: &str,
    ty: FuncType,
) -> wasmtime::Result<()> {
    if !ty.results().all(|result| result.is_i32()) {
        return Ok(());
    }
    let Some((function, denied)) = as_declared(module, name) else { return Ok(()) };
    let capability = name.to_owned();
    linker.func_new(module, name, ty, move |mut caller, _, results| {
        let code = match function {
            _ if !caller.data().plugin.capabilities.allow(&capability) => denied,
            AsDeclared::Answer(code) => code,
            AsDeclared::ClearRouteCache => {
                callouts::clear_route_cache(caller.data());
                Status::Ok as i32
            }
            AsDeclared::Continue(stream) => {
                memory::reply(control::continue_stream(&mut caller, stream))?.cast_signed()
            }
        };
        results.fill(Val::I32(code));
        Ok(())
    })?;
    Ok(())
}

/// A function that takes nothing from its arguments.
#[derive(Clone, Copy)]
enum AsDeclared {
    /// It answers this.
    Answer(i32),
    ClearRouteCache,
    /// It is 0.1.0's way to continue this stream.
    Continue(u32),
}

/// Such a function, and what it answers a plugin that may not call it.
fn as_declared(module: &str, name: &str) -> Option<(AsDeclared, i32)> {
    let denied = Status::InternalFailure as i32;
    match (module, name) {
        ("env", "proxy_continue_request") => Some((AsDeclared::Continue(0), denied)),
        ("env", "proxy_continue_response") => Some((AsDeclared::Continue(1), denied)),
        ("env", "proxy_clear_route_cache") => Some((AsDeclared::ClearRouteCache, denied)),
        ("env", _) => {
            let (_, status) = callouts::CONSTANT.iter().find(|(known, _)| *known == name)?;
            Some((AsDeclared::Answer(*status as i32), denied))
        }
        _ if wasi::MODULES.contains(&module) => {
            let (_, errno) = wasi::INERT.iter().find(|(known, _)| *known == name)?;
            Some((AsDeclared::Answer(errno.cast_signed()), wasi::NOTCAPABLE.cast_signed()))
        }
        _ => None,
    }
}
