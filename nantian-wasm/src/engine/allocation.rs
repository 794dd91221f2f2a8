//! Where instances have their memories, tables and stacks: in places that are reserved when the engine is
//! made, or, where nothing can be reserved, wherever there is room.

use std::num::NonZeroU32;

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolConcurrencyLimitError, PoolingAllocationConfig,
};

use crate::sandbox::{INSTANCES, MAX_TABLE_ELEMENTS, TABLES};

/// Deepest native stack a guest may use, in bytes.
const MAX_GUEST_STACK: usize = 512 * 1024;

/// Bytes of a place's memory, and of each of its tables, that are cleared and kept for the next instance
/// instead of being given back to the system: what small guests touch. Places that no instance has keep them
/// too, up to a hundred.
const KEPT_MEMORY: usize = 64 << 10;
const KEPT_TABLE: usize = 4 << 10;

/// Largest memory of a guest, in bytes: all that 32 bits can address.
const MAX_MEMORY: u64 = 4 << 30;

/// Most bytes the host keeps about one instance beside its memory and tables: some 32 for each function that
/// can be referred to, of 20 000 a module may have.
const MAX_INSTANCE: usize = 1 << 20;

/// Stacks of an instance: its own, and that of an allocator which the host calls
/// ([`Abi::Pingora`](crate::Abi::Pingora)).
const STACKS: u32 = 2;

/// Address space that a memory which cannot have 4 GiB grows into before it is moved.
const ROOM_TO_GROW: u64 = 1 << 20;

/// Where instances have their memories, tables and stacks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allocation {
    /// In one of [`EngineBuilder::max_instances`](super::EngineBuilder::max_instances) places that are
    /// reserved: address space, not memory.
    Pooled,
    /// Wherever there is room, because places could not be reserved. No number of instances is refused, but
    /// one takes longer to start, and guests run slower: each of their accesses to memory is checked.
    OnDemand {
        /// Why nothing was reserved.
        reason: String,
    },
}

/// Makes the engine with places, or without if they cannot be had.
pub(super) fn engine(max_instances: NonZeroU32) -> wasmtime::Result<(Engine, Allocation)> {
    match Engine::new(&pooled(max_instances.get())) {
        Ok(engine) => Ok((engine, Allocation::Pooled)),
        Err(error) => {
            let reason = format!("{error:#}");
            Engine::new(&on_demand()).map(|engine| (engine, Allocation::OnDemand { reason }))
        }
    }
}

/// Whether something failed because every place is taken.
pub(crate) fn is_full(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
}

fn pooled(instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances.saturating_mul(INSTANCES))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(TABLES))
        .total_stacks(instances.saturating_mul(STACKS))
        .max_memory_size(usize::try_from(MAX_MEMORY).unwrap_or(usize::MAX))
        .max_tables_per_module(TABLES)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_core_instance_size(MAX_INSTANCE)
        .linear_memory_keep_resident(KEPT_MEMORY)
        .table_keep_resident(KEPT_TABLE);
    let mut config = settings();
    config.memory_reservation(MAX_MEMORY).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Without the 4 GiB for each memory that are too many where address space is scarce.
fn on_demand() -> Config {
    let mut config = settings();
    config.memory_reservation(0).memory_reservation_for_growth(ROOM_TO_GROW).memory_guard_size(0);
    config
}

/// What guests may be made of. Proposals that no plugin toolchain needs stay off: each is attack surface.
///
/// Threads stay off too: their cargo feature is not enabled here, and should another crate in the build
/// enable it, a module with a shared memory is refused before it is compiled. In a shared memory a guest
/// could wait for ever (`memory.atomic.wait32`), and no time limit ends a wait.
fn settings() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(MAX_GUEST_STACK)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false)
        .wasm_relaxed_simd(false);
    config
}
