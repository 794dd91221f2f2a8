//! One call of one guest for a stream, from its first slice to what comes of it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use super::active_plugin::{ActivePlugin, CallOutcome};
use super::direction::{ByDirection, Direction};
use super::exchange::Undo;
use super::guest_call::{GuestCall, GuestCallResult};
use super::plugin_state::BodyBytes;
use super::wait::Wait;
use super::{Action, PluginCursor, StreamContext};
use crate::config::FailurePolicy;
use crate::error::{Cause, Phase};
use crate::instance::Instance;
use crate::pool::InstanceGuard;
use crate::proxy_wasm::HeadersVerdict;
use crate::running::{ReleaseInstance as _, RunningCall, Started};
use crate::sandbox::NO_TIME;

/// What a guest is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    /// Those of a request after its creation.
    Headers {
        phase: Phase,
        count: u32,
        end: bool,
    },
    Body {
        phase: Phase,
        length: u32,
        end: bool,
    },
    /// The held body as its end, in front of trailers.
    LastBody {
        phase: Phase,
        length: u32,
    },
    Trailers {
        phase: Phase,
        count: u32,
    },
    /// To log the stream, of which other plugins are told next.
    Log,
    /// To log it, unless that was done, and to finish and forget it.
    Close {
        is_logged: bool,
    },
}

/// The calls of a stream: one at a time, for each has the exchange.
#[derive(Default)]
pub(super) struct StreamCalls {
    running: Option<Box<PendingCall>>,
    concluded: ByDirection<Option<Box<FinishedCall>>>,
    /// Bytes that a plugin has let go and that go on together with what the running call lets go.
    pub(super) fronts: ByDirection<BodyBytes>,
    /// Who is waiting for the running call.
    wakers: ByDirection<Option<Waker>>,
}

/// A call that has used up a slice.
struct PendingCall {
    direction: Direction,
    index: usize,
    call: Call,
    running: RunningCall<GuestCallResult>,
    /// Others have not had their turn since the last slice.
    is_fresh: bool,
}

/// A call that has ended while its step was waiting.
struct FinishedCall {
    index: usize,
    call: Call,
    visit: CallOutcome,
}

// === impl Call ===

impl Call {
    pub(super) fn phase(self) -> Phase {
        match self {
            Self::Create => Phase::RequestHeaders,
            Self::Headers { phase, .. }
            | Self::Body { phase, .. }
            | Self::LastBody { phase, .. }
            | Self::Trailers { phase, .. } => phase,
            Self::Log | Self::Close { .. } => Phase::End,
        }
    }

    /// Whether both are the same callback; what they were told may differ.
    fn is_kind_of(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    pub(super) async fn make(self, instance: &mut Instance, context: u32) -> Result<u32, Cause> {
        match self {
            Self::Create => instance.on_create(context).await,
            Self::Headers { phase: Phase::RequestHeaders, count, end } => {
                instance.on_begin(context, count, end).await
            }
            Self::Headers { phase, count, end } => instance.on_headers(context, phase, count, end).await,
            Self::Body { phase, length, end } => instance.on_body(context, phase, length, end).await,
            Self::LastBody { phase, length } => instance.on_body(context, phase, length, true).await,
            Self::Trailers { phase, count } => instance.on_trailers(context, phase, count).await,
            Self::Log => instance.log(context).await.map(|()| 0),
            Self::Close { is_logged } => instance.close(context, is_logged).await.map(|()| 0),
        }
    }
}

// === impl StreamCalls ===

impl StreamCalls {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The call that has ended for this plugin while its step was waiting.
    pub(super) fn resumes(&self, direction: Direction, index: usize) -> Option<Call> {
        self.concluded
            .get(direction)
            .as_ref()
            .filter(|concluded| concluded.index == index)
            .map(|ended| ended.call)
    }

    /// A call that has ended without a verdict while its step was waiting.
    fn take_end(&mut self, direction: Direction) -> Option<Box<FinishedCall>> {
        let is_end = |concluded: &mut Box<FinishedCall>| {
            matches!(concluded.visit, CallOutcome::Over(_) | CallOutcome::Skipped)
        };
        self.concluded.of(direction).take_if(is_end)
    }

    /// What a request's plugin did that its own step did not come back for.
    pub(super) fn take_end_of_request(&mut self) -> Option<CallOutcome> {
        let is_end = |concluded: &mut Box<FinishedCall>| matches!(concluded.visit, CallOutcome::Over(_));
        self.concluded.of(Direction::Request).take_if(is_end).map(|concluded| concluded.visit)
    }
}

// === impl StreamContext ===

impl StreamContext {
    /// Runs a guest for this stream, with the exchange in its hands; `cell` is its instance, if that is
    /// locked already.
    pub(super) fn visit(
        &mut self,
        cursor: &PluginCursor<'_>,
        cell: &mut Option<InstanceGuard>,
        call: Call,
    ) -> CallOutcome {
        let PluginCursor { plugin, index, direction } = *cursor;
        let concluded = self.calls.concluded.of(direction);
        let ended = concluded.take_if(|ended| ended.index == index && ended.call.is_kind_of(call));
        if let Some(ended) = ended {
            return ended.visit;
        }
        let Some(ActivePlugin { lease: Some(lease), context, .. }) = self.active.get(index) else {
            return CallOutcome::Skipped;
        };
        let context = *context;
        let plugin_state = self.exchange.as_ref().and_then(|exchange| exchange.plugins.get(index));
        if !plugin_state.is_none_or(|plugin_state| plugin.has_time_for(&plugin_state.usage)) {
            if let Some(exchange) = self.exchange.as_mut() {
                exchange.begin(index, false);
            }
            return self.failed(plugin, index, call.phase(), NO_TIME);
        }
        let Some(mut guard) = cell.take().or_else(|| lease.slot().try_lock()) else {
            *self.waits.of(direction) = Some(Wait::for_instance(lease.slot()));
            return CallOutcome::Pending;
        };
        if guard.instance_of(lease.slot(), lease.generation()).is_none() {
            if let Some(exchange) = self.exchange.as_mut() {
                exchange.begin(index, false);
            }
            return self.failed(plugin, index, call.phase(), Cause::InstanceLost);
        }
        let Some(mut exchange) = self.exchange.take() else { return CallOutcome::Skipped };
        exchange.begin(index, plugin.failure_policy() == FailurePolicy::FailOpen);
        // What it has let go so far is not what its verdict holds.
        if let Some(message) = exchange.message_of(index, direction) {
            message.is_continued = false;
        }
        let guest_call = GuestCall { cell: guard, exchange, call, context };
        match guest_call.begin(lease.slot()) {
            Started::Over(returned) => {
                let (visit, guard) = self.conclude(cursor, call.phase(), returned);
                *cell = guard;
                visit
            }
            Started::Running(running) => {
                running.share();
                let ongoing = PendingCall { direction, index, call, running, is_fresh: true };
                self.calls.running = Some(Box::new(ongoing));
                *self.waits.of(direction) = Some(Wait::Running);
                CallOutcome::Pending
            }
        }
    }

    /// Takes back what a call had, and looks at what the guest did.
    fn conclude(
        &mut self,
        cursor: &PluginCursor<'_>,
        phase: Phase,
        returned: GuestCallResult,
    ) -> (CallOutcome, Option<InstanceGuard>) {
        let PluginCursor { plugin, index, .. } = *cursor;
        let GuestCallResult { mut cell, exchange, result, .. } = returned;
        self.exchange = exchange;
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.notify();
        }
        if let (Err(cause), Some(active), Some(cell)) = (&result, self.active.get(index), &mut cell)
            && let Some(lease) = &active.lease
        {
            lease.slot().bury(cell, phase, cause);
        }
        let visit = match result {
            Err(cause) => self.failed(plugin, index, phase, cause),
            Ok(code) => {
                let outcome = self.outcome(plugin, index, phase);
                if let Some(exchange) = self.exchange.as_mut().filter(|_| code == 0) {
                    exchange.undo = Undo::default();
                }
                outcome.unwrap_or(CallOutcome::Done(code))
            }
        };
        (visit, cell)
    }

    /// What a guest that was shown headers asks for. Where a hook leaves out the body that it waits for, they
    /// wait for its call-outs, upon which it may judge them, and then go on. A guest that has no callback for
    /// bodies waits for something else.
    pub(super) fn headers_verdict(
        &mut self,
        cursor: &PluginCursor<'_>,
        code: u32,
        end: bool,
    ) -> HeadersVerdict {
        let PluginCursor { plugin, index, direction } = *cursor;
        match plugin.headers_verdict(code) {
            HeadersVerdict::Stop if end || !plugin.has_body_callback(direction) => HeadersVerdict::StopAll,
            HeadersVerdict::Stop if plugin.wants_body(direction, self.streaming) => HeadersVerdict::Stop,
            HeadersVerdict::Stop if self.expects_calls(index) => {
                if let Some(message) = self.message_of(index, direction) {
                    message.waits_for_calls = true;
                }
                HeadersVerdict::StopAll
            }
            HeadersVerdict::Stop => HeadersVerdict::Continue,
            verdict => verdict,
        }
    }

    /// Whether call-outs of a plugin for the stream are under way.
    pub(super) fn expects_calls(&self, index: usize) -> bool {
        let plugin_state = self.exchange.as_ref().and_then(|exchange| exchange.plugins.get(index));
        plugin_state.is_some_and(|plugin_state| plugin_state.expects_calls)
    }

    /// How the message of a direction has ended, if it has: told by whatever ended it, and from then on as an
    /// end.
    pub(super) fn ended(&mut self, direction: Direction) -> Option<Action> {
        if let Some(ended) = self.calls.take_end(direction) {
            let front = std::mem::take(self.calls.fronts.of(direction));
            if let CallOutcome::Over(action) = ended.visit {
                self.end_by(direction, &action);
                return Some(action);
            }
            // What a plugin had let go before it failed open goes on with what it held.
            if let Some(message) = self.message_of(ended.index, direction) {
                message.kept = front.followed_by(std::mem::take(&mut message.kept).into_bytes());
            }
        }
        self.messages.get(direction).over.clone().map(Action::BreakOff)
    }

    /// Goes on with the call that is running, whichever direction it is for; ready when none is.
    ///
    /// Whoever waits for anything of the stream drives it: the body it was made for may never be polled
    /// again.
    pub(super) fn poll_running(&mut self, waiter: Direction, cx: &mut Context<'_>) -> Poll<()> {
        let Some(ongoing) = self.calls.running.as_mut() else { return Poll::Ready(()) };
        let polled = if std::mem::take(&mut ongoing.is_fresh) {
            cx.waker().wake_by_ref();
            Poll::Pending
        } else {
            ongoing.running.poll(cx)
        };
        if polled.is_pending() {
            *self.calls.wakers.of(waiter) = Some(cx.waker().clone());
        }
        let returned = ready!(polled);
        let Some(ongoing) = self.calls.running.take() else { return Poll::Ready(()) };
        let PendingCall { direction, index, call, .. } = *ongoing;
        let plugins = self.plugins.clone().unwrap_or_default();
        let Some(plugin) = plugins.get(index) else { return Poll::Ready(()) };
        let (visit, cell) = self.conclude(&PluginCursor { plugin, index, direction }, call.phase(), returned);
        drop(cell);
        self.exchange = None;
        *self.calls.concluded.of(direction) = Some(Box::new(FinishedCall { index, call, visit }));
        self.settle();
        self.calls.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
        Poll::Ready(())
    }

    /// Leaves the call that is running to upkeep: nobody will poll it any more.
    pub(super) fn leave_running(&mut self) {
        if let Some(ongoing) = self.calls.running.take() {
            let PendingCall { index, running, .. } = *ongoing;
            let slot = self.active.get(index).and_then(|active| active.lease.as_ref());
            let slot = slot.map(|lease| Arc::downgrade(lease.slot())).unwrap_or_default();
            running.leave(move |mut returned| {
                if let Some(slot) = slot.upgrade() {
                    returned.let_go(&slot);
                }
            });
        }
    }
}
