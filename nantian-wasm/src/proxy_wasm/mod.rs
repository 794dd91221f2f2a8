//! The Proxy-Wasm ABI: what a guest exports, and what it may call.

mod abi;
mod authority;
mod buffers;
mod callouts;
mod control;
mod guest;
mod headers;
mod host;
mod maps;
mod memory;
mod pairs;
mod properties;
mod shared;
mod wasi;

use wasmtime::{Caller, ExternType, FuncType, InstancePre, Linker, Val};

pub use self::abi::Abi;
pub(crate) use self::abi::{MapKind, Verdict};
pub(crate) use self::guest::{GUEST_EXPORTS, Guest, Headers};
pub(crate) use self::headers::count;
pub(crate) use self::host::{Facts, Host, ROOT};
pub(crate) use self::shared::Shared;
use crate::error::ModuleError;

/// Links host functions that are plain Rust functions over `&mut Caller` and numbers.
macro_rules! link_functions {
    ($linker:ident, $( $name:literal => $function:path, ($($argument:ident: $type:ty),*); )*) => {
        $(
            $linker.func_wrap("env", $name, |mut caller: Caller<'_, Host>, $($argument: $type),*| {
                memory::reply($function(&mut caller, $($argument),*))
            })?;
        )*
    };
}

/// Links a module against everything a guest may import.
pub(crate) fn link(
    engine: &wasmtime::Engine,
    module: &wasmtime::Module,
) -> Result<InstancePre<Host>, ModuleError> {
    let mut linker = Linker::new(engine);
    link_all(&mut linker, module).map_err(refused)?;
    linker.instantiate_pre(module).map_err(refused)
}

fn refused(error: wasmtime::Error) -> ModuleError {
    match error.downcast_ref::<wasmtime::UnknownImportError>() {
        Some(unknown) => ModuleError::UnknownImport {
            module: unknown.module().to_owned(),
            name: unknown.name().to_owned(),
        },
        None => ModuleError::MistypedImport { reason: format!("{error:#}") },
    }
}

fn link_all(linker: &mut Linker<Host>, module: &wasmtime::Module) -> wasmtime::Result<()> {
    link_stream(linker)?;
    link_plugin(linker)?;
    wasi::link(linker)?;
    for import in module.imports() {
        if let ExternType::Func(ty) = import.ty() {
            link_as_declared(linker, import.module(), import.name(), ty)?;
        }
    }
    Ok(())
}

/// Headers, bodies and the fate of a stream.
fn link_stream(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    link_functions! { linker,
        "proxy_get_header_map_size" => maps::get_size, (map: u32, size: u32);
        "proxy_get_header_map_pairs" => maps::get_pairs, (map: u32, data: u32, size: u32);
        "proxy_get_header_map_value" => maps::get_value, (map: u32, key: u32, key_size: u32, data: u32, size: u32);
        "proxy_set_header_map_pairs" => maps::set_pairs, (map: u32, data: u32, size: u32);
        "proxy_add_header_map_value" => maps::add, (map: u32, key: u32, key_size: u32, value: u32, size: u32);
        "proxy_replace_header_map_value" => maps::replace, (map: u32, key: u32, key_size: u32, value: u32, size: u32);
        "proxy_remove_header_map_value" => maps::remove, (map: u32, key: u32, key_size: u32);
        "proxy_get_buffer_bytes" => buffers::get_bytes, (kind: u32, start: u32, max: u32, data: u32, size: u32);
        "proxy_get_buffer_status" => buffers::get_status, (kind: u32, size: u32, flags: u32);
        "proxy_set_buffer_bytes" => buffers::set_bytes, (kind: u32, start: u32, size: u32, data: u32, new_size: u32);
        "proxy_continue_stream" => control::continue_stream, (stream: u32);
        "proxy_close_stream" => control::close_stream, (stream: u32);
        "proxy_send_local_response" => control::send_local_response, (
            status: u32, details: u32, details_size: u32, body: u32, body_size: u32,
            headers: u32, headers_size: u32, grpc_status: i32
        );
        "proxy_get_property" => properties::get, (path: u32, path_size: u32, data: u32, size: u32);
        "proxy_set_property" => properties::set, (path: u32, path_size: u32, data: u32, size: u32);
    }
    Ok(())
}

/// Logs, time, contexts, shared data and metrics.
fn link_plugin(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    link_functions! { linker,
        "proxy_log" => control::log, (level: u32, message: u32, size: u32);
        "proxy_get_configuration" => buffers::get_configuration, (data: u32, size: u32);
        "proxy_get_log_level" => control::get_log_level, (level: u32);
        "proxy_get_current_time_nanoseconds" => control::get_current_time, (time: u32);
        "proxy_set_tick_period_milliseconds" => control::set_tick_period, (period: u32);
        "proxy_set_effective_context" => control::set_effective_context, (context: u32);
        "proxy_done" => control::done, ();
        "proxy_get_status" => control::get_status, (code: u32, data: u32, size: u32);
        "proxy_get_shared_data" => shared::get_data, (key: u32, key_size: u32, data: u32, size: u32, cas: u32);
        "proxy_set_shared_data" => shared::set_data, (key: u32, key_size: u32, data: u32, size: u32, cas: u32);
        "proxy_define_metric" => shared::define_metric, (kind: u32, name: u32, name_size: u32, id: u32);
        "proxy_record_metric" => shared::record_metric, (id: u32, value: u64);
        "proxy_increment_metric" => shared::increment_metric, (id: u32, offset: i64);
        "proxy_get_metric" => shared::get_metric, (id: u32, value: u32);
    }
    // Left behind by Emscripten in C++ guests.
    linker.func_wrap("env", "pthread_equal", |left: u32, right: u32| u32::from(left == right))?;
    Ok(())
}

/// Links a function that answers one number, with whatever parameters the module declares; others are left alone.
fn link_as_declared(
    linker: &mut Linker<Host>,
    module: &str,
    name: &str,
    ty: FuncType,
) -> wasmtime::Result<()> {
    let code = if module == "env" {
        callouts::CONSTANT.iter().find(|(known, _)| *known == name).map(|(_, status)| *status as i32)
    } else if wasi::MODULES.contains(&module) {
        wasi::INERT.iter().find(|(known, _)| *known == name).map(|(_, errno)| errno.cast_signed())
    } else {
        None
    };
    let Some(code) = code else { return Ok(()) };
    if !ty.results().all(|result| result.is_i32()) {
        return Ok(());
    }
    linker.func_new(module, name, ty, move |_, _, results| {
        results.fill(Val::I32(code));
        Ok(())
    })?;
    Ok(())
}
