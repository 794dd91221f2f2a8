//! The time of a whole exchange, bounded by whoever stands around a target.

use std::time::Duration;

use tokio::time::Instant;

/// In the extensions of a request: when its whole answer must have been given, all attempts at all targets
/// included.
///
/// A timeout around a service can only cut: the client of a stream takes that for a broken connection, and
/// the observer takes it for a client that went away. Told here, the time ends the call in the words of the
/// client's dialect: 504 before the first token, an error event within a stream. Nothing is sent, and nothing
/// is waited for, that would be too late. The time in which a request is read and a service becomes ready is
/// left to whoever bounds it.
///
/// A response that keeps to it has it in its extensions.
///
/// ```
/// use std::time::Duration;
///
/// use nantian_ai::Deadline;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mut request = http::Request::post("/v1/chat/completions").body(())?;
/// request.extensions_mut().insert(Deadline::after(Duration::from_secs(30)));
/// # Ok::<_, http::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadline {
    /// Absent if it is too far away for an instant.
    at: Option<Instant>,
    limit: Duration,
}

// === impl Deadline ===

impl Deadline {
    /// So long from now.
    pub fn after(limit: Duration) -> Self {
        Self { at: Instant::now().checked_add(limit), limit }
    }

    /// How long the exchange may take, from its beginning.
    pub fn limit(self) -> Duration {
        self.limit
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        !self.leaves(Duration::ZERO)
    }

    /// Whether there is more time than this.
    pub(crate) fn leaves(self, wait: Duration) -> bool {
        let until = Instant::now().checked_add(wait);
        self.at.is_none_or(|at| until.is_some_and(|until| until < at))
    }

    pub(crate) fn at(self) -> Option<Instant> {
        self.at
    }
}
