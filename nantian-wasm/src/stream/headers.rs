//! The way of a message's headers from plugin to plugin.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode, request, response};

use super::active_plugin::{ActivePlugin, CallOutcome};
use super::call::Call;
use super::direction::Direction;
use super::exchange::ResponseHead;
use super::plugin_state::{Pause, PluginState};
use super::wait::Wait;
use super::{Action, PluginCursor, StreamContext};
use crate::body::BodyError;
use crate::error::{Cause, Failure, Phase};
use crate::plugin::Plugin;
use crate::pool::{InstanceGuard, LeaseError};
use crate::proxy_wasm::{HeadersVerdict, MapKind, set_kept};

/// What is done with a message after one plugin's part in a step.
pub(super) enum Step {
    /// The next plugin's turn.
    Next,
    /// Nothing of the part goes further.
    Kept,
    /// The step ends like this.
    Over(Action),
}

// === impl StreamContext ===

impl StreamContext {
    /// Shows headers to every plugin that has not let them go.
    pub(super) fn drive_headers(&mut self, direction: Direction, end: bool) -> Action {
        if let Some(action) = self.ended(direction) {
            self.show_as_response(direction, &action);
            return action;
        }
        let Some(plugins) = self.plugins.take() else { return Action::Continue };
        let action = self.pass_headers(&plugins, direction, end);
        self.plugins = Some(plugins);
        action
    }

    fn pass_headers(&mut self, plugins: &[Plugin], direction: Direction, end: bool) -> Action {
        while let Some((index, plugin)) =
            self.plugin_at(plugins, direction, self.messages.get(direction).released)
        {
            match self.headers_step(plugin, index, direction, end) {
                Step::Next => self.messages.of(direction).released += 1,
                Step::Kept => return Action::Hold,
                Step::Over(action) => return action,
            }
        }
        self.unroutable(direction).unwrap_or(Action::Continue)
    }

    /// What is answered to a request from which plugins have taken what nobody could send it on without.
    fn unroutable(&mut self, direction: Direction) -> Option<Action> {
        if direction == Direction::Response || self.messages.request.is_released {
            return None;
        }
        let exchange = self.exchange.as_mut()?;
        let answer = exchange.request.removed.as_ref()?.answer()?;
        exchange.details = Some(answer.details.clone());
        self.end_message(direction, &BodyError::Answered);
        Some(Action::Respond(answer))
    }

    fn headers_step(&mut self, plugin: &Plugin, index: usize, direction: Direction, end: bool) -> Step {
        let is_joining = self.calls.resumes(direction, index) == Some(Call::Create);
        let mut cell = None;
        if (index == self.active.len() || is_joining)
            && let Some(step) = self.join(plugin, index, &mut cell)
        {
            return step;
        }
        if !self.active.get(index).is_some_and(ActivePlugin::is_active) {
            // Bytes that it held go on with the body's next step.
            if self.message_of(index, direction).is_some_and(|message| !message.holds_bytes()) {
                self.release(index, direction);
            }
            return Step::Next;
        }
        let phase = direction.headers_phase();
        let state = self.messages.of(direction);
        let outgrown = state.bound.filter(|_| std::mem::take(&mut state.is_outgrown));
        self.set_kept(index, direction);
        let Some(message) = self.message_of(index, direction) else { return Step::Next };
        let waits_for_body = message.waits_for_body;
        match message.pause {
            Pause::None => self.show_headers(plugin, index, direction, end, &mut cell),
            Pause::Over => {
                // What the guest holds of the body goes on with the body's next step.
                if message.has_seen_body() {
                    message.waits_for_body = false;
                } else {
                    self.release(index, direction);
                }
                Step::Next
            }
            Pause::Until(_) if waits_for_body => Step::Kept,
            Pause::Until(_) => match outgrown {
                Some(limit) => {
                    let (phase, cause) = (direction.body_phase(), Cause::BodyTooLarge { limit });
                    self.given_up(plugin, index, direction, phase, cause)
                }
                None => self.held(plugin, index, direction, phase),
            },
        }
    }

    /// Leases an instance for the next plugin, and creates its context if it is not shown the request's
    /// headers next.
    fn join(&mut self, plugin: &Plugin, index: usize, cell: &mut Option<InstanceGuard>) -> Option<Step> {
        if index == self.active.len()
            && let Some(step) = self.take_seat(plugin, index, cell)
        {
            return Some(step);
        }
        if plugin.hooks().on_request {
            return None;
        }
        self.lease_of(index)?;
        let cursor = PluginCursor { plugin, index, direction: Direction::Request };
        match self.visit(&cursor, cell, Call::Create) {
            CallOutcome::Pending => Some(Step::Over(Action::Pending)),
            CallOutcome::Over(action) => Some(Step::Over(action)),
            CallOutcome::Skipped => Some(Step::Next),
            CallOutcome::Done(_) => None,
        }
    }

    fn take_seat(&mut self, plugin: &Plugin, index: usize, cell: &mut Option<InstanceGuard>) -> Option<Step> {
        let (lease, mut guard) = match plugin.lease() {
            Ok(leased) => leased,
            Err(LeaseError::Busy(slot)) => {
                *self.waits.of(Direction::Request) = Some(Wait::for_instance(&slot));
                return Some(Step::Over(Action::Pending));
            }
            Err(LeaseError::Unavailable(cause)) => {
                self.add_plugin(ActivePlugin::default());
                return Some(self.fails_to_join(plugin, index, cause));
            }
        };
        let context = guard.instance().map(|instance| instance.register(Arc::clone(&self.shared), index));
        self.add_plugin(ActivePlugin::serving(lease, context.unwrap_or_default()));
        *cell = Some(guard);
        None
    }

    fn fails_to_join(&mut self, plugin: &Plugin, index: usize, cause: Cause) -> Step {
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.begin(index, false);
        }
        match self.failed(plugin, index, Phase::RequestHeaders, cause) {
            CallOutcome::Over(action) => Step::Over(action),
            _ => Step::Next,
        }
    }

    fn add_plugin(&mut self, active: ActivePlugin) {
        self.active.push(active);
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.plugins.push(PluginState::default());
        }
    }

    fn show_headers(
        &mut self,
        plugin: &Plugin,
        index: usize,
        direction: Direction,
        end: bool,
        cell: &mut Option<InstanceGuard>,
    ) -> Step {
        let (phase, kind) = (direction.headers_phase(), direction.headers_kind());
        let is_wanted = match direction {
            Direction::Request => plugin.hooks().on_request,
            Direction::Response => plugin.hooks().wants_response_headers(self.streaming),
        };
        if !is_wanted || self.lease_of(index).is_none() {
            return Step::Next;
        }
        let is_resumed = self.calls.resumes(direction, index).is_some();
        // Those of a request are the guest's once its context is created.
        if let Some(message) = self.message_of(index, direction).filter(|_| !is_resumed) {
            message.has_headers = direction == Direction::Response;
        }
        let count = self.count(kind);
        let cursor = PluginCursor { plugin, index, direction };
        // As in Envoy, where another protocol follows they are not the end of the stream.
        let is_end = end && !self.leaves_http(direction);
        let verdict = match self.visit(&cursor, cell, Call::Headers { phase, count, end: is_end }) {
            CallOutcome::Pending => return Step::Over(Action::Pending),
            CallOutcome::Over(action) => {
                self.end_by(direction, &action);
                self.show_as_response(direction, &action);
                return Step::Over(action);
            }
            CallOutcome::Skipped => HeadersVerdict::Continue,
            CallOutcome::Done(code) => self.headers_verdict(&cursor, code, end),
        };
        match verdict {
            HeadersVerdict::Continue => {
                if let Some(message) = self.message_of(index, direction) {
                    message.has_headers = false;
                }
                Step::Next
            }
            HeadersVerdict::Stop => {
                self.pause(index, direction, u64::MAX);
                if let Some(message) = self.message_of(index, direction) {
                    message.waits_for_body = true;
                }
                Step::Kept
            }
            HeadersVerdict::StopAll | HeadersVerdict::StopAllAndBuffer => {
                let is_bounded = verdict == HeadersVerdict::StopAllAndBuffer;
                self.messages.of(direction).bound = is_bounded.then(|| self.most_of(&cursor));
                self.pause(index, direction, plugin.pause_deadline());
                self.held(plugin, index, direction, phase)
            }
        }
    }

    fn leaves_http(&self, direction: Direction) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| match direction {
            Direction::Request => exchange.info.upgrade,
            Direction::Response => exchange
                .response
                .as_ref()
                .is_some_and(|response| response.status == StatusCode::SWITCHING_PROTOCOLS),
        })
    }

    /// Puts headers that the guest has set during the request into those of the response.
    fn set_kept(&mut self, index: usize, direction: Direction) {
        if direction == Direction::Response
            && let Some(exchange) = self.exchange.as_mut()
            && exchange.plugins.get(index).is_some_and(|plugin_state| plugin_state.response_headers.is_some())
        {
            exchange.begin(index, false);
            set_kept(exchange);
        }
    }

    /// Notes that a guest holds a message, which it may have let go by now: others ran between its callback's
    /// end and this.
    pub(super) fn pause(&mut self, index: usize, direction: Direction, until: u64) {
        if let Some(message) = self.message_of(index, direction) {
            message.pause = if message.is_continued { Pause::Over } else { Pause::Until(until) };
        }
        self.set_holds(index, direction, true);
    }

    /// Notes that a guest holds nothing of a message any more; its headers it can still look at, as in Envoy.
    pub(super) fn release(&mut self, index: usize, direction: Direction) {
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.forget_body(index, direction);
            if let Some(message) = exchange.message_of(index, direction) {
                message.pause = Pause::None;
                (message.waits_for_body, message.waits_for_calls) = (false, false);
                message.may_add_trailers = false;
            }
        }
        self.set_holds(index, direction, false);
    }

    fn set_holds(&mut self, index: usize, direction: Direction, holds: bool) {
        if let Some(active) = self.active.get_mut(index) {
            *active.holds.of(direction) = holds;
        }
    }

    /// A message that its guest holds: it goes on when the guest says so, or ends when its time is over.
    pub(super) fn held(&mut self, plugin: &Plugin, index: usize, direction: Direction, phase: Phase) -> Step {
        let plugin_state = self.exchange.as_ref().and_then(|exchange| exchange.plugins.get(index));
        let deadline =
            plugin_state.map_or(0, |plugin_state| match plugin_state.messages.get(direction).pause {
                Pause::Until(until) => until.max(plugin_state.calls_until),
                Pause::None | Pause::Over => u64::MAX,
            });
        let active = self.active.get(index);
        let cause = if active.is_none_or(ActivePlugin::is_lost) {
            Cause::InstanceLost
        } else if plugin.now() >= deadline {
            Cause::Paused
        } else {
            if let Some(lease) = active.and_then(|active| active.lease.as_ref()) {
                lease.slot().note_pause(&self.shared, deadline);
            }
            *self.waits.of(direction) = Some(Wait::Guest(index));
            return Step::Over(Action::Pending);
        };
        self.given_up(plugin, index, direction, phase, cause)
    }

    /// Waits no longer for the guest that holds a message.
    fn given_up(
        &mut self,
        plugin: &Plugin,
        index: usize,
        direction: Direction,
        phase: Phase,
        cause: Cause,
    ) -> Step {
        match self.failed(plugin, index, phase, cause) {
            CallOutcome::Over(action) => {
                self.end_by(direction, &action);
                self.show_as_response(direction, &action);
                Step::Over(action)
            }
            _ => Step::Next,
        }
    }

    /// Ends a message that broke off while a plugin held its headers.
    pub(crate) fn break_off(&mut self, direction: Direction) -> Action {
        self.step(direction, |this| {
            let holder = this.plugin_at(this.plugins(), direction, this.messages.get(direction).released);
            let Some(plugin) = holder.map(|(_, plugin)| plugin.shared_name()) else {
                return Action::Continue;
            };
            let action = Action::Fail(Failure::new(plugin, direction.body_phase(), Cause::BrokenOff));
            this.end_by(direction, &action);
            this.show_as_response(direction, &action);
            action
        })
    }

    /// Moves a request's headers back to where they came from, unless they are still held.
    pub(super) fn return_request(&mut self, action: &Action, parts: &mut request::Parts, end: bool) {
        if matches!(action, Action::Pending | Action::Hold) || self.messages.request.is_released {
            return;
        }
        self.messages.request.is_released = true;
        let keep = self.plugins().iter().any(Plugin::needs_request_later);
        if let Some(exchange) = self.exchange.as_mut() {
            let is_resized = |plugin_state: &PluginState| plugin_state.messages.request.is_resized;
            self.messages.request.is_resized = exchange.plugins.iter().any(is_resized);
            exchange.return_request(parts, keep);
            exchange.has_request = keep;
        }
        self.withdraw_length(Direction::Request, &mut parts.headers, end);
    }

    /// Moves a response's headers back to where they came from, unless they are still held.
    pub(super) fn return_response(&mut self, action: &Action, parts: &mut response::Parts, end: bool) {
        if matches!(action, Action::Pending | Action::Hold) || self.messages.response.is_released {
            return;
        }
        self.messages.response.is_released = true;
        let keep = self.plugins().iter().any(Plugin::reads_exchange);
        if let Some(exchange) = self.exchange.as_mut() {
            let is_resized = |plugin_state: &PluginState| plugin_state.messages.response.is_resized;
            self.messages.response.is_resized = exchange.plugins.iter().any(is_resized);
            exchange.return_response(parts, keep);
        }
        self.withdraw_length(Direction::Response, &mut parts.headers, end);
    }

    /// The same stream, the lengths that headers announce left to whoever drives it.
    pub(crate) fn keeping_lengths(mut self) -> Self {
        self.keeps_lengths = true;
        self
    }

    /// Takes the length of a body that may become another one from headers that leave before it.
    fn withdraw_length(&self, direction: Direction, headers: &mut HeaderMap, end: bool) {
        if !self.keeps_lengths && !end && self.wants_body(direction) {
            headers.remove(CONTENT_LENGTH);
        }
    }

    /// Lets later callbacks see the response that replaced upstream's.
    pub(super) fn show_as_response(&mut self, direction: Direction, action: &Action) {
        if direction == Direction::Request {
            return;
        }
        let (status, headers) = match action {
            Action::Respond(answer) => {
                let (parts, _) = answer.clone().into_response(self.is_grpc).into_parts();
                (parts.status, parts.headers)
            }
            Action::Fail(failure) => (failure.status(), HeaderMap::new()),
            _ => return,
        };
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.response = Some(ResponseHead { status, headers: headers.into() });
        }
    }

    pub(super) fn count(&self, kind: MapKind) -> u32 {
        let fields =
            self.exchange.as_ref().and_then(|exchange| crate::proxy_wasm::of_exchange(exchange, kind));
        u32::try_from(fields.map_or(0, |fields| fields.count())).unwrap_or(u32::MAX)
    }
}
