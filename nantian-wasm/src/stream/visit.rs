//! One plugin's turn: its guest runs, and its failure policy decides what a bad end means.

use std::sync::Arc;

use super::exchange::Direction;
use super::{Action, StreamContext};
use crate::config::FailurePolicy;
use crate::error::{Cause, Failure, Phase};
use crate::instance::Instance;
use crate::plugin::Plugin;
use crate::pool::{Cell, Lease};
use crate::sandbox::Usage;

/// How far the message of one direction has come.
#[derive(Clone, Copy, Default)]
pub(super) struct Course {
    /// Plugins that have seen the part under way; they are not asked again after [`Action::Pending`].
    pub(super) progress: usize,
    /// Plugins that have seen the headers and let them go.
    pub(super) released: usize,
    /// The headers are in the exchange, or have been.
    pub(super) has_headers: bool,
    /// The headers have left the stream again.
    pub(super) is_released: bool,
    /// The message was answered, refused or broken off: nothing more of it reaches a plugin.
    pub(super) is_over: bool,
}

/// One plugin's side of a stream.
#[derive(Default)]
pub(super) struct Member {
    /// Absent when the plugin had no instance to give and fails open.
    pub(super) lease: Option<Lease>,
    context: u32,
    usage: Usage,
    /// The plugin failed this stream: it is not asked any more.
    is_out: bool,
    pub(super) holds: Holds,
}

/// Directions in which a plugin holds something.
#[derive(Clone, Copy, Default)]
pub(super) struct Holds {
    request: bool,
    response: bool,
}

/// How a guest's part in a step ended.
pub(super) enum Visit {
    /// With this verdict.
    Done(u32),
    /// Without one: the plugin failed and fails open.
    Skipped,
    /// For the whole message.
    Over(Action),
}

// === impl Course ===

impl Course {
    pub(super) fn is_at_start(&self) -> bool {
        self.progress == 0
    }
}

// === impl Holds ===

impl Holds {
    pub(super) fn contains(self, direction: Direction) -> bool {
        match direction {
            Direction::Request => self.request,
            Direction::Response => self.response,
        }
    }

    pub(super) fn set(&mut self, direction: Direction, holds: bool) {
        match direction {
            Direction::Request => self.request = holds,
            Direction::Response => self.response = holds,
        }
    }
}

// === impl Member ===

impl Member {
    /// A plugin that serves the stream with this instance.
    pub(super) fn serving(lease: Lease) -> Self {
        Self { lease: Some(lease), ..Self::default() }
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
    /// Runs a guest for this stream, with the exchange in its hands.
    pub(super) fn visit(
        &mut self,
        plugin: &Plugin,
        lease: &Lease,
        cell: &mut Cell,
        index: usize,
        phase: Phase,
        run: impl FnOnce(&mut Instance, &mut u32) -> Result<u32, Cause>,
    ) -> Visit {
        let fails_open = plugin.failure_policy() == FailurePolicy::FailOpen;
        let Some(member) = self.members.get_mut(index) else { return Visit::Skipped };
        let Some(instance) = cell.instance_of(lease.slot(), lease.generation()) else {
            return self.failed(plugin, index, phase, Cause::InstanceLost);
        };
        let Some(mut exchange) = self.exchange.take() else { return Visit::Skipped };
        exchange.begin(index, fails_open);
        instance.lend(exchange, member.usage);
        let result = run(instance, &mut member.context);
        (self.exchange, member.usage) = instance.give_back();
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.notify();
        }
        match result {
            Err(cause) => {
                lease.slot().bury(cell, phase, &cause);
                self.failed(plugin, index, phase, cause)
            }
            Ok(code) => self.outcome(plugin, index, phase).unwrap_or(Visit::Done(code)),
        }
    }

    /// What a guest did to the stream besides answering with a verdict.
    pub(super) fn outcome(&mut self, plugin: &Plugin, index: usize, phase: Phase) -> Option<Visit> {
        let seat = self.exchange.as_mut()?.seats.get_mut(index)?;
        let (fault, answer) = (seat.fault.take(), seat.answer.take());
        if let Some(fault) = fault {
            return Some(self.failed(plugin, index, phase, fault));
        }
        let answer = answer?;
        if phase.is_past_response_headers() && self.response.is_released {
            return Some(self.failed(plugin, index, phase, Cause::LateAnswer));
        }
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.details = Some(answer.details.clone());
        }
        self.request.is_over = true;
        Some(Visit::Over(Action::Respond(answer)))
    }

    /// Applies the failure policy: whatever happens to the stream, the plugin sees no more of it.
    pub(super) fn failed(&mut self, plugin: &Plugin, index: usize, phase: Phase, cause: Cause) -> Visit {
        if let Some(member) = self.members.get_mut(index) {
            member.is_out = true;
        }
        let failure = Failure { plugin: plugin.shared_name(), phase, cause };
        plugin.note_failure(&failure);
        // What the guest wanted as well has no meaning any more.
        let exchange = self.exchange.as_mut();
        if let Some(seat) = exchange.and_then(|exchange| exchange.seats.get_mut(index)) {
            (seat.answer, seat.fault) = (None, None);
        }
        // A plugin that closes the stream does not fail: its wish is granted under either policy.
        if plugin.failure_policy() == FailurePolicy::FailOpen && failure.cause != Cause::Closed {
            if let Some(exchange) = self.exchange.as_mut() {
                exchange.roll_back();
            }
            return Visit::Skipped;
        }
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.details = Some("wasm_fail_stream".to_owned());
        }
        self.request.is_over = true;
        Visit::Over(Action::Fail(failure))
    }

    /// Ends the stream for every plugin that has seen it.
    pub(super) fn close(&mut self) {
        self.exchange = None;
        for (index, member) in std::mem::take(&mut self.members).into_iter().enumerate() {
            let Some(lease) = member.lease else { continue };
            let slot = lease.slot();
            let cell = slot.try_lock();
            let (Some(mut cell), Some(mut exchange)) = (cell, self.shared.try_lock_owned()) else {
                lease.orphan(member.context, Arc::clone(&self.shared), member.usage);
                slot.settle();
                continue;
            };
            let Some(instance) = cell.instance_of(slot, lease.generation()) else { continue };
            exchange.begin(index, false);
            instance.lend(exchange, member.usage);
            let closed = instance.close(member.context);
            let (exchange, usage) = instance.give_back();
            drop(exchange);
            slot.peaks().note(&usage);
            if let Err(cause) = closed {
                slot.bury(&mut cell, Phase::End, &cause);
            }
            drop(cell);
            slot.settle();
        }
    }
}
