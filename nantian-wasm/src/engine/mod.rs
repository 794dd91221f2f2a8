//! The engine: compiler, clock and registry, one per process and owned by the embedder.

mod allocation;
mod builder;
mod clock;
mod threads;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

pub use self::allocation::Allocation;
pub(crate) use self::allocation::is_full;
pub use self::builder::EngineBuilder;
pub(crate) use self::clock::Clock;
pub use self::threads::{EngineThread, EngineThreads};
use crate::callout_limits::CalloutLimits;
use crate::error::EngineError;
use crate::held_bodies::BodyMemory;
use crate::linear_memory::LinearMemory;
use crate::module::ModuleCache;
use crate::plugin;
use crate::pool::Slot;
use crate::proxy_wasm::HostFunctions;
use crate::retiring::RetiringInstance;
use crate::sync::lock;

/// How long guests get one slice after the other in a round of upkeep, in ticks.
const ROUND: u64 = 10;

/// Compiles and runs modules; a cheap handle.
///
/// Nothing here runs by itself. With an engine come [`EngineThreads`], for which the embedder has two
/// threads:
///
/// ```
/// # fn main() -> Result<(), nantian_wasm::EngineError> {
/// let (engine, threads) = nantian_wasm::Engine::new()?;
/// std::thread::spawn(|| threads.clock.run());
/// std::thread::spawn(|| threads.upkeep.run());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasmtime: wasmtime::Engine,
    allocation: Allocation,
    max_instances: NonZeroU32,
    host_functions: HostFunctions,
    linear_memory: Arc<LinearMemory>,
    callout_limits: Arc<CalloutLimits>,
    body_memory: Option<BodyMemory>,
    clock: Clock,
    modules: ModuleCache,
    plugins: Mutex<Vec<Weak<plugin::Inner>>>,
    /// Instances of plugins that are gone, until they have ended what they began.
    leaving: Mutex<Vec<RetiringInstance>>,
}

// === impl Engine ===

impl Engine {
    /// An engine for this machine, with every default, and what has to run beside it.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when the machine cannot run compiled WebAssembly.
    pub fn new() -> Result<(Self, EngineThreads), EngineError> {
        Self::builder().build()
    }

    /// Starts an engine with other than default settings.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    fn of(builder: EngineBuilder) -> Result<Self, EngineError> {
        let EngineBuilder { max_instances, max_memory, max_memory_of_space, body_memory } = builder;
        let failed = |error| EngineError { reason: format!("{error:#}") };
        let (wasmtime, allocation) = allocation::engine(max_instances).map_err(failed)?;
        let host_functions = HostFunctions::new(&wasmtime).map_err(failed)?;
        Ok(Self {
            inner: Arc::new(Inner {
                wasmtime,
                allocation,
                max_instances,
                host_functions,
                linear_memory: LinearMemory::new(max_memory, max_memory_of_space),
                callout_limits: CalloutLimits::of_engine(),
                body_memory,
                clock: Clock::default(),
                modules: ModuleCache::default(),
                plugins: Mutex::default(),
                leaving: Mutex::default(),
            }),
        })
    }

    /// Moves the clock of all time limits on by one millisecond: for embedders whose clock is not
    /// that of [`EngineThreads`], and for tests.
    ///
    /// Guests give way to others at this call and are stopped by it, so it has to come from a thread that
    /// never runs one. A thread that wakes late calls it once for each millisecond it missed, or guests get
    /// that much more time.
    pub fn tick(&self) {
        self.leap(1);
    }

    /// Moves the clock on by so many milliseconds at once, of which guests that run are charged one.
    fn leap(&self, milliseconds: u64) {
        self.inner.clock.leap(milliseconds);
        self.inner.wasmtime.increment_epoch();
    }

    /// Ready while the clock has to tick every millisecond: it has met a guest that runs. Otherwise it may
    /// rest for some milliseconds and leap over them; `cx` is woken when the leap has met one.
    fn poll_hurry(&self, cx: &Context<'_>) -> Poll<()> {
        self.inner.clock.poll_hurry(cx)
    }

    /// Replaces instances that ended, finishes streams that were dropped while their instance was busy, calls
    /// `proxy_on_tick` where it is due, and lets the instances of plugins that are gone end: see
    /// [`Plugin`](crate::Plugin).
    ///
    /// Nothing else replaces instances: between the end of a plugin's last one and the next round, its
    /// requests fail with [`Cause::NoInstance`](crate::Cause::NoInstance). A plugin that keeps ending gets
    /// twenty replacements at once and then one every 50 ms, fewer if it takes long to start.
    ///
    /// Runs guests, in turn and for a slice of a millisecond each (the first one is longer under a clock that
    /// [rests](EngineThreads::clock)), for ten milliseconds at most and each once at least: not for the
    /// thread that calls [`tick`](Self::tick). A guest whose ticks take long is called for a fifth of a
    /// thread's time.
    pub fn maintain(&self) {
        let plugins: Vec<_> = {
            let mut plugins = lock(&self.inner.plugins);
            plugins.retain(|plugin| plugin.strong_count() > 0);
            plugins.iter().filter_map(Weak::upgrade).collect()
        };
        let round_ends = self.ticks().saturating_add(ROUND);
        plugins.iter().for_each(|plugin| plugin.wake_at(self.ticks()));
        plugins.iter().for_each(|plugin| plugin.look_after(round_ends));
        // In turn, so that none waits for another's guest to end.
        while plugins.iter().filter(|plugin| plugin.give_turns()).count() > 0 && self.ticks() < round_ends {}
        let mut leaving = std::mem::take(&mut *lock(&self.inner.leaving));
        leaving.retain(|retiring| !retiring.is_over_at(self.ticks()));
        lock(&self.inner.leaving).append(&mut leaving);
    }

    /// Where instances have their memories, tables and stacks.
    pub fn allocation(&self) -> &Allocation {
        &self.inner.allocation
    }

    /// Compiled modules that are in use.
    pub fn module_count(&self) -> usize {
        self.inner.modules.len()
    }

    /// Milliseconds that the clock has been moved on by.
    pub(crate) fn ticks(&self) -> u64 {
        self.inner.clock.ticks()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn max_instances(&self) -> NonZeroU32 {
        self.inner.max_instances
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.wasmtime
    }

    pub(crate) fn host_functions(&self) -> &HostFunctions {
        &self.inner.host_functions
    }

    pub(crate) fn linear_memory(&self) -> &Arc<LinearMemory> {
        &self.inner.linear_memory
    }

    pub(crate) fn callout_limits(&self) -> &Arc<CalloutLimits> {
        &self.inner.callout_limits
    }

    pub(crate) fn body_memory(&self) -> Option<&BodyMemory> {
        self.inner.body_memory.as_ref()
    }

    pub(crate) fn modules(&self) -> &ModuleCache {
        &self.inner.modules
    }

    pub(crate) fn register(&self, plugin: Weak<plugin::Inner>) {
        lock(&self.inner.plugins).push(plugin);
    }

    /// Takes over the instances of a plugin that is gone.
    pub(crate) fn retire(&self, slots: &[Arc<Slot>]) {
        lock(&self.inner.leaving).extend(slots.iter().filter_map(RetiringInstance::of));
    }

    /// Whether upkeep has anything to look after.
    fn has_instances(&self) -> bool {
        !lock(&self.inner.plugins).is_empty() || !lock(&self.inner.leaving).is_empty()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("ticks", &self.ticks()).field("modules", &self.module_count()).finish()
    }
}

#[cfg(test)]
mod tests;
