//! How long a body is before and behind the plugins.

use bytes::Bytes;

use super::BodyError;

/// What went in, what came out, and what was promised.
#[derive(Default)]
pub(super) struct Lengths {
    pub(super) declared: Option<u64>,
    pub(super) received: u64,
    pub(super) sent: u64,
}

// === impl Lengths ===

impl Lengths {
    /// Counts what is passed on; a body that plugins changed must still have the length it was announced
    /// with.
    pub(super) fn pass(&mut self, chunk: &Bytes, ends: bool) -> Result<(), BodyError> {
        self.sent = self.sent.saturating_add(length(chunk));
        let Some(declared) = self.declared else { return Ok(()) };
        let is_wrong = self.sent > declared || (ends && self.sent < declared);
        // A body that came as it goes is its sender's affair: the answer to HEAD announces a body and has
        // none.
        if is_wrong && self.sent != self.received {
            return Err(BodyError::Length { declared, sent: self.sent });
        }
        Ok(())
    }
}

pub(super) fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
