//! The way of a body and its trailers from plugin to plugin.

use bytes::Bytes;
use http::HeaderMap;

use super::active_plugin::{ActivePlugin, CallOutcome, MessageState};
use super::call::Call;
use super::direction::Direction;
use super::headers::Step;
use super::plugin_state::{BodyBuffer, BodyBytes, Pause, PluginMessage, Shown};
use super::release::Part;
use super::{Action, StreamContext};
use crate::config::StreamFraming;
use crate::error::Cause;
use crate::lease::Lease;
use crate::plugin::Plugin;
use crate::pool::InstanceGuard;
use crate::proxy_wasm::{Abi, BodyVerdict};

/// What a body callback led to.
pub(super) enum BodyOutcome {
    Verdict(BodyVerdict),
    /// This instead of a verdict.
    Instead(Step),
}

/// Whose turn it is with a part.
pub(super) struct PluginCursor<'a> {
    pub(super) plugin: &'a Plugin,
    pub(super) index: usize,
    pub(super) direction: Direction,
}

// === impl StreamContext ===

impl StreamContext {
    /// Shows the plugins a part of a body, or its trailers behind the bytes that are passed on before them.
    pub(crate) fn on_body(
        &mut self,
        direction: Direction,
        chunk: &mut Bytes,
        end: bool,
        trailers: Option<&mut HeaderMap>,
    ) -> Action {
        self.step(direction, |this| {
            // Those that a plugin adds are a part for the ones behind it, as if they had come.
            let mut added = this.messages.of(direction).added.take();
            let action = this.drive_part(direction, chunk, end, trailers, &mut added);
            this.messages.of(direction).added = added;
            action
        })
    }

    fn drive_part(
        &mut self,
        direction: Direction,
        chunk: &mut Bytes,
        end: bool,
        mut trailers: Option<&mut HeaderMap>,
        added: &mut Option<Box<HeaderMap>>,
    ) -> Action {
        let plugins = self.plugins.clone().unwrap_or_default();
        if !std::mem::replace(&mut self.messages.of(direction).is_counted, true) {
            if let Some(exchange) = self.exchange.as_mut() {
                let bytes = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                exchange.bytes_come = exchange.bytes_come.saturating_add(bytes);
            }
            if direction == Direction::Request {
                self.count_bytes(direction, chunk.len());
            }
        }
        if let Some(action) = self.ended(direction) {
            return action;
        }
        loop {
            let MessageState { progress, released, .. } = *self.messages.get(direction);
            if progress >= released {
                match self.drive_headers(direction, false) {
                    Action::Continue | Action::Hold => {}
                    action => return action,
                }
            }
            let Some((index, plugin)) = self.plugin_at(&plugins, direction, progress) else { break };
            let trailers = trailers.as_deref_mut().or(added.as_deref_mut());
            let ends_here = end && trailers.is_none();
            let mut part = Part { chunk: &mut *chunk, end: ends_here, trailers };
            match self.body_step(plugin, index, direction, &mut part) {
                Step::Next
                    if self.message_of(index, direction).is_some_and(|message| message.waits_for_body) =>
                {
                    break;
                }
                Step::Next => {
                    if ends_here && let Some(exchange) = self.exchange.as_mut() {
                        let trailers = exchange.trailers.get(direction).clone();
                        *added = trailers.filter(|trailers| !trailers.is_empty());
                        if let Some(message) = exchange.message_of(index, direction) {
                            message.has_trailers = false;
                        }
                    }
                    let message = self.messages.of(direction);
                    message.progress += 1;
                    message.released = message.released.max(message.progress);
                }
                Step::Kept => break,
                Step::Over(action) => {
                    self.end_by(direction, &action);
                    return action;
                }
            }
        }
        let message = self.messages.of(direction);
        (message.progress, message.is_counted) = (0, false);
        // Those of a request as they come, those of a response as they leave: as in Envoy.
        if direction == Direction::Response {
            self.count_bytes(direction, chunk.len());
        }
        Action::Continue
    }

    fn count_bytes(&mut self, direction: Direction, bytes: usize) {
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.count_bytes(direction, bytes);
        }
    }

    fn body_step(
        &mut self,
        plugin: &Plugin,
        index: usize,
        direction: Direction,
        part: &mut Part<'_>,
    ) -> Step {
        if self.lease_of(index).is_none() || !plugin.wants_body(direction, self.streaming) {
            return self.let_go(index, direction, part);
        }
        let cursor = PluginCursor { plugin, index, direction };
        let (mut front, mut cell) = (BodyBytes::default(), None);
        if self.calls.resumes(direction, index).is_some() {
            front = std::mem::take(self.calls.fronts.of(direction));
        } else {
            if let Some(step) = self.before_part(&cursor, part, &mut front) {
                return step;
            }
            cell = self.lease_of(index).and_then(|lease| lease.slot().try_lock());
            if cell.is_none() {
                // What was let go goes on now; the rest of the part waits for the instance.
                return self.wait_for_with(index, direction, front);
            }
        }
        let step = self.show_part(&cursor, &mut cell, part);
        drop(cell);
        if matches!(step, Step::Over(Action::Pending)) && self.calls.is_running() {
            *self.calls.fronts.of(direction) = front;
            return step;
        }
        self.after_front(index, direction, front, part, step)
    }

    /// What is done with a part before the plugin sees it: `front` is what it has let go meanwhile.
    fn before_part(
        &mut self,
        cursor: &PluginCursor<'_>,
        part: &mut Part<'_>,
        front: &mut BodyBytes,
    ) -> Option<Step> {
        let PluginCursor { plugin, index, direction } = *cursor;
        let is_lost = self.active.get(index).is_none_or(ActivePlugin::is_lost);
        let Some(message) = self.message_of(index, direction) else { return Some(Step::Next) };
        let has_seen_all = match message.shown {
            Shown::Parts => false,
            Shown::End => part.end,
            Shown::Trailers => part.trailers.is_some(),
        };
        match message.pause {
            Pause::Over if has_seen_all => return Some(self.let_go(index, direction, part)),
            Pause::Over => {
                *front = message.take_shown();
                self.release(index, direction);
            }
            // While the sender is waited for, the guest is not asked to continue; otherwise it is, and in
            // time.
            Pause::Until(until) if has_seen_all || is_lost || until != u64::MAX => {
                return Some(match self.held(plugin, index, direction, direction.body_phase()) {
                    Step::Next => self.let_go(index, direction, part),
                    step => step,
                });
            }
            Pause::None | Pause::Until(_) => {}
        }
        if part.chunk.is_empty() && !part.end && part.trailers.is_none() {
            *part.chunk = std::mem::take(front).into_bytes();
            return Some(Step::Next);
        }
        None
    }

    /// Shows one plugin body bytes, its trailers, or both.
    fn show_part(
        &mut self,
        cursor: &PluginCursor<'_>,
        cell: &mut Option<InstanceGuard>,
        part: &mut Part<'_>,
    ) -> Step {
        let resumed = self.calls.resumes(cursor.direction, cursor.index);
        if resumed.is_none()
            && self.is_event_stream
            && cursor.direction == Direction::Response
            && cursor.plugin.stream_framing() == StreamFraming::Events
        {
            if let Some(step) = self.cut(cursor, part) {
                return step;
            }
            if part.chunk.is_empty() && !part.end && part.trailers.is_none() {
                return Step::Next;
            }
        }
        let shows_bytes = match resumed {
            Some(Call::Body { .. }) => true,
            Some(_) => false,
            None => part.end || !part.chunk.is_empty(),
        };
        if shows_bytes {
            let step = self.show_bytes(cursor, cell, part.chunk, part.end);
            if !matches!(step, Step::Next) && (part.trailers.is_none() || matches!(step, Step::Over(_))) {
                return step;
            }
        }
        if part.trailers.is_none() {
            return Step::Next;
        }
        // Held bytes are shown once more as the end of the body before trailers: a guest that waits for the
        // end to judge a body must not be passed by a peer that adds a trailer.
        let message = self.message_of(cursor.index, cursor.direction);
        let is_to_come = message.is_some_and(|message| {
            // As in Envoy, headers of an empty body wait for trailers; in `pingora` the request's hook is
            // still to run.
            let is_awaited = message.waits_for_body && cursor.plugin.module().abi() == Abi::Pingora;
            (message.holds_bytes() || is_awaited) && message.shown == Shown::Parts
        });
        if (is_to_come || matches!(resumed, Some(Call::LastBody { .. })))
            && let Some(step) = self.show_end_before_trailers(cursor, cell)
        {
            return step;
        }
        self.show_trailers(cursor, cell, part)
    }

    /// Leaves whole events in the part, and puts the rest by for the next one, if there is memory for it.
    fn cut(&mut self, cursor: &PluginCursor<'_>, part: &mut Part<'_>) -> Option<Step> {
        let limit = self.most_of(cursor);
        let message = self.message_of(cursor.index, cursor.direction)?;
        let mut whole = BodyBytes::Frame(message.events.whole(std::mem::take(part.chunk)));
        if part.end || part.trailers.is_some() || message.events.len() > limit {
            whole = whole.followed_by(message.events.take().into_bytes());
        }
        *part.chunk = whole.into_bytes();
        if message.events.len() == 0 {
            return None;
        }
        let cause = self.hold_all().err()?;
        Some(self.cannot_hold(cursor, cause))
    }

    fn show_bytes(
        &mut self,
        cursor: &PluginCursor<'_>,
        cell: &mut Option<InstanceGuard>,
        chunk: &mut Bytes,
        end: bool,
    ) -> Step {
        let PluginCursor { plugin, index, direction } = *cursor;
        let phase = direction.body_phase();
        let limit = self.most_of(cursor);
        let is_resumed = self.calls.resumes(direction, index).is_some();
        if let Some(message) = self.message_of(index, direction).filter(|_| !is_resumed) {
            // As in Envoy, whatever the guest would make of it.
            if message.overflows_with(chunk.len(), limit) {
                return self.cannot_hold(cursor, Cause::BodyTooLarge { limit });
            }
            let shown = message.window.take().unwrap_or_default().bytes;
            message.window = Some(BodyBuffer { bytes: shown.followed_by(std::mem::take(chunk)), limit });
        }
        let verdict = match self.visit_body(cursor, cell, end, false) {
            BodyOutcome::Verdict(verdict) => verdict,
            BodyOutcome::Instead(step) => {
                if matches!(step, Step::Next) {
                    self.take_bytes_into(index, direction, chunk);
                }
                return step;
            }
        };
        let may_be_continued = self.expects_calls(index);
        let Some(message) = self.message_of(index, direction) else { return Step::Next };
        let is_kept = message.keep(verdict);
        if verdict == BodyVerdict::Continue {
            *chunk = message.take_shown().into_bytes();
            self.release(index, direction);
            return Step::Next;
        }
        let length = message.seen_bytes();
        if length > limit && verdict == BodyVerdict::Buffer {
            return self.cannot_hold(cursor, Cause::BodyTooLarge { limit });
        }
        if verdict == BodyVerdict::Discard && end && !may_be_continued {
            // The end of a stream cannot be withheld by forgetting it; what the guest kept before goes with
            // it.
            *chunk = message.take_shown().into_bytes();
            self.release(index, direction);
            return Step::Next;
        }
        if is_kept && let Err(cause) = self.hold_all() {
            return self.cannot_hold(cursor, cause);
        }
        let is_full = verdict == BodyVerdict::Watermark && length >= limit;
        if !end && !is_full {
            // The sender is waited for, not the guest.
            self.pause(index, direction, u64::MAX);
            return Step::Kept;
        }
        if let Some(message) = self.message_of(index, direction).filter(|_| end) {
            message.shown = Shown::End;
        }
        self.pause(index, direction, plugin.pause_deadline());
        match self.held(plugin, index, direction, phase) {
            Step::Next => {
                self.take_bytes_into(index, direction, chunk);
                Step::Next
            }
            step => step,
        }
    }

    /// How many bytes of a body a plugin may hold back: those of its sandbox, or fewer if it has said so.
    pub(super) fn most_of(&self, cursor: &PluginCursor<'_>) -> usize {
        let plugin_state = self.exchange.as_ref().and_then(|exchange| exchange.plugins.get(cursor.index));
        let said = plugin_state.and_then(|plugin_state| plugin_state.messages.get(cursor.direction).most);
        said.unwrap_or(usize::MAX).min(cursor.plugin.max_buffered_body())
    }

    /// Runs a body callback.
    pub(super) fn visit_body(
        &mut self,
        cursor: &PluginCursor<'_>,
        cell: &mut Option<InstanceGuard>,
        end: bool,
        is_last: bool,
    ) -> BodyOutcome {
        let phase = cursor.direction.body_phase();
        let window =
            self.message_of(cursor.index, cursor.direction).and_then(|message| message.window.as_ref());
        let length = u32::try_from(window.map_or(0, |window| window.bytes.len())).unwrap_or(u32::MAX);
        let call = if is_last { Call::LastBody { phase, length } } else { Call::Body { phase, length, end } };
        if let Some(message) = self.message_of(cursor.index, cursor.direction) {
            message.may_add_trailers = end && !is_last;
        }
        match self.visit(cursor, cell, call) {
            CallOutcome::Pending => BodyOutcome::Instead(Step::Over(Action::Pending)),
            CallOutcome::Done(code) => BodyOutcome::Verdict(BodyVerdict::of(code)),
            CallOutcome::Skipped => BodyOutcome::Instead(Step::Next),
            CallOutcome::Over(action) => BodyOutcome::Instead(Step::Over(action)),
        }
    }

    /// The plugin at a place in the order of a direction.
    pub(super) fn plugin_at<'a>(
        &self,
        plugins: &'a [Plugin],
        direction: Direction,
        place: usize,
    ) -> Option<(usize, &'a Plugin)> {
        let index = match direction {
            Direction::Request => place,
            Direction::Response => self.active.len().checked_sub(place + 1)?,
        };
        plugins.get(index).map(|plugin| (index, plugin))
    }

    /// The instance of a plugin that still takes part in the stream.
    pub(super) fn lease_of(&self, index: usize) -> Option<&Lease> {
        self.active.get(index).filter(|active| active.is_active())?.lease.as_ref()
    }

    pub(super) fn message_of(&mut self, index: usize, direction: Direction) -> Option<&mut PluginMessage> {
        self.exchange.as_mut()?.message_of(index, direction)
    }
}
