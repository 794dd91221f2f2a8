//! The plugins of a stream on its way past them, and what their failure policies make of a bad end.

use std::task::Waker;

use http::HeaderMap;

use super::direction::{ByDirection, Direction};
use super::{Action, LocalResponse, StreamContext};
use crate::body::BodyError;
use crate::config::FailurePolicy;
use crate::error::{Cause, Failure, Phase};
use crate::lease::Lease;
use crate::plugin::Plugin;

/// How far the message of one direction has come.
#[derive(Default)]
pub(super) struct MessageState {
    /// Plugins that have seen the part under way; they are not asked again after [`Action::Pending`].
    pub(super) progress: usize,
    /// The bytes of the part under way are counted.
    pub(super) is_counted: bool,
    /// Trailers that a plugin has added to a body that came without, until they are passed on.
    pub(super) added: Option<Box<HeaderMap>>,
    /// Plugins that have seen the headers and let them go.
    pub(super) released: usize,
    /// How much of the body the plugin that holds the headers may hold, if it asks that a longer one be
    /// refused.
    pub(super) bound: Option<usize>,
    /// More than that has come.
    pub(super) is_outgrown: bool,
    /// The headers are in the exchange, or have been.
    pub(super) has_headers: bool,
    /// The headers have left the stream again.
    pub(super) is_released: bool,
    /// A plugin has written a length of its own into the headers.
    pub(super) is_resized: bool,
    /// How the message was answered, refused or broken off: nothing more of it reaches a plugin, or goes on.
    pub(super) over: Option<BodyError>,
    /// Who waits for its next part.
    pub(super) waiting: Option<Waker>,
}

/// One plugin's side of a stream.
#[derive(Default)]
pub(super) struct ActivePlugin {
    /// Absent when the plugin had no instance to give and fails open.
    pub(super) lease: Option<Lease>,
    pub(super) context: u32,
    /// The plugin failed this stream: it is not asked any more.
    is_out: bool,
    /// Whether it holds something.
    pub(super) holds: ByDirection<bool>,
    /// The stream is over, and the plugin has logged it.
    pub(super) is_logged: bool,
}

/// How a guest's part in a step ended.
pub(super) enum CallOutcome {
    /// Not yet: the guest is running, or its instance is taken. The stream waits.
    Pending,
    /// With this verdict.
    Done(u32),
    /// Without one: the plugin failed and fails open.
    Skipped,
    /// For the whole message.
    Over(Action),
}

// === impl ActivePlugin ===

impl ActivePlugin {
    /// A plugin that serves the stream with this instance, under the id of a context.
    pub(super) fn serving(lease: Lease, context: u32) -> Self {
        Self { lease: Some(lease), context, ..Self::default() }
    }

    pub(super) fn is_active(&self) -> bool {
        !self.is_out
    }

    /// Whether the instance has ended.
    pub(super) fn is_lost(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_lost)
    }
}

// === impl StreamContext ===

impl StreamContext {
    /// What a guest did to the stream besides answering with a verdict.
    pub(super) fn outcome(&mut self, plugin: &Plugin, index: usize, phase: Phase) -> Option<CallOutcome> {
        let plugin_state = self.exchange.as_mut()?.plugins.get_mut(index)?;
        if let Some(fault) = plugin_state.fault.take() {
            return Some(self.failed(plugin, index, phase, fault));
        }
        let answer = plugin_state.answer.take()?;
        Some(self.answered(plugin, index, phase, answer))
    }

    /// Sends a guest's own answer, unless a response's headers have left already.
    fn answered(
        &mut self,
        plugin: &Plugin,
        index: usize,
        phase: Phase,
        answer: Box<LocalResponse>,
    ) -> CallOutcome {
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.details = Some(answer.details.clone());
        }
        if self.messages.response.is_released {
            return self.failed(plugin, index, phase, Cause::LateAnswer);
        }
        self.end_message(Direction::Request, &BodyError::Answered);
        CallOutcome::Over(Action::Respond(answer))
    }

    /// Applies the failure policy: whatever happens to the stream, the plugin sees no more of it. A refusal
    /// stands under either policy, and so does one that the guest had spoken before it failed.
    pub(super) fn failed(
        &mut self,
        plugin: &Plugin,
        index: usize,
        phase: Phase,
        cause: Cause,
    ) -> CallOutcome {
        let failure = Failure::new(plugin.shared_name(), phase, cause);
        plugin.note_failure(&failure);
        let plugin_state = self.exchange.as_mut().and_then(|exchange| exchange.plugins.get_mut(index));
        let (answer, fault) = plugin_state
            .map(|plugin_state| (plugin_state.answer.take(), plugin_state.fault.take()))
            .unwrap_or_default();
        let is_refused = [Some(&failure.cause), fault.as_ref()].into_iter().flatten().any(Cause::is_refusal);
        if plugin.failure_policy() == FailurePolicy::FailOpen && !is_refused {
            self.leave_out(index);
            // A guest that has answered had judged the message before it failed.
            if let Some(answer) = answer {
                return self.answered(plugin, index, phase, answer);
            }
            if let Some(exchange) = self.exchange.as_mut() {
                exchange.roll_back(index);
            }
            // What it holds goes on.
            self.wake_waiting(Direction::Request);
            self.wake_waiting(Direction::Response);
            return CallOutcome::Skipped;
        }
        CallOutcome::Over(self.refused(index, failure))
    }

    /// Ends the stream for a failure that is no way past the plugin.
    pub(super) fn refused(&mut self, index: usize, failure: Failure) -> Action {
        // As in Envoy, a guest whose header is no HTTP sees what is made of its request.
        if failure.phase.is_response() || !matches!(failure.cause, Cause::InvalidHeader { .. }) {
            self.leave_out(index);
        }
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.explain_failure(&failure);
        }
        let end = BodyError::Failed(failure.clone());
        self.end_message(Direction::Request, &end);
        // Before that, whoever waits for the response's headers sends what the failure stands for.
        if self.messages.response.is_released {
            self.end_message(Direction::Response, &end);
        }
        Action::Fail(failure)
    }

    /// Calls a plugin no more for this stream.
    fn leave_out(&mut self, index: usize) {
        if let Some(active) = self.active.get_mut(index) {
            active.is_out = true;
        }
    }

    /// Nothing more of a message goes on; the first end is the one that is told.
    pub(super) fn end_message(&mut self, direction: Direction, end: &BodyError) {
        self.messages.of(direction).over.get_or_insert_with(|| end.clone());
        self.wake_waiting(direction);
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.wake();
        }
    }

    /// Ends the message of a direction if this is what its step led to.
    pub(super) fn end_by(&mut self, direction: Direction, action: &Action) {
        if let Some(end) = BodyError::of(action) {
            self.end_message(direction, &end);
        }
    }

    fn wake_waiting(&mut self, direction: Direction) {
        if let Some(waiting) = self.messages.of(direction).waiting.take() {
            waiting.wake();
        }
    }
}
