//! What one instance may have of memory, tables and instances.

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

use crate::config::Sandbox;
use crate::error::Cause;
use crate::sandbox::{INSTANCES, MAX_TABLE_ELEMENTS, TABLES};

/// Memory, tables and instances of one store.
pub(crate) struct Limits {
    store: StoreLimits,
    max_memory: usize,
    /// The guest has asked for more memory, and been refused, in the callback that runs.
    pub(crate) has_refused_memory: bool,
}

// === impl Limits ===

impl Limits {
    pub(crate) fn of(sandbox: &Sandbox) -> Self {
        let store = StoreLimitsBuilder::new()
            .memory_size(sandbox.max_memory)
            .memories(1)
            .table_elements(MAX_TABLE_ELEMENTS)
            .tables(TABLES as usize)
            .instances(INSTANCES as usize)
            .build();
        Self { store, max_memory: sandbox.max_memory, has_refused_memory: false }
    }

    /// Says beside a trap that there was no memory: a guest that gets none often ends so.
    pub(crate) fn explain(&self, cause: Cause) -> Cause {
        match cause {
            Cause::Trap(text) if self.has_refused_memory => Cause::Trap(format!(
                "{text}, after memory.grow was refused at the limit of {} bytes",
                self.max_memory
            )),
            cause => cause,
        }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let is_granted = self.store.memory_growing(current, desired, maximum)?;
        self.has_refused_memory |= !is_granted;
        Ok(is_granted)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.store.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.store.instances()
    }

    fn tables(&self) -> usize {
        self.store.tables()
    }

    fn memories(&self) -> usize {
        self.store.memories()
    }
}
