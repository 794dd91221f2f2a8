//! What one instance may have of memory, tables and instances.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

use crate::config::Sandbox;
use crate::error::{Cause, PluginError};
use crate::linear_memory::{LinearMemory, MemoryShare, Shortage};
use crate::sandbox::{INSTANCES, MAX_TABLE_ELEMENTS, TABLES};

/// Memory, tables and instances of one store.
pub(crate) struct Limits {
    store: StoreLimits,
    max_memory: usize,
    /// Its part of what all instances have together.
    memory: MemoryShare,
    /// Where the guest has asked for more memory, and been refused, in the callback that runs.
    refused_memory: Option<MemoryLimit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemoryLimit {
    /// Of one instance.
    Own,
    /// Of instances together.
    Shared(Shortage),
}

// === impl Limits ===

impl Limits {
    /// Those of an instance in the space that has taken so much of this memory.
    pub(crate) fn of(sandbox: &Sandbox, memory: &Arc<LinearMemory>, of_space: &Arc<AtomicUsize>) -> Self {
        let store = StoreLimitsBuilder::new()
            .memory_size(sandbox.max_memory)
            .memories(1)
            .table_elements(MAX_TABLE_ELEMENTS)
            .tables(TABLES as usize)
            .instances(INSTANCES as usize)
            .build();
        let memory = memory.begin(of_space);
        Self { store, max_memory: sandbox.max_memory, memory, refused_memory: None }
    }

    /// Another callback begins.
    pub(crate) fn begin_callback(&mut self) {
        self.refused_memory = None;
    }

    /// That there has not been enough memory for instances together, if so: what a guest that starts
    /// fails by then.
    pub(crate) fn shortage(&self) -> Option<PluginError> {
        match self.refused_memory {
            Some(MemoryLimit::Shared(Shortage { limit, of })) => {
                Some(PluginError::NoMemory { max_memory: limit, of })
            }
            Some(MemoryLimit::Own) | None => None,
        }
    }

    /// Says beside a trap that there was no memory: a guest that gets none often ends so.
    pub(crate) fn explain(&self, cause: Cause) -> Cause {
        let Cause::Trap(text) = cause else { return cause };
        let limit = match self.refused_memory {
            Some(MemoryLimit::Own) => format!("{} bytes", self.max_memory),
            Some(MemoryLimit::Shared(Shortage { limit, of })) => format!("{limit} bytes for {of} together"),
            None => return Cause::Trap(text),
        };
        Cause::Trap(format!("{text}, after memory.grow was refused at the limit of {limit}"))
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if !self.store.memory_growing(current, desired, maximum)? {
            self.refused_memory = Some(MemoryLimit::Own);
        } else if let Err(shortage) = self.memory.grow(current, desired) {
            self.refused_memory = Some(MemoryLimit::Shared(shortage));
        } else {
            return Ok(true);
        }
        Ok(false)
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
