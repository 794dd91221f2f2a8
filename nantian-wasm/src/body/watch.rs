//! What a body is more than the one inside.

use bytes::Bytes;
use http_body::SizeHint;

use super::{Passed, Relay};
use crate::error::BoxError;
use crate::handle::StreamHandle;
use crate::stream::Direction;

/// What a body is more than the one inside; nothing, for most. Boxed, because bodies are moved often.
#[derive(Default)]
pub(super) struct Watch(pub(super) Option<Box<Watched>>);

#[derive(Default)]
pub(super) struct Watched {
    /// The way past the plugins that look at it.
    relay: Option<Relay>,
    /// What comes first.
    front: Option<Passed>,
    /// Why the body breaks off when it is polled next.
    broken_by: Option<BoxError>,
    /// What plugins ask about that are not shown it.
    unseen: Option<Unseen>,
}

/// Bytes of a request's body that has passed plugins without being shown to them.
struct Unseen {
    stream: StreamHandle,
    bytes: usize,
}

// === impl Unseen ===

impl Drop for Unseen {
    fn drop(&mut self) {
        self.stream.count(Direction::Request, self.bytes);
    }
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(relay: Option<Relay>, front: Option<Passed>) -> Self {
        if relay.is_none() && front.is_none() {
            return Self::default();
        }
        Self(Some(Box::new(Watched { relay, front, ..Watched::default() })))
    }

    /// That of a body whose bytes are counted.
    pub(super) fn counting(stream: StreamHandle) -> Self {
        let unseen = Some(Unseen { stream, bytes: 0 });
        Self(Some(Box::new(Watched { unseen, ..Watched::default() })))
    }

    pub(super) fn relay(&self) -> Option<&Relay> {
        self.0.as_ref()?.relay.as_ref()
    }

    pub(super) fn relay_mut(&mut self) -> Option<&mut Relay> {
        self.0.as_mut()?.relay.as_mut()
    }

    pub(super) fn has_front(&self) -> bool {
        self.0.as_ref().is_some_and(|watched| watched.front.is_some() || watched.broken_by.is_some())
    }

    pub(super) fn front(&self) -> Option<&Passed> {
        self.0.as_ref()?.front.as_ref()
    }

    pub(super) fn break_off(&mut self, error: BoxError) {
        self.0.get_or_insert_default().broken_by = Some(error);
    }

    pub(super) fn take_broken(&mut self) -> Option<BoxError> {
        self.0.as_mut()?.broken_by.take()
    }

    pub(super) fn take_front(&mut self) -> Option<Passed> {
        let watched = self.0.as_mut()?;
        let front = watched.front.take()?;
        if let Some(relay) = &mut watched.relay {
            relay.front_taken();
        }
        Some(front)
    }

    pub(super) fn is_end_stream(&self, inner: impl FnOnce() -> bool) -> bool {
        !self.has_front() && self.relay().map_or_else(inner, Relay::is_done)
    }

    pub(super) fn size_hint(&self, inner: impl FnOnce() -> SizeHint) -> SizeHint {
        match self.relay() {
            Some(relay) => relay.size_hint_behind(self.front()),
            // What breaks off has no length.
            None if self.has_front() => SizeHint::default(),
            None => inner(),
        }
    }

    /// Counts what passes; nothing more does after what is no frame.
    pub(super) fn count(&mut self, frame: Option<&Passed>) {
        let Some(watched) = self.0.as_mut().filter(|watched| watched.unseen.is_some()) else { return };
        match (&mut watched.unseen, frame) {
            (Some(unseen), Some(Ok(frame))) => {
                unseen.bytes = unseen.bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            }
            (unseen, _) => *unseen = None,
        }
    }

    /// Nothing is shown any more.
    pub(super) fn end(&mut self) {
        if let Some(relay) = self.relay_mut() {
            relay.end();
        }
    }
}
