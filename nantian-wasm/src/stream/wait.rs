//! Waiting for a guest: for its instance, or for it to let go what it holds.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::lock::{OwnedMutexGuard, OwnedMutexLockFuture};

use super::active_plugin::{ActivePlugin, CallOutcome};
use super::direction::Direction;
use super::exchange::{Exchange, Waiter};
use super::plugin_state::{Pause, PluginState};
use super::{Action, StreamContext};
use crate::error::Phase;
use crate::plugin::Plugin;
use crate::pool::{InstanceCell, Slot};

/// What a step waits for.
pub(super) enum Wait {
    /// An instance that another thread is using.
    Instance(InstanceWait),
    /// The exchange, which another thread's guest has.
    Exchange(OwnedMutexLockFuture<Exchange>),
    /// The guest of this plugin.
    Guest(usize),
    /// A guest that is running.
    Running,
}

/// The wait for an instance.
pub(super) struct InstanceWait {
    slot: Arc<Slot>,
    cell: OwnedMutexLockFuture<InstanceCell>,
}

// === impl Wait ===

impl Wait {
    pub(super) fn for_instance(slot: &Arc<Slot>) -> Self {
        Self::Instance(InstanceWait { slot: Arc::clone(slot), cell: slot.wait() })
    }
}

impl Drop for InstanceWait {
    fn drop(&mut self) {
        self.slot.stop_waiting();
    }
}

// === impl StreamContext ===

impl StreamContext {
    /// Takes one step with the exchange in hand; what waits for the instances is done before and after.
    pub(super) fn step(&mut self, direction: Direction, run: impl FnOnce(&mut Self) -> Action) -> Action {
        self.settle();
        self.passing = None;
        self.exchange = self.take_exchange(direction);
        if self.exchange.is_none() {
            return Action::Pending;
        }
        *self.waits.of(direction) = None;
        let action = match self.interrupted(direction) {
            Some(action) => action,
            None => run(self),
        };
        if !matches!(action, Action::Pending) {
            self.let_pass();
        }
        if !matches!(action, Action::Continue) || self.is_wanted() {
            self.exchange = None;
        }
        self.settle();
        action
    }

    /// Takes the exchange, or notes that the direction waits for it: a guest may have it for many slices.
    fn take_exchange(&mut self, direction: Direction) -> Option<OwnedMutexGuard<Exchange>> {
        let mut exchange = self.exchange.take().or_else(|| self.shared.try_lock_owned());
        match &mut exchange {
            Some(exchange) => self.pending_notes.tell(exchange),
            None => *self.waits.of(direction) = Some(Wait::Exchange(Arc::clone(&self.shared).lock_owned())),
        }
        exchange
    }

    /// Takes the exchange once nothing is running and no guest has it.
    fn poll_exchange(
        &mut self,
        direction: Direction,
        cx: &mut Context<'_>,
    ) -> Poll<OwnedMutexGuard<Exchange>> {
        loop {
            ready!(self.poll_wait(direction, cx));
            if let Some(exchange) = self.take_exchange(direction) {
                return Poll::Ready(exchange);
            }
        }
    }

    /// Whether a guest may want the exchange between two steps: one that is entered for something else, has
    /// calls under way or holds a message. Otherwise it is locked once for all steps.
    fn is_wanted(&self) -> bool {
        let is_waiting = |(index, active): (usize, &ActivePlugin)| {
            active.holds.iter().any(|holds| *holds) || self.expects_calls(index)
        };
        self.may_interrupt() || self.active.iter().enumerate().any(is_waiting)
    }

    /// Makes guest calls that wait for the instances of this stream. Whoever waits for one of them does so
    /// after it has left word: replies that wake it come before or after.
    pub(super) fn settle(&self) {
        for lease in self.active.iter().filter_map(|active| active.lease.as_ref()) {
            lease.slot().settle();
        }
    }

    /// Between parts of a message, waits for what a guest holds; within one, for what the step waits for.
    pub(crate) fn poll_step(&mut self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        if self.waits.of(direction).is_some() {
            return self.poll_wait(direction, cx);
        }
        ready!(self.poll_running(direction, cx));
        self.poll_released(direction, cx)
    }

    /// Ready when the step that was left pending can be taken again.
    pub(crate) fn poll_wait(&mut self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_running(direction, cx));
        loop {
            match self.waits.of(direction).as_mut() {
                Some(Wait::Instance(wait)) => match wait.cell.poll_unpin(cx) {
                    Poll::Ready(cell) => drop(cell),
                    Poll::Pending => {
                        wait.slot.note_waiting(cx.waker());
                        return Poll::Pending;
                    }
                },
                // A step of the other direction may have left it here.
                Some(Wait::Exchange(_)) if self.exchange.is_some() => {}
                Some(Wait::Exchange(exchange)) => drop(ready!(exchange.poll_unpin(cx))),
                Some(Wait::Guest(index)) => {
                    let index = *index;
                    let Some(mut exchange) = self.take_exchange(direction) else { continue };
                    exchange.await_touch(Waiter::from(direction), cx.waker());
                    if let Some(deadline) = self.held_until(&exchange, index, direction) {
                        if let Some(lease) = self.active.get(index).and_then(|active| active.lease.as_ref()) {
                            lease.slot().note_pause(&self.shared, deadline);
                        }
                        drop(exchange);
                        self.settle();
                        return Poll::Pending;
                    }
                }
                Some(Wait::Running) | None => {}
            }
            *self.waits.of(direction) = None;
            return Poll::Ready(());
        }
    }

    /// Forgets a wait that is not polled any more.
    pub(crate) fn stop_waiting(&mut self, direction: Direction) {
        *self.waits.of(direction) = None;
    }

    /// How many bytes of a body may be read while a plugin holds its headers, one more than it may hold where
    /// it is to be known that there are so many; none if nobody looks at them, or something else is waited
    /// for.
    pub(crate) fn gathers(&self, direction: Direction) -> Option<usize> {
        let Some(Wait::Guest(index)) = self.waits.get(direction) else { return None };
        if let Some(bound) = self.messages.get(direction).bound {
            return Some(bound + 1);
        }
        let holder = self.plugins().get(*index)?;
        let is_watched = self.plugins().iter().any(|plugin| plugin.wants_body(direction, self.streaming));
        is_watched.then(|| holder.max_buffered_body())
    }

    /// Whether so many bytes of a body are too many for the plugin that holds its headers and buffers it. The
    /// message is refused, then, when it is shown again.
    pub(crate) fn outgrows(&mut self, direction: Direction, bytes: usize) -> bool {
        let is_held = matches!(self.waits.get(direction), Some(Wait::Guest(_)));
        let message = self.messages.of(direction);
        message.is_outgrown = is_held && message.bound.is_some_and(|bound| bytes > bound);
        message.is_outgrown
    }

    /// Between the parts of a message: ready when a guest let go what it held of it, when one has ended a
    /// response that is on its way, and when the message is over.
    ///
    /// Whatever makes it ready is gone when an empty part was shown: the message has gone on, or is broken
    /// off.
    fn poll_released(&mut self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        let message = self.messages.of(direction);
        if message.over.is_some() {
            return Poll::Ready(());
        }
        if !message.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            message.waiting = Some(cx.waker().clone());
        }
        // Who waits for a response's headers learns of what ends the stream before these have left.
        let may_end = direction == Direction::Response && self.may_interrupt();
        if !may_end && !self.active.iter().any(|active| *active.holds.get(direction)) {
            return Poll::Pending;
        }
        let mut exchange = ready!(self.poll_exchange(direction, cx));
        exchange.await_touch(Waiter::from(direction), cx.waker());
        let lets_go = |(active, plugin_state): (&ActivePlugin, &PluginState)| {
            *active.holds.get(direction)
                && (plugin_state.messages.get(direction).pause == Pause::Over
                    || !active.is_active()
                    || active.is_lost())
        };
        let is_ready =
            self.active.iter().zip(&exchange.plugins).any(lets_go) || self.is_interrupted(&exchange);
        if is_ready {
            return Poll::Ready(());
        }
        drop(exchange);
        self.settle();
        Poll::Pending
    }

    /// Whether a plugin may answer or end the stream outside of its callbacks.
    pub(crate) fn may_interrupt(&self) -> bool {
        self.plugins().iter().any(Plugin::may_interrupt)
    }

    pub(super) fn poll_interrupted(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        if !self.may_interrupt() {
            return Poll::Pending;
        }
        let mut exchange = ready!(self.poll_exchange(Direction::Response, cx));
        exchange.await_touch(Waiter::Future, cx.waker());
        self.exchange = Some(exchange);
        let action = self.interrupted(Direction::Request);
        self.exchange = None;
        if let Some(action) = action {
            return Poll::Ready(action);
        }
        self.settle();
        Poll::Pending
    }

    /// Until when a step waits for the guest of this plugin; none when it can be taken.
    fn held_until(&self, exchange: &Exchange, index: usize, direction: Direction) -> Option<u64> {
        let plugin_state = exchange.plugins.get(index)?;
        let deadline = match plugin_state.messages.get(direction).pause {
            Pause::Until(until) => until.max(plugin_state.calls_until),
            Pause::None | Pause::Over => return None,
        };
        let now = self.plugins().get(index).map_or(u64::MAX, Plugin::now);
        let may_go_on = now >= deadline
            || self.messages.get(direction).over.is_some()
            || self.is_interrupted(exchange)
            || self.active.get(index).is_none_or(ActivePlugin::is_lost);
        (!may_go_on).then_some(deadline)
    }

    /// Whether a guest answered or ended the stream from somewhere else.
    fn is_interrupted(&self, exchange: &Exchange) -> bool {
        exchange
            .plugins
            .iter()
            .any(|plugin_state| plugin_state.answer.is_some() || plugin_state.fault.is_some())
    }

    /// What a guest did to the stream from somewhere else.
    pub(super) fn interrupted(&mut self, direction: Direction) -> Option<Action> {
        // What is sent in the place of a response that no plugin has seen they see instead.
        let is_unseen = !self.has_shown_response();
        if direction == Direction::Response
            && let Some(CallOutcome::Over(action)) = self.calls.take_end_of_request()
        {
            return Some(self.replaced(if is_unseen { Direction::Request } else { direction }, action));
        }
        let is_unseen = is_unseen && self.messages.request.over.is_none();
        let direction = if is_unseen { Direction::Request } else { direction };
        if self.messages.get(direction).over.is_some() {
            return None;
        }
        let exchange = self.exchange.as_ref()?;
        let index = exchange
            .plugins
            .iter()
            .position(|plugin_state| plugin_state.answer.is_some() || plugin_state.fault.is_some())?;
        let plugin = self.plugins().get(index)?.clone();
        let phase =
            if self.messages.response.is_released { direction.body_phase() } else { Phase::CallResponse };
        match self.outcome(&plugin, index, phase)? {
            CallOutcome::Over(action) => Some(self.replaced(direction, action)),
            _ => None,
        }
    }

    /// Ends a message in whose place something else is sent.
    fn replaced(&mut self, direction: Direction, action: Action) -> Action {
        self.end_by(direction, &action);
        if !self.messages.response.is_released {
            self.show_as_response(direction, &action);
        }
        action
    }
}
