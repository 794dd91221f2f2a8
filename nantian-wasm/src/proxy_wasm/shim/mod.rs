//! What stands between a host and its guest: a module of the host's own, with an instance beside each guest.
//!
//! A host call that gives a guest bytes needs memory of the guest's own allocation before it can end. A host
//! function that called the allocator would have to run it on a second stack, mapped anew each time. So
//! WebAssembly calls it: guests import these functions from the shim, which asks the host how much memory is
//! wanted, calls the guest's allocator, and lets the host fill what it gave.
//!
//! And a guest costs more to enter than most callbacks take. What follows one another without anything
//! between, the shim calls in one go: creation and request headers, log and done and delete.

mod encode;

use wasmtime::{AsContextMut as _, Caller, Func, InstancePre, Linker, Ref, Store, Table, TypedFunc};

use super::abi::Status;
use super::state::State;
use super::{buffers, callouts, control, maps, memory, pingora, properties, queues, shared};
use crate::guest_store::NEXT_BEAT;

/// Where the shim imports from what guests cannot.
const HOST: &str = "host";
/// The second half of a function that hands bytes over.
const TAKE_OVER: &str = "take_over";
/// That of `get_header`, the one function that returns place and length.
const PACK: &str = "pack";
/// What happens between two callbacks.
const NEXT: &str = "next";

/// What the shim exports besides those functions.
const BEGIN: &str = "begin";
const END: &str = "end";
const FINISH: &str = "finish";
const CALLBACKS: &str = "callbacks";

/// Functions of a guest that the shim calls, by their places in its table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Callback {
    Allocate,
    Create,
    RequestHeaders,
    Log,
    Done,
    Delete,
}

/// Counts a parameter.
macro_rules! one {
    ($argument:ident) => {
        1
    };
}

/// Host functions that hand bytes over, and the names of their parameters.
macro_rules! functions {
    ($( $name:literal => $function:path, ($($argument:ident),*); )*) => {
        /// Names and numbers of parameters, each an `i32`.
        const FUNCTIONS: &[(&str, u32)] = &[$( ($name, 0 $(+ one!($argument))*), )*];

        /// Links their first halves, which only the shim may import.
        pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
            $(
                linker.func_wrap("env", $name, |mut caller: Caller<'_, State>, $($argument: u32),*| {
                    if !caller.data().plugin.capabilities.allow($name) {
                        return memory::prepared(Err(Status::InternalFailure.into()));
                    }
                    memory::prepared($function(&mut caller, $($argument),*))
                })?;
            )*
            Ok(())
        }
    };
}

functions! {
    "proxy_get_header_map_pairs" => maps::get_pairs, (map, data, size);
    "proxy_get_header_map_value" => maps::get_value, (map, key, key_size, data, size);
    "proxy_get_buffer_bytes" => buffers::get_bytes, (kind, start, max, data, size);
    "proxy_get_property" => properties::get, (path, path_size, data, size);
    "proxy_get_configuration" => buffers::get_configuration, (data, size);
    "proxy_get_status" => control::get_status, (code, data, size);
    "proxy_get_shared_data" => shared::get_data, (key, key_size, data, size, cas);
    "proxy_call_foreign_function" => callouts::call_foreign_function, (
        name, name_size, arguments, arguments_size, data, size
    );
    "proxy_dequeue_shared_queue" => queues::dequeue, (token, data, size);
}

/// The shim, linked.
pub(super) struct Shim {
    pre: InstancePre<State>,
}

/// The shim beside one guest.
pub(super) struct ShimInstance {
    instance: wasmtime::Instance,
    callbacks: Table,
    pub(super) begin: TypedFunc<(u32, u32, u32, u32), u32>,
    pub(super) end: TypedFunc<u32, ()>,
    pub(super) finish: TypedFunc<u32, ()>,
}

// === impl Shim ===

impl Shim {
    /// Compiles the shim; `linker` has the first halves of its functions.
    pub(super) fn new(engine: &wasmtime::Engine, linker: &Linker<State>) -> wasmtime::Result<Self> {
        let mut linker = linker.clone();
        linker.func_wrap(HOST, TAKE_OVER, |mut caller: Caller<'_, State>, pointer: u32| {
            memory::reply(memory::take_over(&mut caller, pointer))
        })?;
        linker.func_wrap(
            HOST,
            pingora::GET_HEADER,
            |mut caller: Caller<'_, State>, name: u32, length: u32| {
                pingora::get_header(&mut caller, name, length)
            },
        )?;
        linker.func_wrap(HOST, PACK, |mut caller: Caller<'_, State>, pointer: u32| {
            pingora::pack(&mut caller, pointer)
        })?;
        linker.func_wrap(HOST, NEXT, |mut caller: Caller<'_, State>| {
            caller.as_context_mut().set_epoch_deadline(NEXT_BEAT);
            u32::from(caller.data_mut().begin_next())
        })?;
        let shim = wasmtime::Module::from_binary(engine, &encode::encode())?;
        Ok(Self { pre: linker.instantiate_pre(&shim)? })
    }

    pub(super) fn module(&self) -> &wasmtime::Module {
        self.pre.module()
    }

    /// Puts a shim into a store.
    pub(super) async fn start(&self, store: &mut Store<State>) -> wasmtime::Result<ShimInstance> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let callbacks = instance.get_table(&mut *store, CALLBACKS);
        let callbacks = callbacks.ok_or_else(|| wasmtime::Error::msg("the shim has no table"))?;
        let begin = instance.get_typed_func(&mut *store, BEGIN)?;
        let end = instance.get_typed_func(&mut *store, END)?;
        let finish = instance.get_typed_func(&mut *store, FINISH)?;
        Ok(ShimInstance { instance, callbacks, begin, end, finish })
    }
}

// === impl ShimInstance ===

impl ShimInstance {
    /// The function a guest gets for an import, if it is one of the shim's.
    pub(super) fn function(&self, store: &mut Store<State>, module: &str, name: &str) -> Option<Func> {
        let is_known = match module {
            "env" => FUNCTIONS.iter().any(|(known, _)| *known == name),
            pingora::MODULE => name == pingora::GET_HEADER,
            _ => false,
        };
        if is_known { self.instance.get_func(store, name) } else { None }
    }

    /// Lets the shim call a guest's function; its type was checked before the module was compiled.
    pub(super) fn set(
        &self,
        store: &mut Store<State>,
        callback: Callback,
        function: Func,
    ) -> wasmtime::Result<()> {
        self.callbacks.set(store, u64::from(callback.place()), Ref::Func(Some(function)))
    }
}
