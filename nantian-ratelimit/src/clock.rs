//! Where time comes from: an argument of the core, a trait for the layer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A point on the time line of one [`Clock`]: nanoseconds since its origin, up to 2^62, which are 146 years.
///
/// Two timestamps compare only if they come from the same clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Tells the time to a [`Limiter`](crate::Limiter).
///
/// A clock that steps back never admits more than its furthest reading would have; it only delays refills.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The operating system's monotonic clock, counted from the moment it is made. The default.
#[derive(Debug)]
#[expect(
    clippy::disallowed_types,
    reason = "the crate runs without a runtime; tests inject a ManualClock instead of pausing time"
)]
pub struct MonotonicClock {
    origin: std::time::Instant,
}

/// A clock that moves only when told to: for tests, simulations and replays.
///
/// Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

// === impl Timestamp ===

impl Timestamp {
    /// The origin of the clock.
    pub const ORIGIN: Self = Self(0);

    /// The last point there is.
    pub(crate) const END: Self = Self(1 << 62);

    /// The point `nanos` nanoseconds after the origin, or the last one.
    pub const fn from_nanos(nanos: u64) -> Self {
        if nanos < Self::END.0 { Self(nanos) } else { Self::END }
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; none if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `duration` later, or the last one.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self::from_nanos(self.0.saturating_add(nanos(duration)))
    }
}

// === impl MonotonicClock ===

impl MonotonicClock {
    /// A clock whose origin is now.
    #[expect(
        clippy::disallowed_types,
        reason = "the crate runs without a runtime; tests inject a ManualClock instead of pausing time"
    )]
    pub fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(nanos(self.origin.elapsed()))
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// A clock that stands at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(nanos(by), Ordering::AcqRel);
    }

    /// Moves the clock to `to`, backwards too.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.0, Ordering::Release);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::Acquire))
    }
}

/// Whole nanoseconds of `duration`; 584 years and more are 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
