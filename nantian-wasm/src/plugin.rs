//! A module with its configuration, its warm instances and what they share.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::{FailurePolicy, Hooks, PluginConfig, Sandbox, StreamFraming};
use crate::error::{Failure, PluginError};
use crate::host::{Host, NoHost};
use crate::instance::Instance;
use crate::lease::Lease;
use crate::module::Module;
use crate::observe::{PluginLog, PluginStatus};
use crate::pool::{InstanceGuard, LeaseError, Pool, Slot};
use crate::proxy_wasm::{Abi, HeadersVerdict, SharedPlugin, SharedStore};
use crate::room;
use crate::running::{end, finish, tick};
use crate::sandbox::{Budgets, Peaks, Usage};
use crate::stream::{Direction, Streaming};

/// A running plugin; a cheap handle.
///
/// Its instances are started and configured before [`new`](Self::new) returns, and replaced by
/// [`Engine::maintain`](crate::Engine::maintain) when they end, so no request waits for one to start. There
/// are fewer until there is [memory](crate::EngineBuilder::max_memory) for all. A new configuration is a new
/// plugin.
///
/// They live until the last handle and the last stream are gone. Upkeep then ends what they have begun, calls
/// `proxy_on_done` of the root context, waits for `proxy_done` if that answers false, at most a minute, and
/// calls `proxy_on_delete`.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

/// What the engine keeps weakly, to maintain it.
pub(crate) struct Inner {
    module: Module,
    plugin: Arc<SharedPlugin>,
    stream_framing: StreamFraming,
    allow_on_headers_stop_iteration: bool,
    sandbox: Sandbox,
    failure_policy: FailurePolicy,
    pool: Pool,
}

// === impl Plugin ===

impl Plugin {
    /// Starts and configures the instances of a plugin that reaches nothing outside its exchanges.
    ///
    /// Runs the guest's start functions, `proxy_on_vm_start` and `proxy_on_configure` once for each instance,
    /// all together within one second of engine ticks an instance, or within
    /// [`Sandbox::max_execution_time`] if that is more, ten seconds at most. Blocks meanwhile.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when a capability is asked for that does not exist, a limit is out of range, or the
    /// guest does not start or refuses its configuration: whatever the failure policy, such a plugin never
    /// serves.
    pub fn new(module: &Module, config: PluginConfig) -> Result<Self, PluginError> {
        finish(Self::start(module.clone(), config, None, None))
    }

    /// Like [`new`](Self::new), with a host for call-outs and foreign functions.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_host(module: &Module, config: PluginConfig, host: impl Host) -> Result<Self, PluginError> {
        finish(Self::start(module.clone(), config, Some(Arc::new(host)), None))
    }

    /// A plugin that takes this one's place: it has its metrics, and its shared data and queues unless it is
    /// of another VM id or [space](crate::SharedSpace), but not its host. The [status](Self::status) of each
    /// tells what both have counted and how either failed last; the log tells of each by itself.
    ///
    /// Streams that this one has seen stay with it. [`WasmLayer`](crate::WasmLayer) shows how a service comes
    /// to have the new one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); this one runs on.
    pub fn successor(&self, module: &Module, config: PluginConfig) -> Result<Self, PluginError> {
        finish(Self::start(module.clone(), config, None, Some(self.clone())))
    }

    /// Like [`successor`](Self::successor), with a host for call-outs and foreign functions.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); this one runs on.
    pub fn successor_with_host(
        &self,
        module: &Module,
        config: PluginConfig,
        host: impl Host,
    ) -> Result<Self, PluginError> {
        finish(Self::start(module.clone(), config, Some(Arc::new(host)), Some(self.clone())))
    }

    /// What all of these do, for an executor that starts several plugins side by side: a guest gives way
    /// after each millisecond that it runs. `host` is for call-outs and foreign functions; with `last` the
    /// plugin is the [`successor`](Self::successor) of that one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends the instances that have started.
    pub async fn start(
        module: Module,
        config: PluginConfig,
        host: Option<Arc<dyn Host>>,
        last: Option<Self>,
    ) -> Result<Self, PluginError> {
        config.sandbox.validate(host.is_some())?;
        let last = last.as_ref().map(|last| &*last.inner.plugin);
        let space = config.shared_space.or_else(|| last.map(|last| last.space.clone())).unwrap_or_default();
        let vm = match last {
            Some(last) if (&last.space, &last.vm_id) == (&space, &config.vm_id) => Arc::clone(&last.vm),
            _ => space.join(&config.vm_id),
        };
        let instances = config.instances.or_else(|| std::thread::available_parallelism().ok());
        let instances = instances.unwrap_or(NonZeroUsize::MIN);
        let plugin = Arc::new(SharedPlugin {
            name: config.name.into(),
            root_id: config.root_id,
            vm_id: config.vm_id,
            configuration: config.configuration,
            vm_configuration: config.vm_configuration,
            environment: config.environment,
            capabilities: config.capabilities,
            hooks: config.hooks,
            allow_network: config.sandbox.allow_network,
            fails_open: config.failure_policy == FailurePolicy::FailOpen,
            budgets: Budgets::of(&config.sandbox),
            host: host.unwrap_or_else(|| Arc::new(NoHost)),
            clock: module.engine().clock().clone(),
            shared: last.map_or_else(
                || Arc::new(SharedStore::new(space.callout_limits(module.engine()))),
                |last| Arc::clone(&last.shared),
            ),
            space,
            vm,
            life: Arc::default(),
            instances: u64::try_from(instances.get()).unwrap_or(u64::MAX),
            log: PluginLog::default(),
        });
        // One more is for the successor of an instance that serves until it has started.
        let slots: Vec<_> = (0..=instances.get()).map(|_| Slot::new(Arc::clone(&plugin))).collect();
        room::fill(slots.get(..instances.get()).unwrap_or_default(), &module, &config.sandbox).await?;
        let engine = module.engine().clone();
        let inner = Arc::new(Inner {
            module,
            plugin,
            stream_framing: config.stream_framing,
            allow_on_headers_stop_iteration: config.allow_on_headers_stop_iteration,
            sandbox: config.sandbox,
            failure_policy: config.failure_policy,
            pool: Pool::new(slots),
        });
        engine.register(Arc::downgrade(&inner));
        Ok(Self { inner })
    }

    /// Name the plugin runs under.
    pub fn name(&self) -> &str {
        &self.inner.plugin.name
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
        let Inner { plugin, pool, .. } = &*self.inner;
        let counters = &plugin.shared.counters;
        let (failures, total) = (counters.failures(), plugin.shared.tallies.total());
        PluginStatus {
            instances: usize::try_from(plugin.instances).unwrap_or(usize::MAX),
            live_instances: pool.slots().iter().filter(|slot| slot.is_live()).count(),
            streams: total.streams,
            calls: total.calls,
            guest_time: total.guest_time,
            memory: pool.slots().iter().map(|slot| slot.memory()).sum(),
            traps: counters.traps(),
            failures: failures.by_cause.values().sum(),
            failures_by_cause: failures.by_cause,
            refused_calls: counters.refused_calls(),
            rebuilds: counters.rebuilds.load(Ordering::Relaxed),
            dropped_log_lines: counters.dropped_log_lines.load(Ordering::Relaxed),
            dropped_metrics: counters.dropped_metrics.load(Ordering::Relaxed),
            dropped_shared_data: counters.dropped_shared_data.load(Ordering::Relaxed),
            dropped_queue_items: counters.dropped_queue_items.load(Ordering::Relaxed),
            last_failure: failures.last,
            last_backtrace: counters.last_backtrace(),
            metrics: plugin.shared.metrics(),
            peaks: Peaks::highest(pool.slots().iter().map(|slot| slot.peaks()), &plugin.budgets),
        }
    }

    pub(crate) fn hooks(&self) -> Hooks {
        self.inner.plugin.hooks
    }

    pub(crate) fn failure_policy(&self) -> FailurePolicy {
        self.inner.failure_policy
    }

    pub(crate) fn max_buffered_body(&self) -> usize {
        self.inner.sandbox.max_buffered_body
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.inner.plugin.name)
    }

    /// Whether the guest can look at header maps or properties at all.
    pub(crate) fn reads_exchange(&self) -> bool {
        self.inner.module.traits().reads_exchange
    }

    /// Whether a callback that runs after the request has left can look at it.
    pub(crate) fn needs_request_later(&self) -> bool {
        self.reads_exchange() && self.inner.module.traits().outlives_request
    }

    /// Whether the guest sees another part of a response whose client has asked for a stream of events.
    pub(crate) fn tells_streams_apart(&self) -> bool {
        let Hooks { on_response, on_stream_chunk, .. } = self.hooks();
        on_stream_chunk && !on_response || self.inner.module.abi() == Abi::Pingora
    }

    /// Whether the guest has a callback for bodies of this direction.
    pub(crate) fn has_body_callback(&self, direction: Direction) -> bool {
        self.inner.module.traits().has_body_callback(direction)
    }

    /// Whether it is to be shown bodies or trailers of this direction.
    pub(crate) fn wants_body(&self, direction: Direction, streaming: Streaming) -> bool {
        let is_on = match direction {
            Direction::Request => self.hooks().on_request,
            Direction::Response => self.hooks().wants_response_body(streaming),
        };
        is_on && self.inner.module.traits().looks_behind_headers(direction)
    }

    /// Takes an instance for a new stream.
    pub(crate) fn lease(&self) -> Result<(Lease, InstanceGuard), LeaseError> {
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

    /// Whether a stream that has cost so much has time left for another callback.
    pub(crate) fn has_time_for(&self, usage: &Usage) -> bool {
        usage.has_time_at(self.now(), self.inner.sandbox.ticks())
    }

    pub(crate) fn stream_framing(&self) -> StreamFraming {
        self.inner.stream_framing
    }

    /// What a header callback asks for by its result.
    pub(crate) fn headers_verdict(&self, code: u32) -> HeadersVerdict {
        HeadersVerdict::of(code, self.module().abi(), self.inner.allow_on_headers_stop_iteration)
    }

    pub(crate) fn note_failure(&self, failure: &Failure) {
        self.inner.plugin.shared.counters.failed(failure);
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
        self.module.engine().retire(self.pool.slots());
    }
}

// === impl Inner ===

impl Inner {
    /// Wakes held streams whose time is over.
    pub(crate) fn wake_at(&self, now: u64) {
        self.pool.slots().iter().for_each(|slot| slot.wake_at(now));
    }

    /// One round of upkeep: replaces dead instances and those whose guest asks for it, makes calls that wait,
    /// calls `proxy_on_tick` where due before the round is over. A guest that takes longer than a slice goes
    /// on with [`give_turns`](Self::give_turns).
    pub(crate) fn look_after(self: &Arc<Self>, round_ends: u64) {
        let engine = self.module.engine();
        for slot in self.pool.slots() {
            slot.adopt_stalled();
            slot.settle();
            slot.wake_waiting();
        }
        room::adapt(&self.pool, self.plugin.instances, engine);
        let (mut missing, mut surplus) = self.pool.missing_and_surplus(engine.ticks());
        for slot in self.pool.slots() {
            // A slot that is taken is being looked after.
            let Some(mut cell) = slot.try_lock() else { continue };
            let now = engine.ticks();
            match cell.instance() {
                // Those that ask to be replaced end before their successors start.
                None if missing > 0 && self.pool.may_rebuild_at(now) => {
                    missing -= 1;
                    self.refill(slot, cell);
                }
                Some(instance) if slot.is_worn() && instance.is_idle() && surplus > 0 => {
                    surplus -= 1;
                    slot.set_off(end(slot.take_out(&mut cell), cell));
                }
                // Whoever comes meanwhile waits for this slot.
                Some(instance) if slot.is_worn() && instance.is_idle() && self.pool.takes_place() => {
                    self.refill(slot, cell);
                }
                Some(instance) if now < round_ends && instance.is_tick_due_at(now) => {
                    slot.set_off(tick(Arc::downgrade(slot), cell));
                    slot.settle();
                }
                _ => slot.measure(&mut cell),
            }
        }
    }

    /// Gives each guest that nobody else lets run a slice; whether some go on.
    pub(crate) fn give_turns(&self) -> bool {
        self.pool.slots().iter().filter(|slot| slot.give_turns()).count() > 0
    }

    /// Starts an instance in a slot, in the place of the one there if there is one; a guest that does not
    /// start is tried again later.
    fn refill(self: &Arc<Self>, slot: &Arc<Slot>, mut cell: InstanceGuard) {
        self.plugin.shared.counters.rebuilds.fetch_add(1, Ordering::Relaxed);
        let began = self.module.engine().ticks();
        slot.set_starting(true);
        let worn = slot.take_out(&mut cell);
        let start = Instance::start(&self.module, &self.sandbox, slot);
        let (this, slot_of) = (Arc::downgrade(self), Arc::downgrade(slot));
        slot.set_off(async move {
            if let Some(worn) = worn {
                worn.end().await;
            }
            let started = start.await;
            let (Some(this), Some(slot)) = (this.upgrade(), slot_of.upgrade()) else { return };
            let now = this.module.engine().ticks();
            match started {
                Ok(instance) => {
                    slot.fill(&mut cell, instance);
                    // It has found one, if it lacked any.
                    this.pool.takes_place();
                }
                Err(PluginError::Full { .. } | PluginError::NoMemory { .. })
                    if this.pool.give_place(now) || this.pool.kept().spare(now) => {}
                Err(error) => this.plugin.log.not_replaced(&this.plugin.name, &error, now),
            }
            slot.set_starting(false);
            this.pool.rebuilt_in(now.saturating_sub(began));
        });
    }
}
