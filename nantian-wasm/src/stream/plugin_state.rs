//! What one plugin has of an exchange: what it may look at, and what it holds.

use std::ops::Deref;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::answer::LocalResponse;
use super::direction::ByDirection;
use super::events::Events;
use crate::error::Cause;
use crate::proxy_wasm::BodyVerdict;
use crate::sandbox::Usage;

/// What one plugin has of an exchange.
#[derive(Debug, Clone, Default)]
pub(crate) struct PluginState {
    pub(crate) messages: ByDirection<PluginMessage>,
    /// The guest's own answer, if it gave one.
    pub(crate) answer: Option<Box<LocalResponse>>,
    /// What ends the stream although the guest did not trap.
    pub(crate) fault: Option<Cause>,
    /// Headers that the guest has set before there was a response to set them in.
    pub(crate) response_headers: Option<Box<HeaderMap>>,
    /// Engine tick until which a call-out of this stream may last.
    pub(crate) calls_until: u64,
    /// One is under way, upon whose end the guest may continue the stream.
    pub(super) expects_calls: bool,
    /// What the stream has cost: in the guest's callbacks, and in the replies to its call-outs.
    pub(crate) usage: Usage,
}

/// What one plugin has of one message.
#[derive(Debug, Clone, Default)]
pub(crate) struct PluginMessage {
    /// The guest has the headers: its callback runs, or has held them. What it writes when they have left
    /// changes what is remembered of them.
    pub(crate) has_headers: bool,
    /// The guest has the trailers.
    pub(crate) has_trailers: bool,
    /// The guest is shown the end of a body without trailers, or holds it, and may add some.
    pub(crate) may_add_trailers: bool,
    /// Bytes the guest can look at.
    pub(crate) window: Option<BodyBuffer>,
    /// Bytes in front of them that it has seen and holds.
    pub(crate) kept: BodyBytes,
    /// It has asked to see the last part again, together with the next one.
    is_buffering: bool,
    /// How many bytes of the body it has said that it may hold back, if it has.
    pub(crate) most: Option<usize>,
    /// Bytes behind them that are no whole event yet, where the guest sees whole events.
    pub(super) events: Events,
    pub(crate) pause: Pause,
    /// The guest has let the message go since its last callback began, whose verdict may be to hold it.
    pub(crate) is_continued: bool,
    /// The headers wait for a body callback to let them go.
    pub(crate) waits_for_body: bool,
    /// Call-outs are what the headers wait for, and no longer than until these have ended.
    pub(super) waits_for_calls: bool,
    /// The guest has written a content-length, which says that the body will not keep the one it has.
    pub(crate) is_resized: bool,
    pub(crate) shown: Shown,
}

/// How far a guest has been shown the end of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Shown {
    #[default]
    Parts,
    End,
    Trailers,
}

/// Whether a guest holds a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Pause {
    #[default]
    None,
    /// Until it continues the stream, at most until this engine tick.
    Until(u64),
    /// It held the message and let it go.
    Over,
}

/// A body's bytes in the hands of a guest.
#[derive(Debug, Clone, Default)]
pub(crate) struct BodyBuffer {
    pub(crate) bytes: BodyBytes,
    /// Longest the guest may make it.
    pub(crate) limit: usize,
}

/// Bytes as they came, or as a guest's buffering has gathered them.
#[derive(Debug, Clone)]
pub(crate) enum BodyBytes {
    Frame(Bytes),
    Gathered(BytesMut),
}

// === impl Pause ===

impl Pause {
    pub(crate) fn is_held(self) -> bool {
        matches!(self, Self::Until(_))
    }
}

// === impl PluginMessage ===

impl PluginMessage {
    /// Everything the plugin holds back; it holds nothing afterwards.
    pub(crate) fn take_bytes(&mut self) -> BodyBytes {
        let unfinished = self.events.take().into_bytes();
        self.take_shown().followed_by(unfinished)
    }

    /// Keeps what was shown as the guest has asked; true unless it is forgotten.
    ///
    /// A message has one buffer, as in Envoy: bytes that are in it stay there whatever the guest asks for
    /// next, and those that come while it is shown are in it before the guest sees them.
    pub(super) fn keep(&mut self, verdict: BodyVerdict) -> bool {
        let was_buffering = std::mem::replace(&mut self.is_buffering, verdict == BodyVerdict::Buffer);
        match verdict {
            BodyVerdict::Discard if !was_buffering => {
                self.window = None;
                return false;
            }
            BodyVerdict::Buffer => {
                let limit = self.window.as_ref().map_or(0, |window| window.limit);
                self.window = Some(BodyBuffer { bytes: self.take_shown(), limit });
            }
            _ => self.kept = self.take_shown(),
        }
        true
    }

    /// What the plugin holds back of what it has seen.
    pub(crate) fn take_shown(&mut self) -> BodyBytes {
        let window = self.window.take().unwrap_or_default();
        std::mem::take(&mut self.kept).followed_by(window.bytes.into_bytes())
    }

    /// Whether so many more bytes are too many for the buffer, if they are put into it before the guest sees
    /// them.
    pub(super) fn overflows_with(&self, bytes: usize, limit: usize) -> bool {
        self.is_buffering && self.seen_bytes() + bytes > limit
    }

    /// How many bytes the guest has seen and holds.
    pub(super) fn seen_bytes(&self) -> usize {
        self.kept.len() + self.window.as_ref().map_or(0, |window| window.bytes.len())
    }

    /// Whether the guest was shown parts, or the end, that have not gone on.
    pub(super) fn has_seen_body(&self) -> bool {
        self.window.is_some() || !self.kept.is_empty() || self.shown != Shown::Parts
    }

    pub(crate) fn holds_bytes(&self) -> bool {
        !self.kept.is_empty() || self.window.as_ref().is_some_and(|window| !window.bytes.is_empty())
    }
}

// === impl BodyBytes ===

impl BodyBytes {
    /// With more bytes behind; gathering costs each byte one copy, not one for each frame that follows.
    pub(crate) fn followed_by(self, bytes: Bytes) -> Self {
        match self {
            held if bytes.is_empty() => held,
            Self::Frame(frame) if frame.is_empty() => Self::Frame(bytes),
            held => {
                let mut gathered = held.gathered();
                gathered.extend_from_slice(&bytes);
                Self::Gathered(gathered)
            }
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Frame(frame) => frame,
            Self::Gathered(gathered) => gathered.freeze(),
        }
    }

    fn gathered(self) -> BytesMut {
        match self {
            Self::Frame(frame) => BytesMut::from(frame),
            Self::Gathered(gathered) => gathered,
        }
    }
}

impl Default for BodyBytes {
    fn default() -> Self {
        Self::Frame(Bytes::new())
    }
}

impl Deref for BodyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Frame(frame) => frame,
            Self::Gathered(gathered) => gathered,
        }
    }
}
