//! The end of a body that has trailers, and the trailers.

use super::call::Call;
use super::course::{Seen, Turn};
use super::headers::Step;
use super::release::Part;
use super::seat::{Shown, Window};
use super::visit::{Member, Visit};
use super::{Action, StreamContext};
use crate::pool::CellGuard;

// === impl StreamContext ===

impl StreamContext {
    /// Shows all held bytes as the end of the body; they stay in the guest's hands until it has seen the trailers.
    pub(super) fn show_end_before_trailers(
        &mut self,
        turn: &Turn<'_>,
        cell: &mut Option<CellGuard>,
    ) -> Option<Step> {
        let limit = self.most_of(turn);
        let is_resumed = self.calls.resumes(turn.direction, turn.index).is_some();
        if let Some(side) = self.side(turn.index, turn.direction).filter(|_| !is_resumed) {
            let bytes = side.take_bytes();
            side.window = Some(Window { bytes, limit });
        }
        let seen = self.visit_body(turn, cell, true, true);
        if !matches!(seen, Seen::Instead(Step::Over(Action::Pending)))
            && let Some(side) = self.side(turn.index, turn.direction)
        {
            side.shown = Shown::End;
        }
        match seen {
            // All of it was held before, and whatever the guest asks for is not forgotten.
            Seen::Verdict(_) | Seen::Instead(Step::Next) => None,
            Seen::Instead(step) => Some(step),
        }
    }

    pub(super) fn show_trailers(
        &mut self,
        turn: &Turn<'_>,
        cell: &mut Option<CellGuard>,
        part: &mut Part<'_>,
    ) -> Step {
        let Turn { plugin, index, direction } = *turn;
        if !self.members.get(index).is_some_and(Member::is_active) {
            return self.let_go(index, direction, part);
        }
        if self.calls.resumes(direction, index).is_none() {
            if let (Some(exchange), Some(trailers)) = (self.exchange.as_mut(), part.trailers.as_deref_mut()) {
                *exchange.trailers_mut(direction) = Some(Box::new(trailers.clone()));
            }
            if let Some(side) = self.side(index, direction) {
                side.has_trailers = true;
            }
        }
        let phase = direction.trailers_phase();
        let count = self.count(direction.trailers_kind());
        let visit = self.visit(turn, cell, Call::Trailers { phase, count });
        if let Some(side) = self.side(index, direction).filter(|_| !matches!(visit, Visit::Pending)) {
            side.shown = Shown::Trailers;
        }
        match visit {
            Visit::Pending => return Step::Over(Action::Pending),
            Visit::Over(action) => return Step::Over(action),
            Visit::Done(code) if code != 0 => {
                self.pause(index, direction, plugin.pause_deadline());
                if let step @ Step::Over(_) = self.held(plugin, index, direction, phase) {
                    return step;
                }
            }
            Visit::Done(_) | Visit::Skipped => {
                if let Some(side) = self.side(index, direction) {
                    side.has_trailers = false;
                }
            }
        }
        self.let_go(index, direction, part)
    }
}
