//! What is noted of a stream for those who log it, also while a guest has its exchange.

use std::sync::{Arc, Mutex};

use super::direction::{ByDirection, Direction};
use super::exchange::Exchange;
use crate::sync::lock;

/// What an exchange is to be told.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Bytes of bodies that no plugin was shown.
    unseen: ByDirection<usize>,
    /// Why the response is what it is, and what went wrong, in the bits of Envoy.
    explanation: Option<(String, u32)>,
}

/// What an exchange is told when its stream has it next, at the latest when it is logged or closed: a guest
/// that has it, or takes it for a reply to a call-out, is not told before.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingNotes(Option<Arc<Mutex<Notes>>>);

// === impl Notes ===

impl Notes {
    pub(super) fn of_unseen(direction: Direction, bytes: usize) -> Self {
        let mut this = Self::default();
        *this.unseen.of(direction) = bytes;
        this
    }

    pub(super) fn of_explanation(details: &str, flags: u32) -> Self {
        Self { explanation: Some((details.to_owned(), flags)), ..Self::default() }
    }

    /// Tells the exchange: what has been said of its response stands.
    pub(super) fn tell(mut self, exchange: &mut Exchange) {
        for direction in [Direction::Request, Direction::Response] {
            exchange.count_bytes(direction, *self.unseen.of(direction));
        }
        if let Some((details, flags)) = self.explanation.filter(|_| exchange.details.is_none()) {
            (exchange.details, exchange.flags) = (Some(details), flags);
        }
    }

    fn followed_by(mut self, mut other: Self) -> Self {
        for direction in [Direction::Request, Direction::Response] {
            let bytes = self.unseen.of(direction);
            *bytes = bytes.saturating_add(*other.unseen.of(direction));
        }
        self.explanation = self.explanation.or(other.explanation);
        self
    }
}

// === impl PendingNotes ===

impl PendingNotes {
    pub(super) fn keep(&mut self, notes: Notes) {
        let mut kept = lock(self.0.get_or_insert_default());
        *kept = std::mem::take(&mut *kept).followed_by(notes);
    }

    /// Tells the exchange, once.
    pub(crate) fn tell(&self, exchange: &mut Exchange) {
        if let Some(kept) = &self.0 {
            std::mem::take(&mut *lock(kept)).tell(exchange);
        }
    }
}
