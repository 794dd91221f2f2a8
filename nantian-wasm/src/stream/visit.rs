//! One plugin's turn: its guest runs, and its failure policy decides what a bad end means.

use std::sync::Arc;

use super::exchange::{Content, Direction};
use super::{Action, LocalResponse, StreamContext};
use crate::config::FailurePolicy;
use crate::error::{Cause, Failure, Phase};
use crate::instance::{Instance, Loan};
use crate::plugin::Plugin;
use crate::pool::{Cell, Lease};
use crate::proxy_wasm::Verdict;
use crate::sandbox::Usage;

/// How far the message of one direction has come.
#[derive(Default)]
pub(super) struct Course {
    /// Plugins that have seen the part under way; they are not asked again after [`Action::Busy`].
    pub(super) progress: usize,
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
    held_request: Content,
    held_response: Content,
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

// === impl Member ===

impl Member {
    /// A plugin that serves the stream with this instance.
    pub(super) fn serving(lease: Lease) -> Self {
        Self { lease: Some(lease), ..Self::default() }
    }

    pub(super) fn is_active(&self) -> bool {
        !self.is_out
    }

    pub(super) fn held(&mut self, direction: Direction) -> &mut Content {
        match direction {
            Direction::Request => &mut self.held_request,
            Direction::Response => &mut self.held_response,
        }
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
        plugin.finish_orphans(lease.slot(), cell);
        let fails_open = plugin.failure_policy() == FailurePolicy::FailOpen;
        let Some(member) = self.members.get_mut(index) else { return Visit::Skipped };
        let Some(instance) = cell.instance_of(lease.generation()) else {
            return self.failed(plugin, index, phase, Cause::InstanceLost);
        };
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.begin(fails_open);
        }
        instance.lend(Loan { exchange: self.exchange.take(), usage: member.usage });
        let result = run(instance, &mut member.context);
        let loan = instance.give_back();
        member.usage = loan.usage;
        self.exchange = loan.exchange;
        if let Err(cause) = &result {
            plugin.bury(lease.slot(), cell, phase, cause);
        }
        let result = match (result, self.exchange.as_mut().and_then(|exchange| exchange.fault.take())) {
            (Ok(_), Some(fault)) => Err(fault),
            (result, _) => result,
        };
        match result {
            Err(cause) => self.failed(plugin, index, phase, cause),
            Ok(code) => match self.exchange.as_mut().and_then(|exchange| exchange.answer.take()) {
                Some(_) if phase.is_past_response_headers() => {
                    self.failed(plugin, index, phase, Cause::LateAnswer)
                }
                Some(answer) => Visit::Over(self.answered(answer)),
                None => Visit::Done(code),
            },
        }
    }

    /// Applies the failure policy: whatever happens to the stream, the plugin sees no more of it.
    pub(super) fn failed(&mut self, plugin: &Plugin, index: usize, phase: Phase, cause: Cause) -> Visit {
        if let Some(member) = self.members.get_mut(index) {
            member.is_out = true;
        }
        let failure = Failure { plugin: plugin.shared_name(), phase, cause };
        plugin.note_failure(&failure);
        // A plugin that closes the stream does not fail: its wish is granted under either policy.
        if plugin.failure_policy() == FailurePolicy::FailOpen && failure.cause != Cause::Closed {
            if let Some(exchange) = self.exchange.as_mut() {
                exchange.roll_back();
            }
            return Visit::Skipped;
        }
        self.request.is_over = true;
        Visit::Over(Action::Fail(failure))
    }

    fn answered(&mut self, answer: LocalResponse) -> Action {
        self.request.is_over = true;
        Action::Respond(answer)
    }

    /// What a header or trailer callback means for the message; a pause has nobody to end it here.
    pub(super) fn after_headers(
        &mut self,
        visit: Visit,
        plugin: &Plugin,
        index: usize,
        phase: Phase,
    ) -> Option<Action> {
        let visit = match visit {
            Visit::Done(code) if Verdict::of_headers(code) != Verdict::Continue => {
                self.failed(plugin, index, phase, Cause::Paused)
            }
            visit => visit,
        };
        match visit {
            Visit::Over(action) => Some(action),
            Visit::Done(_) | Visit::Skipped => None,
        }
    }

    /// Ends the stream for every plugin that has seen it.
    pub(super) fn close(&mut self) {
        let plugins = Arc::clone(&self.plugins);
        for (member, plugin) in std::mem::take(&mut self.members).into_iter().zip(plugins.iter()) {
            let Some(lease) = member.lease else { continue };
            let Some(mut cell) = lease.slot().try_lock() else {
                lease.orphan(member.context, self.exchange.clone());
                continue;
            };
            let Some(instance) = cell.instance_of(lease.generation()) else { continue };
            instance.lend(Loan { exchange: self.exchange.take(), usage: member.usage });
            let closed = instance.close(member.context);
            self.exchange = instance.give_back().exchange;
            if let Err(cause) = closed {
                plugin.bury(lease.slot(), &mut cell, Phase::End, &cause);
            }
        }
    }
}
