//! What is of interest about a request in flight, as one word.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::BalanceConfig;
use crate::health::state::Term;

/// What is of interest about a request besides that it is in flight: a set of the constants; above them the
/// term of the endpoint in which the request began, if its outcome is of interest, and when it began, in
/// nanoseconds, if its time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interest(u64);

// === impl Interest ===

impl Interest {
    pub(super) const NOTHING: Self = Self(0);
    /// How long the response takes.
    pub(super) const TIME: Self = Self(1);
    /// Whether it fails.
    pub(super) const OUTCOME: Self = Self(2);
    /// That it counts among all of the balancer.
    pub(super) const COUNT: Self = Self(4);
    /// That it is the one which shows how an endpoint in probation is.
    pub(super) const PROBE: Self = Self(8);
    /// The bits of the constants.
    const CONSTANTS: u32 = 4;
    /// The bits below the time.
    const BITS: u32 = Self::CONSTANTS + Term::BITS;
    /// The bits of the term.
    const TERM: u64 = (1 << Self::BITS) - (1 << Self::CONSTANTS);

    pub(crate) fn of(config: &BalanceConfig) -> Self {
        let outcome = config.outlier.is_some() || config.decay().is_some();
        Self::NOTHING.with(Self::OUTCOME, outcome).with(Self::COUNT, config.load_bound().is_some())
    }

    /// This, and how long the response takes if `is_timed`.
    pub(crate) fn timed(self, is_timed: bool) -> Self {
        self.with(Self::TIME, is_timed)
    }

    /// This, of a request that shows how an endpoint in probation is.
    pub(super) fn probing(self) -> Self {
        self.with(Self::PROBE, true)
    }

    fn with(self, part: Self, is_wanted: bool) -> Self {
        Self(self.0 | (part.0 * u64::from(is_wanted)))
    }

    pub(super) fn has(self, part: Self) -> bool {
        self.0 & part.0 != 0
    }

    /// This, of a request that begins in `term`.
    #[inline]
    pub(super) fn in_term(self, term: Term) -> Self {
        Self(self.0 | (term.to_bits() << Self::CONSTANTS))
    }

    pub(super) fn term(self) -> Term {
        Term::from_bits(self.0 >> Self::CONSTANTS)
    }

    /// From now on.
    pub(super) fn since(self, now: Timestamp) -> Self {
        Self(self.0 | (now.as_nanos() << Self::BITS))
    }

    /// The time from then to `now`, whatever the bits above were.
    pub(super) fn until(self, now: Timestamp) -> Duration {
        let (then, now) = (self.0 & !((1 << Self::BITS) - 1), now.as_nanos() << Self::BITS);
        let nanos = now.wrapping_sub(then).cast_signed() >> Self::BITS;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// What is to be undone at the end; of a probe with its term, for the next one is not its to end.
    pub(super) fn after_the_outcome(self) -> Self {
        let probe = if self.has(Self::PROBE) { Self::PROBE.0 | Self::TERM } else { 0 };
        Self(self.0 & (Self::COUNT.0 | probe))
    }
}
