//! One running guest: its store, its callbacks, and whether it may still be entered.

mod messages;
mod root;

use std::sync::Arc;

use futures_util::lock::OwnedMutexGuard;

use crate::config::Sandbox;
use crate::engine;
use crate::error::{Cause, Phase, PluginError};
use crate::guest_store::GuestStore;
use crate::host::GrpcEvent;
use crate::inbox::Job;
use crate::limits::Limits;
use crate::module::Module;
use crate::pool::Slot;
use crate::proxy_wasm::{CallKind, Guest, MapKind, ROOT, Received, Registered, State};
use crate::stream::{Exchange, SharedExchange};

/// Most stream contexts one instance has at a time.
const MAX_CONTEXTS: usize = 10_000;

/// An instance of a plugin's module, started and configured.
pub(crate) struct Instance {
    store: GuestStore,
    guest: Guest,
    next_context: u32,
}

// === impl Instance ===

impl Instance {
    /// Instantiates, starts and configures a guest that will live in this slot.
    pub(crate) fn start(
        module: &Module,
        sandbox: &Sandbox,
        slot: &Arc<Slot>,
    ) -> impl Future<Output = Result<Self, PluginError>> + Send + use<> {
        let plugin = slot.plugin();
        let limits = Limits::of(sandbox, module.engine().linear_memory(), plugin.space.memory());
        let state = State::new(Arc::clone(plugin), module.abi(), limits, slot);
        let store = GuestStore::new(module.engine(), state, sandbox.start_ticks());
        Self::start_in(module.clone(), store, sandbox.ticks())
    }

    async fn start_in(module: Module, mut store: GuestStore, ticks: u64) -> Result<Self, PluginError> {
        let started = |cause| PluginError::Start { phase: Phase::Start, cause };
        let guest = module.linked().instantiate(&mut store.inner, module.traits()).await;
        let guest = guest.map_err(|error| {
            if engine::is_full(&error) {
                return PluginError::Full { max_instances: module.engine().max_instances() };
            }
            store.shortage().unwrap_or_else(|| started(store.cause(&error)))
        })?;
        let mut this = Self { store, guest, next_context: ROOT };
        this.configure().await.map_err(|error| match error {
            PluginError::Start { .. } => this.store.shortage().unwrap_or(error),
            // The guest has done without.
            error => error,
        })?;
        this.store.limit_each_callback(ticks);
        Ok(this)
    }

    async fn configure(&mut self) -> Result<(), PluginError> {
        self.run_start_functions().await?;
        self.create_root().await
    }

    async fn run_start_functions(&mut self) -> Result<(), PluginError> {
        let failed = |cause| PluginError::Start { phase: Phase::Start, cause };
        if let Some(initialize) = &self.guest.initialize {
            self.store.call(initialize, ()).await.map_err(failed)?;
            if let Some(main) = &self.guest.main {
                self.store.call(main, (0, 0)).await.map_err(failed)?;
            }
        } else if let Some(start) = &self.guest.start {
            self.store.call(start, ()).await.map_err(|cause| match cause {
                Cause::Exit { code: 0 } => PluginError::Program,
                cause => failed(cause),
            })?;
        }
        Ok(())
    }

    async fn create_root(&mut self) -> Result<(), PluginError> {
        let failed = |phase| move |cause| PluginError::Start { phase, cause };
        let plugin = Arc::clone(&self.store.inner.data().plugin);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // As in Envoy, it can read its plugin's configuration here, and not while its VM starts.
        self.store.enter(ROOT, Phase::Configure);
        if let Some(create) = &self.guest.on_context_create {
            self.store.call(create, (ROOT, 0)).await.map_err(failed(Phase::Start))?;
        }
        self.store.enter(ROOT, Phase::Start);
        if let Some(vm_start) = &self.guest.on_vm_start {
            let arguments = (ROOT, length(&plugin.vm_configuration));
            if self.store.call(vm_start, arguments).await.map_err(failed(Phase::Start))? == 0 {
                return Err(PluginError::Rejected { phase: Phase::Start });
            }
        }
        self.store.enter(ROOT, Phase::Configure);
        if let Some(configure) = &self.guest.on_configure {
            let arguments = (ROOT, length(&plugin.configuration));
            if self.store.call(configure, arguments).await.map_err(failed(Phase::Configure))? == 0 {
                return Err(PluginError::Rejected { phase: Phase::Configure });
            }
        }
        let _ = self.give_back();
        self.next_context = ROOT + 1;
        Ok(())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.store.is_alive()
    }

    /// Bytes of the guest's linear memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let memory = self.guest.memory.map_or(0, |memory| memory.data_size(&self.store.inner));
        u64::try_from(memory).unwrap_or(u64::MAX)
    }

    /// Takes over what a stream lends; [`give_back`](Self::give_back) returns it.
    pub(crate) fn lend(&mut self, exchange: OwnedMutexGuard<Exchange>) {
        self.store.inner.data_mut().lend(exchange);
    }

    pub(crate) fn give_back(&mut self) -> Option<OwnedMutexGuard<Exchange>> {
        let is_alive = self.is_alive();
        self.store.inner.data_mut().give_back(is_alive)
    }

    /// Whether another stream finds room.
    pub(crate) fn has_room(&self) -> bool {
        self.store.inner.data().contexts.len() < MAX_CONTEXTS
    }

    /// Whether no stream is on it, and no call-out of its own is under way.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.store.inner.data();
        state.contexts.len() == 0 && state.calls.are_over()
    }

    /// Gives a stream a context of an id that is unique among those alive.
    pub(crate) fn register(&mut self, exchange: SharedExchange, plugin_index: usize) -> u32 {
        let contexts = &mut self.store.inner.data_mut().contexts;
        let mut context = self.next_context;
        while context <= ROOT || contexts.contains(context) {
            context = context.wrapping_add(1);
        }
        contexts.insert(context, Registered { exchange, plugin_index });
        self.next_context = context.wrapping_add(1);
        context
    }

    pub(crate) async fn on_create(&mut self, context: u32) -> Result<u32, Cause> {
        self.store.enter(context, Phase::RequestHeaders);
        if let Some(create) = &self.guest.on_context_create {
            self.store.call(create, (context, ROOT)).await?;
        }
        Ok(0)
    }

    /// Logs a stream, without finishing it.
    pub(crate) async fn log(&mut self, context: u32) -> Result<(), Cause> {
        self.store.enter(context, Phase::End);
        if let Some(log) = &self.guest.on_log {
            self.store.inner.data_mut().set_logged(true);
            self.store.call(log, context).await?;
            self.store.inner.data_mut().set_logged(false);
        }
        Ok(())
    }

    /// Logs, unless that was done, finishes and deletes a stream context. As in Envoy, a stream is deleted
    /// whatever its guest says.
    pub(crate) async fn close(&mut self, context: u32, is_logged: bool) -> Result<(), Cause> {
        self.store.enter(context, Phase::End);
        let end = if is_logged { &self.guest.finish } else { &self.guest.end };
        if let Some(end) = end {
            self.store.inner.data_mut().set_logged(!is_logged);
            self.store.call(end, context).await?;
        }
        self.store.inner.data_mut().contexts.remove(context);
        Ok(())
    }

    /// Whether the exchange a job works on can be had now; it is kept for the job then.
    pub(crate) fn prepare(&mut self, job: &Job) -> bool {
        match job {
            Job::Close { context, exchange, notes, .. } => {
                let Some(mut exchange) = exchange.try_lock_owned() else { return false };
                notes.tell(&mut exchange);
                let plugin_index = self
                    .store
                    .inner
                    .data()
                    .contexts
                    .get(*context)
                    .map_or(0, |registered| registered.plugin_index);
                exchange.begin(plugin_index, false);
                self.lend(exchange);
                true
            }
            Job::HttpReply { id, .. } | Job::Grpc { id, .. } => {
                let state = self.store.inner.data_mut();
                state.calls.context_of(*id).is_none_or(|context| state.reserve(context))
            }
            Job::QueueReady { .. } => true,
        }
    }

    /// Makes a call that waited until the instance was free.
    pub(crate) async fn run(&mut self, job: Job) -> Result<(), (Phase, Cause)> {
        let (phase, result) = match job {
            Job::Close { context, is_logged, .. } => (Phase::End, self.close(context, is_logged).await),
            Job::HttpReply { id, outcome } => {
                let mut result = Ok(());
                if self.store.inner.data_mut().calls.remove_http(id) {
                    let received = Received::of_call(outcome.map(|response| *response));
                    result = self.on_http_call_response(id, received).await;
                }
                (Phase::CallResponse, result)
            }
            Job::Grpc { id, event } => (Phase::CallResponse, self.on_grpc(id, *event).await),
            Job::QueueReady { token } => {
                self.store.enter_root(Phase::QueueReady);
                let mut result = Ok(());
                if let Some(ready) = &self.guest.on_queue_ready {
                    result = self.store.call(ready, (ROOT, token)).await;
                }
                (Phase::QueueReady, result)
            }
        };
        if result.is_err() {
            self.store.inner.data_mut().undo_reply();
        }
        drop(self.give_back());
        result.map_err(|cause| (phase, cause))
    }

    async fn on_http_call_response(&mut self, id: u32, received: Received) -> Result<(), Cause> {
        let Some(callback) = &self.guest.on_http_call_response else { return Ok(()) };
        let body = received.call_body().map_or(0, <[u8]>::len);
        let arguments = (
            ROOT,
            id,
            received.count(MapKind::CallHeaders),
            u32::try_from(body).unwrap_or(u32::MAX),
            received.count(MapKind::CallTrailers),
        );
        if !self.store.enter_reply() {
            return Ok(());
        }
        self.store.inner.data_mut().received = Some(Box::new(received));
        self.store.call(callback, arguments).await
    }

    /// A unary call ends with its message, as in Envoy; every call ends when it is closed.
    async fn on_grpc(&mut self, id: u32, event: GrpcEvent) -> Result<(), Cause> {
        if !self.store.inner.data().calls.has_grpc(id) {
            return Ok(());
        }
        let is_unary = CallKind::of(id) == Some(CallKind::GrpcCall);
        let (callback, received, argument, ends) = match event {
            GrpcEvent::InitialMetadata(..) | GrpcEvent::TrailingMetadata(..) if is_unary => return Ok(()),
            GrpcEvent::InitialMetadata(status, metadata) => {
                let received = Received::of_initial_metadata(status, metadata);
                let count = received.count(MapKind::GrpcInitial);
                (&self.guest.on_grpc_initial_metadata, received, count, false)
            }
            GrpcEvent::Message(message) => {
                let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
                (&self.guest.on_grpc_receive, Received::of_message(message), length, is_unary)
            }
            GrpcEvent::TrailingMetadata(status, metadata) => {
                let received = Received::of_trailing_metadata(status, metadata);
                let count = received.count(MapKind::GrpcTrailing);
                (&self.guest.on_grpc_trailing_metadata, received, count, false)
            }
            GrpcEvent::Close { status, message } => {
                (&self.guest.on_grpc_close, Received::of_close(status, message), status, true)
            }
        };
        let Some(callback) = callback else {
            if ends {
                self.store.inner.data_mut().calls.remove_grpc(id);
            }
            return Ok(());
        };
        if self.store.enter_reply() {
            self.store.inner.data_mut().received = Some(Box::new(received));
            self.store.call(callback, (ROOT, id, argument)).await?;
        }
        if ends {
            self.store.inner.data_mut().calls.remove_grpc(id);
        }
        Ok(())
    }

    /// Whether the guest's period has passed.
    pub(crate) fn is_tick_due_at(&self, now: u64) -> bool {
        let state = self.store.inner.data();
        self.guest.on_tick.is_some() && state.tick_period.is_some() && now >= state.next_tick
    }

    /// Calls `proxy_on_tick`; the next period begins when that is over.
    pub(crate) async fn tick(&mut self) -> Result<(), Cause> {
        let Some(tick) = &self.guest.on_tick else { return Ok(()) };
        self.store.enter_root(Phase::Tick);
        let result = self.store.call(tick, ROOT).await;
        self.store.inner.data_mut().expect_tick();
        drop(self.give_back());
        result
    }
}
