//! The way into a guest: its store, and whether it may still be entered.

use std::time::Duration;

use wasmtime::{Store, TypedFunc, UpdateDeadline, WasmParams, WasmResults};

use crate::engine::Engine;
use crate::error::{Cause, Phase, PluginError};
use crate::proxy_wasm::{EpochAction, ROOT, State};
use crate::sandbox::{self, NO_TIME, Usage};

/// Beats of the clock until a guest is asked whether it may go on.
pub(crate) const NEXT_BEAT: u64 = 1;

/// The way into one guest.
pub(crate) struct GuestStore {
    pub(crate) inner: Store<State>,
    /// The code of the module beside the guest, which is not the guest's.
    shim: wasmtime::Module,
    /// False from the moment a call into the guest begins until it returns: whatever interrupts one leaves a
    /// dead guest.
    alive: bool,
    /// Time limit in engine ticks: of all calls together while the guest starts, and then of each callback.
    limit: u64,
    is_started: bool,
}

// === impl GuestStore ===

impl GuestStore {
    /// A store for a guest that is to start, all in one time limit, in engine ticks.
    pub(crate) fn new(engine: &Engine, state: State, limit: u64) -> Self {
        let mut store = Store::new(engine.wasmtime(), state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|mut store| {
            Ok(match store.data_mut().on_epoch() {
                EpochAction::Continue => UpdateDeadline::Continue(NEXT_BEAT),
                EpochAction::Yield => UpdateDeadline::Yield(NEXT_BEAT),
                EpochAction::Interrupt => UpdateDeadline::Interrupt,
            })
        });
        store.data_mut().may_run = limit;
        store.set_epoch_deadline(NEXT_BEAT);
        let shim = engine.host_functions().shim().clone();
        Self { inner: store, shim, alive: true, limit, is_started: false }
    }

    /// Limits each callback from now on.
    pub(crate) fn limit_each_callback(&mut self, ticks: u64) {
        (self.limit, self.is_started) = (ticks, true);
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    /// Enters a callback for a context.
    pub(crate) fn enter(&mut self, context: u32, phase: Phase) {
        self.inner.data_mut().enter(context, phase);
    }

    /// Enters a callback of the root context, which has no exchange and a budget of its own.
    pub(crate) fn enter_root(&mut self, phase: Phase) {
        self.enter(ROOT, phase);
        self.inner.data_mut().usage = Usage::default();
    }

    /// Enters a callback of the root context about something that a stream has asked for, which pays for it.
    /// False if it cannot.
    pub(crate) fn enter_reply(&mut self) -> bool {
        self.enter(ROOT, Phase::CallResponse);
        let state = self.inner.data_mut();
        let has_time = state.usage.has_time_at(state.plugin.clock.ticks(), self.limit);
        if !has_time {
            state.fail_charged(NO_TIME);
        }
        has_time
    }

    pub(crate) async fn call<P, R>(&mut self, function: &TypedFunc<P, R>, params: P) -> Result<R, Cause>
    where
        P: WasmParams + Sync,
        R: WasmResults + Sync,
    {
        self.alive = false;
        let state = self.inner.data_mut();
        state.now = state.plugin.clock.ticks();
        state.limits.begin_callback();
        if self.is_started {
            state.tally.count_call();
            (state.ran, state.may_run) = (0, self.limit);
            self.inner.set_epoch_deadline(NEXT_BEAT);
        }
        let result = function.call_async(&mut self.inner, params).await;
        if self.is_started {
            self.inner.data_mut().end_callback();
        }
        self.alive = result.is_ok();
        result.map_err(|error| {
            let backtrace = sandbox::backtrace(&error, &self.shim);
            self.inner.data().plugin.shared.counters.note_backtrace(backtrace);
            self.cause(&error)
        })
    }

    /// What the guest lacked as it started, if that explains why it has not.
    pub(crate) fn shortage(&self) -> Option<PluginError> {
        self.inner.data().limits.shortage()
    }

    /// Why a call of the guest ended.
    pub(crate) fn cause(&self, error: &wasmtime::Error) -> Cause {
        let cause = sandbox::cause(error, Duration::from_millis(self.limit));
        self.inner.data().limits.explain(cause)
    }
}
