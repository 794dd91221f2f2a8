//! One running guest: its store, its callbacks, and whether it may still be entered.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Store, TypedFunc, WasmParams, WasmResults};

use crate::config::Sandbox;
use crate::error::{Cause, Phase, PluginError};
use crate::module::Module;
use crate::proxy_wasm::{Facts, Guest, Headers, Host, ROOT};
use crate::sandbox::{self, Usage};
use crate::stream::Exchange;

/// Time limit of instantiation, start and configuration together, in engine ticks: one second.
const START_TICKS: u64 = 1_000;

/// An instance of a plugin's module, started and configured.
pub(crate) struct Instance {
    store: Store<Host>,
    guest: Guest,
    /// False from the moment a call into the guest begins until it returns: whatever interrupts one leaves a dead guest.
    alive: bool,
    /// Time limit of one callback, in engine ticks; none while the guest starts, when one limit holds for all calls.
    ticks: Option<u64>,
    next_context: u32,
    next_tick: u64,
}

/// What a stream lends an instance for one visit.
pub(crate) struct Loan {
    pub(crate) exchange: Option<Box<Exchange>>,
    pub(crate) usage: Usage,
}

// === impl Instance ===

impl Instance {
    /// Instantiates, starts and configures a guest.
    pub(crate) fn start(module: &Module, facts: &Arc<Facts>, sandbox: &Sandbox) -> Result<Self, PluginError> {
        let started = |cause| PluginError::Start { phase: Phase::Start, cause };
        let host = Host::new(Arc::clone(facts), sandbox::limits(sandbox));
        let mut store = Store::new(module.pre().module().engine(), host);
        store.limiter(|host| &mut host.limits);
        store.epoch_deadline_trap();
        // The only deadline of the whole start. The tick that is running does not count.
        store.set_epoch_deadline(START_TICKS + 1);
        let limit = Duration::from_millis(START_TICKS);
        let instance =
            module.pre().instantiate(&mut store).map_err(|error| started(sandbox::cause(&error, limit)))?;
        let guest = Guest::of(&instance, &mut store);
        store.data_mut().memory = guest.memory;
        store.data_mut().allocator = guest.allocator.clone();
        let mut this = Self { store, guest, alive: true, ticks: None, next_context: ROOT, next_tick: 0 };
        this.run_start_functions().map_err(started)?;
        this.create_root(facts)?;
        this.ticks = Some(sandbox.ticks());
        Ok(this)
    }

    fn run_start_functions(&mut self) -> Result<(), Cause> {
        if let Some(initialize) = self.guest.initialize.clone() {
            self.call(&initialize, ())?;
            if let Some(main) = self.guest.main.clone() {
                self.call(&main, (0, 0))?;
            }
        } else if let Some(start) = self.guest.start.clone() {
            self.call(&start, ())?;
        }
        Ok(())
    }

    fn create_root(&mut self, facts: &Facts) -> Result<(), PluginError> {
        let failed = |phase| move |cause| PluginError::Start { phase, cause };
        self.enter(ROOT, Phase::Start);
        if let Some(create) = self.guest.on_context_create.clone() {
            self.call(&create, (ROOT, 0)).map_err(failed(Phase::Start))?;
        }
        if let Some(vm_start) = self.guest.on_vm_start.clone()
            && self.call(&vm_start, (ROOT, 0)).map_err(failed(Phase::Start))? == 0
        {
            return Err(PluginError::Rejected { phase: Phase::Start });
        }
        self.enter(ROOT, Phase::Configure);
        if let Some(configure) = self.guest.on_configure.clone() {
            let length = u32::try_from(facts.configuration.len()).unwrap_or(u32::MAX);
            if self.call(&configure, (ROOT, length)).map_err(failed(Phase::Configure))? == 0 {
                return Err(PluginError::Rejected { phase: Phase::Configure });
            }
        }
        self.next_context = ROOT + 1;
        Ok(())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    /// Takes over what a stream lends; [`give_back`](Self::give_back) returns it.
    pub(crate) fn lend(&mut self, loan: Loan) {
        let host = self.store.data_mut();
        host.exchange = loan.exchange;
        host.usage = loan.usage;
    }

    pub(crate) fn give_back(&mut self) -> Loan {
        let host = self.store.data_mut();
        Loan { exchange: host.exchange.take(), usage: std::mem::take(&mut host.usage) }
    }

    /// Creates a stream context and returns its id, unique among those alive.
    pub(crate) fn open(&mut self) -> Result<u32, Cause> {
        let contexts = &mut self.store.data_mut().contexts;
        let mut context = self.next_context;
        while context <= ROOT || !contexts.insert(context) {
            context = context.wrapping_add(1);
        }
        self.next_context = context.wrapping_add(1);
        self.enter(context, Phase::RequestHeaders);
        if let Some(create) = self.guest.on_context_create.clone() {
            self.call(&create, (context, ROOT))?;
        }
        Ok(context)
    }

    pub(crate) fn on_headers(
        &mut self,
        context: u32,
        phase: Phase,
        count: u32,
        end: bool,
    ) -> Result<u32, Cause> {
        self.enter(context, phase);
        let callback = match phase {
            Phase::RequestHeaders => &self.guest.on_request_headers,
            _ => &self.guest.on_response_headers,
        };
        match callback {
            Headers::Absent => Ok(0),
            Headers::Short(callback) => self.call(&callback.clone(), (context, count)),
            Headers::Long(callback) => self.call(&callback.clone(), (context, count, u32::from(end))),
        }
    }

    pub(crate) fn on_body(
        &mut self,
        context: u32,
        phase: Phase,
        length: u32,
        end: bool,
    ) -> Result<u32, Cause> {
        self.enter(context, phase);
        let callback = match phase {
            Phase::RequestBody => &self.guest.on_request_body,
            _ => &self.guest.on_response_body,
        };
        match callback.clone() {
            Some(callback) => self.call(&callback, (context, length, u32::from(end))),
            None => Ok(0),
        }
    }

    pub(crate) fn on_trailers(&mut self, context: u32, phase: Phase, count: u32) -> Result<u32, Cause> {
        self.enter(context, phase);
        let callback = match phase {
            Phase::RequestTrailers => &self.guest.on_request_trailers,
            _ => &self.guest.on_response_trailers,
        };
        match callback.clone() {
            Some(callback) => self.call(&callback, (context, count)),
            None => Ok(0),
        }
    }

    /// Logs, finishes and deletes a stream context.
    pub(crate) fn close(&mut self, context: u32) -> Result<(), Cause> {
        self.enter(context, Phase::End);
        if let Some(log) = self.guest.on_log.clone() {
            self.call(&log, context)?;
        }
        if let Some(done) = self.guest.on_done.clone() {
            // Nothing that could finish later exists, so a guest that is not done is deleted all the same.
            self.call(&done, context)?;
        }
        if let Some(delete) = self.guest.on_delete.clone() {
            self.call(&delete, context)?;
        }
        self.store.data_mut().contexts.remove(&context);
        Ok(())
    }

    /// Calls `proxy_on_tick` when the guest's period has passed.
    pub(crate) fn tick_at(&mut self, now: u64) -> Result<(), Cause> {
        let Some(period) = self.store.data().tick_period else {
            self.next_tick = 0;
            return Ok(());
        };
        if self.next_tick == 0 {
            self.next_tick = now.saturating_add(period);
        }
        let Some(tick) = self.guest.on_tick.clone().filter(|_| now >= self.next_tick) else { return Ok(()) };
        self.next_tick = now.saturating_add(period);
        self.enter(ROOT, Phase::Tick);
        self.store.data_mut().usage = Usage::default();
        self.call(&tick, ROOT)
    }

    fn enter(&mut self, context: u32, phase: Phase) {
        self.store.data_mut().enter(context, phase);
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        params: P,
    ) -> Result<R, Cause> {
        self.alive = false;
        if let Some(ticks) = self.ticks {
            // The tick that is running does not count: the guest gets at least its time.
            self.store.set_epoch_deadline(ticks.saturating_add(1));
        }
        let result = function.call(&mut self.store, params);
        self.alive = result.is_ok();
        let limit = Duration::from_millis(self.ticks.unwrap_or(START_TICKS));
        result.map_err(|error| sandbox::cause(&error, limit))
    }
}
