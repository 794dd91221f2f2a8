//! Bytes that a plugin held and lets go.

use bytes::Bytes;
use http::HeaderMap;

use super::direction::Direction;
use super::headers::Step;
use super::plugin_state::{BodyBytes, Pause, Shown};
use super::wait::Wait;
use super::{Action, StreamContext};

/// A part of a message on its way.
pub(super) struct Part<'a> {
    pub(super) chunk: &'a mut Bytes,
    pub(super) end: bool,
    pub(super) trailers: Option<&'a mut HeaderMap>,
}

// === impl StreamContext ===

impl StreamContext {
    /// Passes on what a guest let go before it was shown a part.
    pub(super) fn after_front(
        &mut self,
        index: usize,
        direction: Direction,
        front: BodyBytes,
        part: &mut Part<'_>,
        step: Step,
    ) -> Step {
        if front.is_empty() {
            return step;
        }
        match step {
            Step::Next | Step::Kept => {
                *part.chunk = front.followed_by(std::mem::take(part.chunk)).into_bytes();
                Step::Next
            }
            Step::Over(action) => {
                if let Some(message) = self.message_of(index, direction) {
                    message.kept = front.followed_by(std::mem::take(&mut message.kept).into_bytes());
                }
                Step::Over(action)
            }
        }
    }

    /// Passes on everything a plugin holds, in front of what comes.
    pub(super) fn let_go(&mut self, index: usize, direction: Direction, part: &mut Part<'_>) -> Step {
        self.release(index, direction);
        let Some(exchange) = self.exchange.as_mut() else { return Step::Next };
        let Some(message) = exchange.message_of(index, direction) else { return Step::Next };
        *part.chunk = message.take_bytes().followed_by(std::mem::take(part.chunk)).into_bytes();
        let has_seen_trailers = message.shown == Shown::Trailers;
        if has_seen_trailers
            && let (Some(trailers), Some(kept)) =
                (part.trailers.as_deref_mut(), exchange.trailers.get(direction).as_ref())
        {
            trailers.clone_from(kept);
        }
        Step::Next
    }

    pub(super) fn take_bytes_into(&mut self, index: usize, direction: Direction, chunk: &mut Bytes) {
        if let Some(message) = self.message_of(index, direction) {
            *chunk = message.take_bytes().followed_by(std::mem::take(chunk)).into_bytes();
        }
        self.release(index, direction);
    }

    /// Waits for an instance with bytes in hand that it has let go: they are put back for the next time.
    pub(super) fn wait_for_with(&mut self, index: usize, direction: Direction, front: BodyBytes) -> Step {
        if let Some(message) = self.message_of(index, direction).filter(|_| !front.is_empty()) {
            message.kept = front;
            message.pause = Pause::Over;
        }
        let wait = self.lease_of(index).map(|lease| Wait::for_instance(lease.slot()));
        *self.waits.of(direction) = wait;
        Step::Over(Action::Pending)
    }
}
