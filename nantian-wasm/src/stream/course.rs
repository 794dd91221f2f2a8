//! The way of a message from plugin to plugin.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::exchange::{Direction, ResponseHead, Window};
use super::visit::{Course, Member, Visit};
use super::{Action, StreamContext};
use crate::error::{Cause, Phase};
use crate::plugin::Plugin;
use crate::pool::{Cell, Lease, LeaseError};
use crate::proxy_wasm::{self, MapKind, Verdict};

/// Whose turn it is with a part of a body.
struct Step<'a> {
    plugin: &'a Plugin,
    lease: &'a Lease,
    index: usize,
    direction: Direction,
}

// === impl StreamContext ===

impl StreamContext {
    pub(super) fn drive_request_headers(&mut self, end: bool) -> Action {
        let plugins = Arc::clone(&self.plugins);
        for plugin in plugins.iter().skip(self.members.len()) {
            let (lease, mut cell) = match plugin.lease() {
                Ok(leased) => leased,
                Err(LeaseError::Busy(slot)) => {
                    self.waiting = Some(slot.wait());
                    return Action::Busy;
                }
                Err(LeaseError::Dead(cause)) => {
                    self.members.push(Member::default());
                    match self.failed(plugin, self.members.len() - 1, Phase::RequestHeaders, cause) {
                        Visit::Over(action) => return action,
                        _ => continue,
                    }
                }
            };
            let index = self.members.len();
            self.members.push(Member::serving(lease.clone()));
            let count = self.count(MapKind::RequestHeaders);
            let wanted = plugin.hooks().on_request;
            let visit =
                self.visit(plugin, &lease, &mut cell, index, Phase::RequestHeaders, |instance, context| {
                    *context = instance.open()?;
                    if wanted {
                        instance.on_headers(*context, Phase::RequestHeaders, count, end)
                    } else {
                        Ok(0)
                    }
                });
            if let Some(action) = self.after_headers(visit, plugin, index, Phase::RequestHeaders) {
                return action;
            }
        }
        Action::Continue
    }

    pub(super) fn drive_response_headers(&mut self, end: bool) -> Action {
        let plugins = Arc::clone(&self.plugins);
        while let Some((index, plugin)) = self.next_member(&plugins, Direction::Response) {
            let wanted = plugin.hooks().wants_response_headers(self.is_streaming);
            if let Some(lease) = self.lease_of(index).filter(|_| wanted) {
                let Some(mut cell) = lease.slot().try_lock() else { return self.wait_for(&lease) };
                let count = self.count(MapKind::ResponseHeaders);
                let visit = self.visit(
                    plugin,
                    &lease,
                    &mut cell,
                    index,
                    Phase::ResponseHeaders,
                    |instance, context| instance.on_headers(*context, Phase::ResponseHeaders, count, end),
                );
                if let Some(action) = self.after_headers(visit, plugin, index, Phase::ResponseHeaders) {
                    self.response.is_over = true;
                    self.show_as_response(&action);
                    return action;
                }
            }
            self.response.progress += 1;
        }
        self.response.progress = 0;
        Action::Continue
    }

    pub(super) fn drive_body(
        &mut self,
        direction: Direction,
        chunk: &mut Bytes,
        end: bool,
        mut trailers: Option<&mut HeaderMap>,
    ) -> Action {
        let plugins = Arc::clone(&self.plugins);
        if self.course(direction).is_at_start()
            && let Some(exchange) = self.exchange.as_mut()
        {
            exchange.count_bytes(direction, chunk.len());
        }
        while let Some((index, plugin)) = self.next_member(&plugins, direction) {
            self.release_held(index, direction, chunk);
            if chunk.is_empty() && !end && trailers.is_none() {
                break;
            }
            if let Some(lease) =
                self.lease_of(index).filter(|_| plugin.wants_body(direction, self.is_streaming))
            {
                let Some(mut cell) = lease.slot().try_lock() else { return self.wait_for(&lease) };
                let step = Step { plugin, lease: &lease, index, direction };
                let action = self.show_part(&step, &mut cell, chunk, end, trailers.as_deref_mut());
                if let Some(action) = action {
                    self.course(direction).is_over = true;
                    return action;
                }
            }
            self.course(direction).progress += 1;
        }
        self.course(direction).progress = 0;
        Action::Continue
    }

    /// Shows one plugin body bytes, its trailers, or both; an action ends the message.
    fn show_part(
        &mut self,
        step: &Step<'_>,
        cell: &mut Cell,
        chunk: &mut Bytes,
        end: bool,
        trailers: Option<&mut HeaderMap>,
    ) -> Option<Action> {
        if (end || !chunk.is_empty())
            && let Some(action) = self.show_bytes(step, cell, chunk, end)
        {
            return Some(action);
        }
        let trailers = trailers?;
        // Held bytes are shown once more as the end of the body before trailers: a guest that waits for the end to
        // judge a body must not be passed by a peer that adds a trailer.
        if self.holds(step.index, step.direction)
            && let Some(action) = self.show_bytes(step, cell, chunk, true)
        {
            return Some(action);
        }
        self.show_trailers(step, cell, trailers)
    }

    fn show_bytes(
        &mut self,
        step: &Step<'_>,
        cell: &mut Cell,
        chunk: &mut Bytes,
        end: bool,
    ) -> Option<Action> {
        let Step { plugin, index, direction, .. } = *step;
        let phase = direction.body_phase();
        let limit = plugin.max_buffered_body();
        let held = self.members.get_mut(index).map(|member| std::mem::take(member.held(direction)));
        let bytes = held.unwrap_or_default().followed_by(std::mem::take(chunk));
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.window = Some(Window { direction, bytes, end_of_stream: end, limit });
        }
        let visit = self.visit(plugin, step.lease, cell, index, phase, |instance, context| {
            instance.on_body(*context, phase, length, end)
        });
        let window = self.exchange.as_mut().and_then(|exchange| exchange.window.take());
        let bytes = window.map(|window| window.bytes).unwrap_or_default();
        let verdict = match visit {
            Visit::Done(code) => Verdict::of_body(code),
            Visit::Skipped => Verdict::Continue,
            Visit::Over(action) => return Some(action),
        };
        match verdict {
            Verdict::Continue => *chunk = bytes.into_bytes(),
            Verdict::Discard => {}
            Verdict::Hold if !end && bytes.len() <= limit => {
                if let Some(member) = self.members.get_mut(index) {
                    *member.held(direction) = bytes;
                }
            }
            Verdict::Hold => {
                let cause = if end { Cause::Paused } else { Cause::BodyTooLarge { limit } };
                if let Visit::Over(action) = self.failed(plugin, index, phase, cause) {
                    return Some(action);
                }
                let undone = self.exchange.as_mut().and_then(|exchange| exchange.window.take());
                *chunk = undone.map_or(bytes, |window| window.bytes).into_bytes();
            }
        }
        None
    }

    fn show_trailers(
        &mut self,
        step: &Step<'_>,
        cell: &mut Cell,
        trailers: &mut HeaderMap,
    ) -> Option<Action> {
        let Step { plugin, index, direction, .. } = *step;
        if self.members.get(index).is_none_or(|member| !member.is_active()) {
            return None;
        }
        let (phase, kind) = match direction {
            Direction::Request => (Phase::RequestTrailers, MapKind::RequestTrailers),
            Direction::Response => (Phase::ResponseTrailers, MapKind::ResponseTrailers),
        };
        if let Some(exchange) = self.exchange.as_mut() {
            *exchange.trailers_mut(direction) = Some(std::mem::take(trailers));
        }
        let count = self.count(kind);
        let visit = self.visit(plugin, step.lease, cell, index, phase, |instance, context| {
            instance.on_trailers(*context, phase, count)
        });
        if let Some(kept) =
            self.exchange.as_mut().and_then(|exchange| exchange.trailers_mut(direction).as_mut())
        {
            trailers.clone_from(kept);
        }
        self.after_headers(visit, plugin, index, phase)
    }

    /// The next plugin in the order of a direction.
    fn next_member<'a>(
        &mut self,
        plugins: &'a [Plugin],
        direction: Direction,
    ) -> Option<(usize, &'a Plugin)> {
        let reached = self.members.len();
        let course = self.course(direction);
        if course.is_over || course.progress >= reached {
            return None;
        }
        let index = match direction {
            Direction::Request => course.progress,
            Direction::Response => reached - 1 - course.progress,
        };
        plugins.get(index).map(|plugin| (index, plugin))
    }

    /// The instance of a plugin that still takes part in the stream.
    fn lease_of(&self, index: usize) -> Option<Lease> {
        self.members.get(index).filter(|member| member.is_active())?.lease.clone()
    }

    fn holds(&mut self, index: usize, direction: Direction) -> bool {
        self.members.get_mut(index).is_some_and(|member| !member.held(direction).is_empty())
    }

    /// Lets go what a plugin held back before it left the stream.
    fn release_held(&mut self, index: usize, direction: Direction, chunk: &mut Bytes) {
        if let Some(member) = self.members.get_mut(index).filter(|member| !member.is_active()) {
            let held = std::mem::take(member.held(direction));
            *chunk = held.followed_by(std::mem::take(chunk)).into_bytes();
        }
    }

    fn wait_for(&mut self, lease: &Lease) -> Action {
        self.waiting = Some(lease.slot().wait());
        Action::Busy
    }

    fn course(&mut self, direction: Direction) -> &mut Course {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    fn count(&self, kind: MapKind) -> u32 {
        let count =
            self.exchange.as_ref().and_then(|exchange| proxy_wasm::count(exchange, kind)).unwrap_or(0);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Lets later callbacks see the response that replaced upstream's.
    fn show_as_response(&mut self, action: &Action) {
        let (status, headers) = match action {
            Action::Respond(answer) => (answer.status, answer.headers.clone()),
            Action::Fail(failure) => (failure.status(), HeaderMap::new()),
            _ => return,
        };
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.response = Some(ResponseHead { status, headers });
        }
    }
}
