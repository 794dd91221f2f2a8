//! One running guest: its store, its callbacks, and whether it may still be entered.

mod messages;

use std::sync::Arc;
use std::time::Duration;

use futures_util::lock::OwnedMutexGuard;
use wasmtime::{Store, TypedFunc, UpdateDeadline, WasmParams, WasmResults};

use crate::config::Sandbox;
use crate::error::{Cause, Phase, PluginError};
use crate::host::GrpcEvent;
use crate::inbox::Job;
use crate::module::Module;
use crate::pool::Slot;
use crate::proxy_wasm::{CallKind, Guest, MapKind, Notice, ROOT, Received, Registered, State};
use crate::sandbox::{self, Usage};
use crate::stream::{Exchange, SharedExchange};

/// Time limit of instantiation, start and configuration together, in engine ticks: one second.
const START_TICKS: u64 = 1_000;

/// Most stream contexts one instance has at a time.
const MAX_CONTEXTS: usize = 10_000;

/// An instance of a plugin's module, started and configured.
pub(crate) struct Instance {
    store: Store<State>,
    guest: Guest,
    module: Module,
    /// False from the moment a call into the guest begins until it returns: whatever interrupts one leaves a dead guest.
    alive: bool,
    /// Time limit of one callback, in engine ticks; none while the guest starts, when one limit holds for all calls.
    ticks: Option<u64>,
    next_context: u32,
    next_tick: u64,
}

// === impl Instance ===

impl Instance {
    /// Instantiates, starts and configures a guest that will live in this slot.
    pub(crate) async fn start(
        module: &Module,
        sandbox: &Sandbox,
        slot: &Arc<Slot>,
    ) -> Result<Self, PluginError> {
        let started = |cause| PluginError::Start { phase: Phase::Start, cause };
        let facts = slot.facts();
        let state = State::new(Arc::clone(facts), module.abi(), sandbox::limits(sandbox), slot);
        let mut store = Store::new(module.pre().module().engine(), state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|mut store| {
            let may_go_on = store.data_mut().may_go_on();
            Ok(if may_go_on { UpdateDeadline::Yield(1) } else { UpdateDeadline::Interrupt })
        });
        // The time of the whole start.
        store.data_mut().may_run = START_TICKS;
        store.set_epoch_deadline(1);
        let limit = Duration::from_millis(START_TICKS);
        let instantiated = module.pre().instantiate_async(&mut store).await;
        let instance = instantiated.map_err(|error| started(sandbox::cause(&error, limit)))?;
        let guest = Guest::of(&instance, &mut store, facts, module.traits());
        store.data_mut().memory = guest.memory;
        store.data_mut().allocator = guest.allocator.clone();
        store.data_mut().alloc = guest.verdicts.as_ref().and_then(|verdicts| verdicts.alloc.clone());
        let mut this = Self {
            store,
            guest,
            module: module.clone(),
            alive: true,
            ticks: None,
            next_context: ROOT,
            next_tick: 0,
        };
        this.run_start_functions().await.map_err(started)?;
        this.create_root().await?;
        this.ticks = Some(sandbox.ticks());
        Ok(this)
    }

    async fn run_start_functions(&mut self) -> Result<(), Cause> {
        if let Some(initialize) = self.guest.initialize.clone() {
            self.call(&initialize, ()).await?;
            if let Some(main) = self.guest.main.clone() {
                self.call(&main, (0, 0)).await?;
            }
        } else if let Some(start) = self.guest.start.clone() {
            self.call(&start, ()).await?;
        }
        Ok(())
    }

    async fn create_root(&mut self) -> Result<(), PluginError> {
        let failed = |phase| move |cause| PluginError::Start { phase, cause };
        let facts = Arc::clone(&self.store.data().facts);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.enter(ROOT, Phase::Start);
        if let Some(create) = self.guest.on_context_create.clone() {
            self.call(&create, (ROOT, 0)).await.map_err(failed(Phase::Start))?;
        }
        if let Some(vm_start) = self.guest.on_vm_start.clone() {
            let arguments = (ROOT, length(&facts.vm_configuration));
            if self.call(&vm_start, arguments).await.map_err(failed(Phase::Start))? == 0 {
                return Err(PluginError::Rejected { phase: Phase::Start });
            }
        }
        self.enter(ROOT, Phase::Configure);
        if let Some(configure) = self.guest.on_configure.clone() {
            let arguments = (ROOT, length(&facts.configuration));
            if self.call(&configure, arguments).await.map_err(failed(Phase::Configure))? == 0 {
                return Err(PluginError::Rejected { phase: Phase::Configure });
            }
        }
        let _ = self.store.data_mut().give_back();
        self.next_context = ROOT + 1;
        Ok(())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    /// Bytes of the guest's linear memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let memory = self.guest.memory.map_or(0, |memory| memory.data_size(&self.store));
        u64::try_from(memory).unwrap_or(u64::MAX)
    }

    /// Whether something is under way that may enter the guest later and continue a stream.
    pub(crate) fn expects_calls(&self) -> bool {
        !self.store.data().calls.is_empty()
    }

    /// Takes over what a stream lends; [`give_back`](Self::give_back) returns it.
    pub(crate) fn lend(&mut self, exchange: OwnedMutexGuard<Exchange>, usage: Usage) {
        self.store.data_mut().lend(exchange, usage);
    }

    pub(crate) fn give_back(&mut self) -> (Option<OwnedMutexGuard<Exchange>>, Usage) {
        self.store.data_mut().give_back()
    }

    /// Gives a stream a context of an id that is unique among those alive.
    pub(crate) fn register(&mut self, exchange: SharedExchange, seat: usize) -> Result<u32, Cause> {
        let contexts = &mut self.store.data_mut().contexts;
        if contexts.len() >= MAX_CONTEXTS {
            return Err(Cause::Budget { what: "stream contexts" });
        }
        let mut context = self.next_context;
        while context <= ROOT || contexts.contains_key(&context) {
            context = context.wrapping_add(1);
        }
        contexts.insert(context, Registered { exchange, seat });
        self.next_context = context.wrapping_add(1);
        Ok(context)
    }

    pub(crate) async fn on_create(&mut self, context: u32) -> Result<u32, Cause> {
        self.enter(context, Phase::RequestHeaders);
        if let Some(create) = self.guest.on_context_create.clone() {
            self.call(&create, (context, ROOT)).await?;
        }
        Ok(0)
    }

    /// Logs, finishes and deletes a stream context.
    pub(crate) async fn close(&mut self, context: u32) -> Result<(), Cause> {
        self.enter(context, Phase::End);
        if let Some(log) = self.guest.on_log.clone() {
            self.set_logged(true);
            self.call(&log, context).await?;
            self.set_logged(false);
        }
        if let Some(done) = self.guest.on_done.clone() {
            // As in Envoy, a stream is deleted whatever its guest says.
            self.enter(context, Phase::End);
            self.call(&done, context).await?;
        }
        if let Some(delete) = self.guest.on_delete.clone() {
            self.enter(context, Phase::End);
            self.call(&delete, context).await?;
        }
        self.store.data_mut().contexts.remove(&context);
        Ok(())
    }

    fn set_logged(&mut self, is_logged: bool) {
        let state = self.store.data_mut();
        let _ = state.choose(state.active);
        if let Some(exchange) = state.exchange_mut() {
            exchange.is_logged = is_logged;
        }
    }

    /// Whether the exchange a job works on can be had now; it is kept for the job then.
    pub(crate) fn prepare(&mut self, job: &Job) -> bool {
        match job {
            Job::Close { context, exchange, usage } => {
                let Some(mut exchange) = exchange.try_lock_owned() else { return false };
                let seat = self.store.data().contexts.get(context).map_or(0, |registered| registered.seat);
                exchange.begin(seat, false);
                self.lend(exchange, *usage);
                true
            }
            Job::HttpReply { id, .. } | Job::Grpc { id, .. } => {
                let state = self.store.data_mut();
                state.calls.context_of(*id).is_none_or(|context| state.reserve(context))
            }
            Job::QueueReady { .. } => true,
        }
    }

    /// Makes a call that waited until the instance was free.
    pub(crate) async fn run(&mut self, job: Job) -> Result<(), (Phase, Cause)> {
        let (phase, result) = match job {
            Job::Close { context, .. } => (Phase::End, self.close(context).await),
            Job::HttpReply { id, outcome } => {
                let mut result = Ok(());
                if self.store.data_mut().calls.remove_http(id) {
                    let received = Received::of_call(outcome.map(|response| *response));
                    result = self.on_http_call_response(id, received).await;
                }
                (Phase::CallResponse, result)
            }
            Job::Grpc { id, event } => (Phase::CallResponse, self.on_grpc(id, *event).await),
            Job::QueueReady { token } => {
                self.enter_root(Phase::QueueReady);
                let mut result = Ok(());
                if let Some(ready) = self.guest.on_queue_ready.clone() {
                    result = self.call(&ready, (ROOT, token)).await;
                }
                (Phase::QueueReady, result)
            }
        };
        drop(self.give_back());
        result.map_err(|cause| (phase, cause))
    }

    async fn on_http_call_response(&mut self, id: u32, received: Received) -> Result<(), Cause> {
        let Some(callback) = self.guest.on_http_call_response.clone() else { return Ok(()) };
        let body = received.call_body().map_or(0, <[u8]>::len);
        let arguments = (
            ROOT,
            id,
            received.count(MapKind::CallHeaders),
            u32::try_from(body).unwrap_or(u32::MAX),
            received.count(MapKind::CallTrailers),
        );
        self.enter_root(Phase::CallResponse);
        self.store.data_mut().received = received;
        self.call(&callback, arguments).await
    }

    /// A unary call ends with its message, as in Envoy; every call ends when it is closed.
    async fn on_grpc(&mut self, id: u32, event: GrpcEvent) -> Result<(), Cause> {
        if !self.store.data().calls.has_grpc(id) {
            return Ok(());
        }
        let is_unary = CallKind::of(id) == Some(CallKind::GrpcCall);
        let (callback, received, argument, ends) = match event {
            GrpcEvent::InitialMetadata(_) | GrpcEvent::TrailingMetadata(_) if is_unary => return Ok(()),
            GrpcEvent::InitialMetadata(metadata) => {
                let received = Received::of_initial_metadata(metadata);
                let count = received.count(MapKind::GrpcInitial);
                (&self.guest.on_grpc_initial_metadata, received, count, false)
            }
            GrpcEvent::Message(message) => {
                let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
                (&self.guest.on_grpc_receive, Received::of_message(message), length, is_unary)
            }
            GrpcEvent::TrailingMetadata(metadata) => {
                let received = Received::of_trailing_metadata(metadata);
                let count = received.count(MapKind::GrpcTrailing);
                (&self.guest.on_grpc_trailing_metadata, received, count, false)
            }
            GrpcEvent::Close { status, message } => {
                (&self.guest.on_grpc_close, Received::of_close(status, message), status, true)
            }
        };
        let callback: Notice = callback.clone();
        let Some(callback) = callback else {
            if ends {
                self.store.data_mut().calls.remove_grpc(id);
            }
            return Ok(());
        };
        self.enter_root(Phase::CallResponse);
        self.store.data_mut().received = received;
        self.call(&callback, (ROOT, id, argument)).await?;
        if ends {
            self.store.data_mut().calls.remove_grpc(id);
        }
        Ok(())
    }

    /// Calls `proxy_on_tick` when the guest's period has passed.
    pub(crate) async fn tick_at(&mut self, now: u64) -> Result<(), Cause> {
        let Some(period) = self.store.data().tick_period else {
            self.next_tick = 0;
            return Ok(());
        };
        if self.next_tick == 0 {
            self.next_tick = now.saturating_add(period);
        }
        let Some(tick) = self.guest.on_tick.clone().filter(|_| now >= self.next_tick) else { return Ok(()) };
        self.next_tick = now.saturating_add(period);
        self.enter_root(Phase::Tick);
        let result = self.call(&tick, ROOT).await;
        drop(self.give_back());
        result
    }

    fn enter(&mut self, context: u32, phase: Phase) {
        let state = self.store.data_mut();
        if state.effective != state.active {
            let _ = state.choose(state.active);
        }
        state.enter(context, phase);
    }

    /// Enters a callback of the root context, which has no exchange and a budget of its own.
    fn enter_root(&mut self, phase: Phase) {
        self.enter(ROOT, phase);
        self.store.data_mut().usage = Usage::default();
    }

    async fn call<P, R>(&mut self, function: &TypedFunc<P, R>, params: P) -> Result<R, Cause>
    where
        P: WasmParams + Sync,
        R: WasmResults + Sync,
    {
        self.alive = false;
        let now = self.module.engine().ticks();
        let state = self.store.data_mut();
        state.now = now;
        if let Some(ticks) = self.ticks {
            (state.ran, state.may_run) = (0, ticks);
            self.store.set_epoch_deadline(1);
        }
        let result = function.call_async(&mut self.store, params).await;
        self.alive = result.is_ok();
        let limit = Duration::from_millis(self.ticks.unwrap_or(START_TICKS));
        result.map_err(|error| sandbox::cause(&error, limit))
    }
}
