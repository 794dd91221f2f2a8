//! Where time comes from: an argument of the core, a trait for the layer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(target_os = "linux")]
use nix::time::ClockId;

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

    /// A time of some milliseconds ago at most, if that is cheaper to tell than the time now.
    ///
    /// Who fits at such a time fits now too, so it is enough to admit; who does not is asked again with the
    /// time now.
    fn recent(&self) -> Option<Timestamp> {
        None
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn recent(&self) -> Option<Timestamp> {
        (**self).recent()
    }
}

/// The operating system's monotonic clock, counted from the moment it is made. The default.
///
/// On Linux its recent time is that of the kernel's last tick (`CLOCK_MONOTONIC_COARSE`, 1 to 10 ms old): it
/// waits for no counter of the processor, nor the processor for it.
#[derive(Debug)]
#[expect(
    clippy::disallowed_types,
    reason = "the crate runs without a runtime; tests inject a ManualClock instead of pausing time"
)]
pub struct MonotonicClock {
    origin: std::time::Instant,
    /// The origin, which is a tick, on the time line of the kernel's ticks.
    #[cfg(target_os = "linux")]
    since_boot: Option<Duration>,
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
    /// A clock whose origin is now; where there are ticks, the last one, so that no decision is by a later
    /// time than the next.
    #[expect(
        clippy::disallowed_types,
        reason = "the crate runs without a runtime; tests inject a ManualClock instead of pausing time"
    )]
    pub fn new() -> Self {
        let origin = std::time::Instant::now();
        #[cfg(target_os = "linux")]
        {
            let last_tick = since_boot(ClockId::CLOCK_MONOTONIC_COARSE);
            let since = last_tick.and_then(|tick| since_boot(ClockId::CLOCK_MONOTONIC)?.checked_sub(tick));
            let ticked = since.and_then(|since| origin.checked_sub(since));
            Self { origin: ticked.unwrap_or(origin), since_boot: last_tick.filter(|_| ticked.is_some()) }
        }
        #[cfg(not(target_os = "linux"))]
        Self { origin }
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

    #[cfg(target_os = "linux")]
    fn recent(&self) -> Option<Timestamp> {
        let last_tick = since_boot(ClockId::CLOCK_MONOTONIC_COARSE)?.checked_sub(self.since_boot?)?;
        Some(Timestamp::from_nanos(nanos(last_tick)))
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn since_boot(clock: ClockId) -> Option<Duration> {
    nix::time::clock_gettime(clock).ok().map(Duration::from)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn there_is_a_recent_time_from_the_beginning() {
        for _ in 0..1000 {
            let clock = MonotonicClock::new();
            assert!(clock.recent().unwrap() <= clock.now());
        }
    }

    #[test]
    fn the_recent_time_of_the_system_is_not_ahead_of_the_time() {
        let clock = MonotonicClock::new();
        for _ in 0..10_000 {
            if let Some(recent) = clock.recent() {
                assert!(recent <= clock.now());
            }
        }
    }
}
