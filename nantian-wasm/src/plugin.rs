//! A module with its configuration, its warm instances and what they share.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::{FailurePolicy, Hooks, PluginConfig, Sandbox, StreamFraming};
use crate::error::{Failure, Phase, PluginError};
use crate::host::{Host, NoHost};
use crate::inbox::work_off;
use crate::instance::Instance;
use crate::log_rate::LogRate;
use crate::module::Module;
use crate::observe::{Counters, PluginStatus};
use crate::pool::{Cell, CellGuard, Lease, LeaseError, Pool, Slot};
use crate::proxy_wasm::{Facts, Shared};
use crate::running::finish;
use crate::sandbox::Peaks;
use crate::stream::Direction;

/// A running plugin; a cheap handle.
///
/// Its instances are started and configured before [`new`](Self::new) returns, and replaced by
/// [`Engine::maintain`](crate::Engine::maintain) when they end, so no request waits for one to start. A new configuration is
/// a new plugin.
///
/// They live until the last handle and the last stream are gone. Upkeep then ends what they have begun, calls
/// `proxy_on_done` of the root context, waits for `proxy_done` if that answers false, at most a minute, and calls
/// `proxy_on_delete`.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

/// What the engine keeps weakly, to maintain it.
pub(crate) struct Inner {
    module: Module,
    facts: Arc<Facts>,
    stream_framing: StreamFraming,
    sandbox: Sandbox,
    failure_policy: FailurePolicy,
    pool: Pool,
}

// === impl Plugin ===

impl Plugin {
    /// Starts and configures the instances of a plugin that reaches nothing outside its exchanges.
    ///
    /// Runs the guest's start functions, `proxy_on_vm_start` and `proxy_on_configure` once for each instance, all together
    /// within one second of engine ticks an instance. Blocks meanwhile.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when a capability is asked for that does not exist, a limit is out of range, or the guest does not
    /// start or refuses its configuration: whatever the failure policy, such a plugin never serves.
    pub fn new(module: &Module, config: PluginConfig) -> Result<Self, PluginError> {
        Self::start(module, config, None, Arc::default())
    }

    /// Like [`new`](Self::new), with a host for call-outs and foreign functions.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_host(
        module: &Module,
        config: PluginConfig,
        host: Arc<dyn Host>,
    ) -> Result<Self, PluginError> {
        Self::start(module, config, Some(host), Arc::default())
    }

    /// A plugin that takes this one's place: it has its shared data, queues and metrics.
    ///
    /// Streams that this one has seen stay with it.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); this one runs on.
    pub fn successor(
        &self,
        module: &Module,
        config: PluginConfig,
        host: Option<Arc<dyn Host>>,
    ) -> Result<Self, PluginError> {
        Self::start(module, config, host, Arc::clone(&self.inner.facts.shared))
    }

    fn start(
        module: &Module,
        config: PluginConfig,
        host: Option<Arc<dyn Host>>,
        shared: Arc<Shared>,
    ) -> Result<Self, PluginError> {
        config.sandbox.validate(host.is_some())?;
        let facts = Arc::new(Facts {
            name: config.name.into(),
            root_id: config.root_id,
            vm_id: config.vm_id,
            configuration: config.configuration,
            vm_configuration: config.vm_configuration,
            environment: config.environment,
            capabilities: config.capabilities,
            hooks: config.hooks,
            allow_network: config.sandbox.allow_network,
            host: host.unwrap_or_else(|| Arc::new(NoHost)),
            clock: module.engine().clock().clone(),
            shared,
            counters: Counters::default(),
            log_rate: LogRate::default(),
        });
        let instances = config.instances.or_else(|| std::thread::available_parallelism().ok());
        let slots: Vec<_> =
            (0..instances.map_or(1, NonZeroUsize::get)).map(|_| Slot::new(Arc::clone(&facts))).collect();
        for slot in &slots {
            if let Some(mut cell) = slot.try_lock() {
                let instance = finish(slot, Instance::start(module, &config.sandbox, slot))?;
                slot.fill(&mut cell, instance);
            }
            slot.settle();
        }
        let inner = Arc::new(Inner {
            module: module.clone(),
            facts,
            stream_framing: config.stream_framing,
            sandbox: config.sandbox,
            failure_policy: config.failure_policy,
            pool: Pool::new(slots),
        });
        module.engine().register(Arc::downgrade(&inner));
        Ok(Self { inner })
    }

    /// Name the plugin runs under.
    pub fn name(&self) -> &str {
        &self.inner.facts.name
    }

    /// The module the plugin runs.
    pub fn module(&self) -> &Module {
        &self.inner.module
    }

    /// Whether the guest can look at properties once the request has left: if not, an
    /// [`UpstreamAddress`](crate::UpstreamAddress) is of no use to it.
    pub fn reads_properties_of_responses(&self) -> bool {
        let traits = self.inner.module.traits();
        traits.reads_properties && traits.outlives_request
    }

    /// Counters, guest metrics and the last failure.
    pub fn status(&self) -> PluginStatus {
        let Inner { facts, pool, .. } = &*self.inner;
        let counters = &facts.counters;
        PluginStatus {
            instances: pool.slots().len(),
            live_instances: pool.slots().iter().filter(|slot| slot.is_live()).count(),
            streams: pool.slots().iter().map(|slot| slot.streams()).sum(),
            memory: pool.slots().iter().map(|slot| slot.memory()).sum(),
            traps: counters.traps(),
            failures: counters.failures.load(Ordering::Relaxed),
            rebuilds: counters.rebuilds.load(Ordering::Relaxed),
            dropped_log_lines: counters.dropped_log_lines.load(Ordering::Relaxed),
            last_failure: counters.last_failure(),
            last_backtrace: counters.last_backtrace(),
            metrics: facts.shared.metrics(),
            peaks: Peaks::highest(pool.slots().iter().map(|slot| slot.peaks())),
        }
    }

    pub(crate) fn hooks(&self) -> Hooks {
        self.inner.facts.hooks
    }

    pub(crate) fn failure_policy(&self) -> FailurePolicy {
        self.inner.failure_policy
    }

    pub(crate) fn max_buffered_body(&self) -> usize {
        self.inner.sandbox.max_buffered_body
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.inner.facts.name)
    }

    /// Whether the guest can look at header maps or properties at all.
    pub(crate) fn reads_exchange(&self) -> bool {
        self.inner.module.traits().reads_exchange
    }

    /// Whether a callback that runs after the request has left can look at it.
    pub(crate) fn needs_request_later(&self) -> bool {
        self.reads_exchange() && self.inner.module.traits().outlives_request
    }

    /// Whether the guest has a callback for bodies of this direction that runs.
    pub(crate) fn wants_body(&self, direction: Direction, streaming: bool) -> bool {
        let traits = self.inner.module.traits();
        match direction {
            Direction::Request => traits.has_request_body && self.hooks().on_request,
            Direction::Response => traits.has_response_body && self.hooks().wants_response_body(streaming),
        }
    }

    /// Takes an instance for a new stream.
    pub(crate) fn lease(&self) -> Result<(Lease, CellGuard), LeaseError> {
        self.inner.pool.lease()
    }

    /// Whether a guest can answer or end a stream outside of the stream's callbacks.
    pub(crate) fn may_interrupt(&self) -> bool {
        self.inner.module.traits().may_interrupt
    }

    /// The engine's clock.
    pub(crate) fn now(&self) -> u64 {
        self.inner.module.engine().ticks()
    }

    /// Until when a message that is held from now on may be held.
    pub(crate) fn pause_deadline(&self) -> u64 {
        self.now().saturating_add(self.inner.sandbox.pause_ticks())
    }

    pub(crate) fn stream_framing(&self) -> StreamFraming {
        self.inner.stream_framing
    }

    pub(crate) fn note_failure(&self, failure: &Failure) {
        self.inner.facts.counters.failed(failure);
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name())
            .field("module", &self.inner.module)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.module.engine().see_off(self.pool.slots());
    }
}

// === impl Inner ===

impl Inner {
    /// One round of upkeep: replaces dead instances, makes calls that wait, calls `proxy_on_tick` where due.
    pub(crate) fn maintain(&self) {
        let now = self.module.engine().ticks();
        for slot in self.pool.slots() {
            slot.wake_at(now);
            slot.finish_left();
            // A slot that is taken is being looked after.
            let Some(mut cell) = slot.try_lock() else { continue };
            if cell.instance().is_none() {
                if self.pool.may_rebuild_at(now) {
                    self.replace(slot, &mut cell);
                }
                continue;
            }
            finish(slot, work_off(&Arc::downgrade(slot), &mut cell));
            if let Some(Err(cause)) = cell.instance().map(|instance| finish(slot, instance.tick_at(now))) {
                slot.bury(&mut cell, Phase::Tick, &cause);
            }
            slot.measure(&mut cell);
            drop(cell);
            slot.settle();
        }
    }

    /// Puts a new instance in the place of one that ended; a guest that does not start again is tried again later.
    fn replace(&self, slot: &Arc<Slot>, cell: &mut Cell) {
        self.facts.counters.rebuilds.fetch_add(1, Ordering::Relaxed);
        let engine = self.module.engine();
        let began = engine.ticks();
        match finish(slot, Instance::start(&self.module, &self.sandbox, slot)) {
            Ok(instance) => slot.fill(cell, instance),
            Err(error) => self.facts.counters.not_replaced(&self.facts.name, &error),
        }
        self.pool.rebuilt_in(engine.ticks().saturating_sub(began));
    }
}
