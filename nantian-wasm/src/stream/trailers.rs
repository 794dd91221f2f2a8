//! The end of a body that has trailers, and the trailers.

use http::HeaderMap;

use super::active_plugin::{ActivePlugin, CallOutcome};
use super::body::{BodyOutcome, PluginCursor};
use super::call::Call;
use super::direction::Direction;
use super::headers::Step;
use super::plugin_state::{BodyBuffer, Shown};
use super::release::Part;
use super::{Action, StreamContext};
use crate::pool::InstanceGuard;

// === impl StreamContext ===

impl StreamContext {
    /// Takes the trailers that plugins have added to a body without any.
    pub(crate) fn take_trailers(&mut self, direction: Direction) -> Option<HeaderMap> {
        self.messages.of(direction).added.take().map(|trailers| *trailers)
    }

    /// Shows all held bytes as the end of the body; they stay in the guest's hands until it has seen the
    /// trailers.
    pub(super) fn show_end_before_trailers(
        &mut self,
        cursor: &PluginCursor<'_>,
        cell: &mut Option<InstanceGuard>,
    ) -> Option<Step> {
        let limit = self.most_of(cursor);
        let is_resumed = self.calls.resumes(cursor.direction, cursor.index).is_some();
        if let Some(message) = self.message_of(cursor.index, cursor.direction).filter(|_| !is_resumed) {
            let bytes = message.take_bytes();
            message.window = Some(BodyBuffer { bytes, limit });
        }
        let seen = self.visit_body(cursor, cell, true, true);
        if !matches!(seen, BodyOutcome::Instead(Step::Over(Action::Pending)))
            && let Some(message) = self.message_of(cursor.index, cursor.direction)
        {
            message.shown = Shown::End;
        }
        match seen {
            // All of it was held before, and whatever the guest asks for is not forgotten.
            BodyOutcome::Verdict(_) | BodyOutcome::Instead(Step::Next) => None,
            BodyOutcome::Instead(step) => Some(step),
        }
    }

    pub(super) fn show_trailers(
        &mut self,
        cursor: &PluginCursor<'_>,
        cell: &mut Option<InstanceGuard>,
        part: &mut Part<'_>,
    ) -> Step {
        let PluginCursor { plugin, index, direction } = *cursor;
        if !self.active.get(index).is_some_and(ActivePlugin::is_active) {
            return self.let_go(index, direction, part);
        }
        if self.calls.resumes(direction, index).is_none() {
            if let (Some(exchange), Some(trailers)) = (self.exchange.as_mut(), part.trailers.as_deref_mut()) {
                *exchange.trailers.of(direction) = Some(Box::new(trailers.clone()));
            }
            if let Some(message) = self.message_of(index, direction) {
                message.has_trailers = true;
            }
        }
        let phase = direction.trailers_phase();
        let count = self.count(direction.trailers_kind());
        let visit = self.visit(cursor, cell, Call::Trailers { phase, count });
        if let Some(message) =
            self.message_of(index, direction).filter(|_| !matches!(visit, CallOutcome::Pending))
        {
            message.shown = Shown::Trailers;
        }
        match visit {
            CallOutcome::Pending => return Step::Over(Action::Pending),
            CallOutcome::Over(action) => return Step::Over(action),
            CallOutcome::Done(code) if code != 0 => {
                self.pause(index, direction, plugin.pause_deadline());
                if let step @ Step::Over(_) = self.held(plugin, index, direction, phase) {
                    return step;
                }
            }
            CallOutcome::Done(_) | CallOutcome::Skipped => {
                if let Some(message) = self.message_of(index, direction) {
                    message.has_trailers = false;
                }
            }
        }
        self.let_go(index, direction, part)
    }
}
