//! What the host keeps for one instance while its guest runs.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::{Memory, StoreLimits, TypedFunc};

use super::shared::Shared;
use crate::error::Phase;
use crate::observe::Counters;
use crate::sandbox::Usage;
use crate::stream::Exchange;

/// Id of the one root context of an instance; streams count upwards from here.
pub(crate) const ROOT: u32 = 1;

/// What all instances of a plugin have in common.
pub(crate) struct Facts {
    pub(crate) name: Arc<str>,
    pub(crate) root_id: String,
    pub(crate) configuration: Bytes,
    pub(crate) shared: Shared,
    pub(crate) counters: Counters,
}

/// The data of a store: what host calls work on.
pub(crate) struct Host {
    pub(crate) facts: Arc<Facts>,
    pub(crate) limits: StoreLimits,
    /// Known once the module is instantiated; a start section runs without.
    pub(crate) memory: Option<Memory>,
    pub(crate) allocator: Option<TypedFunc<u32, u32>>,
    /// The guest's allocator is running: nothing that needs it may.
    pub(crate) allocating: bool,
    /// Carries bytes on their way into the guest, so that a host call does not allocate.
    pub(crate) scratch: Vec<u8>,
    pub(crate) phase: Phase,
    /// The context the running callback was called for.
    pub(crate) active: u32,
    /// The context host calls work on: the active one unless the guest chose another.
    pub(crate) effective: u32,
    pub(crate) contexts: HashSet<u32>,
    /// The exchange of the active context, lent for the length of one callback.
    pub(crate) exchange: Option<Box<Exchange>>,
    pub(crate) usage: Usage,
    /// Milliseconds between calls of `proxy_on_tick`, if the guest wants them.
    pub(crate) tick_period: Option<u64>,
}

// === impl Host ===

impl Host {
    pub(crate) fn new(facts: Arc<Facts>, limits: StoreLimits) -> Self {
        Self {
            facts,
            limits,
            memory: None,
            allocator: None,
            allocating: false,
            scratch: Vec::new(),
            phase: Phase::Start,
            active: ROOT,
            effective: ROOT,
            contexts: HashSet::from([ROOT]),
            exchange: None,
            usage: Usage::default(),
            tick_period: None,
        }
    }

    /// Enters a callback for a context.
    pub(crate) fn enter(&mut self, context: u32, phase: Phase) {
        self.active = context;
        self.effective = context;
        self.phase = phase;
        self.allocating = false;
    }

    /// The exchange host calls may see: that of the active context, unless the guest chose another.
    pub(crate) fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_deref().filter(|_| self.effective == self.active)
    }

    pub(crate) fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        let Self { exchange, effective, active, .. } = self;
        exchange.as_deref_mut().filter(|_| effective == active)
    }

    /// Whether the stream can still be steered: not while it is being logged and deleted.
    pub(crate) fn can_steer(&self) -> bool {
        self.phase != Phase::End
    }
}
