//! The well-being of one endpoint, shared by all who have requests there.
//!
//! Requests note what they saw in atomics; what follows from it is decided by one thread at a time, under the
//! lock of updates ([`HealthState::evaluate`]), so that bounds over the whole set hold exactly.

use std::time::Duration;

use super::{OutlierConfig, SlowStartConfig};
use crate::clock::Timestamp;
use crate::latency::Latency;
use crate::outcome::Outcome;
use crate::sync::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// The well-being of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// Nothing speaks against it.
    #[default]
    Healthy,
    /// It failed too often and is left out for a while.
    Ejected,
    /// Its ejection is over: it is given one request at a time until it has answered one. Where it gets none,
    /// because nearer ones get all for instance, it counts as healthy instead.
    Probation,
    /// It answered 429 and is spared for a while. It keeps its sessions, whose requests go wherever others go
    /// meanwhile.
    Spared,
    /// Its active checks fail.
    Failing,
}

/// What is noted about one endpoint; first what picks read.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct HealthState {
    pub(crate) latency: Latency,
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    /// Written under the lock of updates.
    verdict: AtomicU8,
    /// How often its probation has begun, up to [`Term::COUNT`]; written under the lock of updates.
    term: AtomicU8,
    /// Too many failures in a row, or one in probation.
    should_eject: AtomicBool,
    /// An answer in probation.
    should_recover: AtomicBool,
    /// Whether the one request that probation allows is on its way.
    is_probed: AtomicBool,
    /// The end of the time for which it is spared.
    spared_until: AtomicU64,
    check_fails: AtomicBool,
    ejections: AtomicU64,
    // What follows is written under the lock of updates.
    ejected_until: AtomicU64,
    times_in_a_row: AtomicU32,
    /// Since when it is well; the slow start counts from here.
    well_since: AtomicU64,
}

const HEALTHY: u8 = 0;
const EJECTED: u8 = 1;
const PROBATION: u8 = 2;
const FAILING: u8 = 3;

/// The time from one probation of an endpoint to the next one. Requests that began in an earlier one tell how
/// it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term(u8);

/// What an evaluation may spend, and what it works with.
pub(crate) struct Evaluation<'a> {
    pub(crate) now: Timestamp,
    pub(crate) outlier: Option<&'a OutlierConfig>,
    /// How many more endpoints may be ejected.
    pub(crate) ejections_left: usize,
    /// Whether who fails and may not be ejected is spared in the choice.
    pub(crate) spares: bool,
}

/// What is true of an endpoint at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HealthSnapshot {
    pub(crate) health: Health,
    /// The share of its weight that it has, in percent.
    pub(crate) percent: u32,
    /// When to plan anew.
    pub(crate) next: Timestamp,
}

// === impl Term ===

impl Term {
    /// The bits of its number.
    pub(crate) const BITS: u32 = 4;
    /// After so many terms the numbers begin anew.
    const COUNT: u8 = 1 << Self::BITS;

    /// The term with this number, of which only the lowest bits count.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits.to_le_bytes()[0] % Self::COUNT)
    }

    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.0)
    }

    fn next(self) -> Self {
        Self((self.0 + 1) % Self::COUNT)
    }
}

// === impl HealthState ===

impl HealthState {
    /// An endpoint that is well since `since`.
    pub(crate) fn new(since: Timestamp) -> Self {
        Self { well_since: AtomicU64::new(since.as_nanos()), ..Self::default() }
    }

    /// Notes an outcome; whether that calls for a new plan.
    pub(crate) fn note(&self, outcome: Outcome, now: impl Fn() -> Timestamp, config: &OutlierConfig) -> bool {
        match outcome {
            Outcome::Success => self.note_answer(),
            Outcome::Busy { retry_after } => {
                let spared = config.spared(retry_after);
                let is_spared = !spared.is_zero();
                if is_spared {
                    let until = now().saturating_add(spared).as_nanos();
                    self.spared_until.fetch_max(until, Ordering::Relaxed);
                }
                self.note_answer() || is_spared
            }
            Outcome::ServerError => {
                let errors = self.errors.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                self.gateway_errors.store(0, Ordering::Relaxed);
                self.note_failure(config.consecutive_errors.is_some_and(|most| errors >= most.get()))
            }
            Outcome::GatewayError | Outcome::Unreachable => {
                let errors = self.errors.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                let gateway_errors = self.gateway_errors.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                let too_many = config.consecutive_errors.is_some_and(|most| errors >= most.get())
                    || config.consecutive_gateway_errors.is_some_and(|most| gateway_errors >= most.get());
                self.note_failure(too_many)
            }
        }
    }

    /// Notes an answer; whether that calls for a new plan.
    pub(crate) fn note_answer(&self) -> bool {
        // Read first: in good times the word is shared by all readers and written by none.
        if self.errors.load(Ordering::Relaxed) > 0 {
            self.errors.store(0, Ordering::Relaxed);
            self.gateway_errors.store(0, Ordering::Relaxed);
        }
        if self.verdict.load(Ordering::Relaxed) == PROBATION {
            self.should_recover.swap(true, Ordering::Relaxed);
            return true;
        }
        false
    }

    fn note_failure(&self, too_many: bool) -> bool {
        let verdict = self.verdict.load(Ordering::Relaxed);
        let should_eject = verdict == PROBATION || (too_many && verdict != EJECTED);
        if should_eject {
            self.should_eject.swap(true, Ordering::Relaxed);
        }
        should_eject
    }

    /// The present term.
    #[inline]
    pub(crate) fn term(&self) -> Term {
        Term(self.term.load(Ordering::Relaxed))
    }

    /// Whether the caller's request may go there to show how the endpoint is; those that were there before
    /// are no reason to wait, for they may have told all they will.
    pub(crate) fn begin_probe(&self) -> bool {
        !self.is_probed.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn end_probe(&self) {
        self.is_probed.store(false, Ordering::Relaxed);
    }

    /// Notes what an active check found; whether that is news.
    pub(crate) fn note_check(&self, fails: bool) -> bool {
        self.check_fails.swap(fails, Ordering::Relaxed) != fails
    }

    /// Whether it is neither ejected nor on probation, and its checks pass.
    pub(crate) fn is_well(&self) -> bool {
        self.verdict.load(Ordering::Relaxed) == HEALTHY
    }

    /// Whether it counts against the ejections that the set allows.
    pub(crate) fn is_ejected(&self) -> bool {
        matches!(self.verdict.load(Ordering::Relaxed), EJECTED | PROBATION)
    }

    /// Whether it is ejected, and its time is not over.
    pub(crate) fn is_left_out(&self) -> bool {
        self.verdict.load(Ordering::Relaxed) == EJECTED
    }

    /// Ejections so far.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Draws the conclusions from what was noted. Under the lock of updates.
    pub(crate) fn evaluate(&self, evaluation: &mut Evaluation<'_>) {
        let now = evaluation.now;
        let Some(config) = evaluation.outlier else {
            self.uneject(now);
            return self.evaluate_check(now);
        };
        let should_eject = self.should_eject.swap(false, Ordering::Relaxed);
        let should_recover = self.should_recover.swap(false, Ordering::Relaxed);
        match self.verdict.load(Ordering::Relaxed) {
            EJECTED if now.as_nanos() >= self.ejected_until.load(Ordering::Relaxed) => {
                self.forget_errors();
                self.latency.clear_infinite();
                self.end_probe();
                self.term.store(self.term().next().0, Ordering::Relaxed);
                self.verdict.store(PROBATION, Ordering::Relaxed);
            }
            PROBATION if should_eject => self.eject(now, config),
            PROBATION if should_recover => self.recover(now),
            HEALTHY | FAILING if should_eject && evaluation.ejections_left > 0 => {
                evaluation.ejections_left -= 1;
                self.eject(now, config);
            }
            HEALTHY | FAILING if should_eject => {
                self.forget_errors();
                if evaluation.spares {
                    self.latency.set_infinite();
                }
            }
            _ => {}
        }
        self.evaluate_check(now);
    }

    fn evaluate_check(&self, now: Timestamp) {
        let fails = self.check_fails.load(Ordering::Relaxed);
        match (self.verdict.load(Ordering::Relaxed), fails) {
            (HEALTHY, true) => self.verdict.store(FAILING, Ordering::Relaxed),
            (FAILING, false) => self.recover(now),
            _ => {}
        }
    }

    /// Lets an ejected endpoint back in when failures are of interest no more.
    fn uneject(&self, now: Timestamp) {
        if self.is_ejected() {
            self.recover(now);
        }
    }

    /// Lets one back in whose probation no request will end, unless it fails its checks.
    pub(crate) fn end_probation(&self, now: Timestamp) {
        if self.verdict.load(Ordering::Relaxed) == PROBATION {
            self.recover(now);
            self.evaluate_check(now);
        }
    }

    fn eject(&self, now: Timestamp, config: &OutlierConfig) {
        let well_for = now.since(Timestamp::from_nanos(self.well_since.load(Ordering::Relaxed)));
        let in_a_row = self.times_in_a_row.load(Ordering::Relaxed);
        // Every time that it was well for as long as the first ejection lasts makes up for one.
        let made_up = if self.is_ejected() { 0 } else { whole_times(well_for, config.base_ejection) };
        let times = in_a_row.saturating_sub(made_up).saturating_add(1);
        let until = now.saturating_add(config.ejection(times, fastrand::f64()));
        self.times_in_a_row.store(times, Ordering::Relaxed);
        self.ejected_until.store(until.as_nanos(), Ordering::Relaxed);
        self.verdict.store(EJECTED, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.forget_errors();
    }

    fn recover(&self, now: Timestamp) {
        self.well_since.store(now.as_nanos(), Ordering::Relaxed);
        self.verdict.store(HEALTHY, Ordering::Relaxed);
        self.forget_errors();
        self.latency.clear_infinite();
    }

    fn forget_errors(&self) {
        self.errors.store(0, Ordering::Relaxed);
        self.gateway_errors.store(0, Ordering::Relaxed);
    }

    /// What is true of it now.
    pub(crate) fn snapshot(&self, now: Timestamp, slow_start: Option<&SlowStartConfig>) -> HealthSnapshot {
        let spared_until = Timestamp::from_nanos(self.spared_until.load(Ordering::Relaxed));
        let (health, next) = match self.verdict.load(Ordering::Relaxed) {
            EJECTED => (Health::Ejected, Timestamp::from_nanos(self.ejected_until.load(Ordering::Relaxed))),
            PROBATION => (Health::Probation, Timestamp::NEVER),
            FAILING => (Health::Failing, Timestamp::NEVER),
            _ if spared_until > now => (Health::Spared, spared_until),
            _ => (Health::Healthy, Timestamp::NEVER),
        };
        let well_since = Timestamp::from_nanos(self.well_since.load(Ordering::Relaxed));
        let starting = slow_start
            .filter(|_| well_since > Timestamp::ORIGIN)
            .and_then(|config| Some((config.percent(now.since(well_since))?, config.step())));
        match starting {
            Some((percent, step)) => {
                HealthSnapshot { health, percent, next: next.min(now.saturating_add(step)) }
            }
            None => HealthSnapshot { health, percent: 100, next },
        }
    }
}

fn whole_times(time: Duration, unit: Duration) -> u32 {
    match unit.as_nanos() {
        0 => u32::MAX,
        unit => u32::try_from(time.as_nanos() / unit).unwrap_or(u32::MAX),
    }
}

#[cfg(all(test, loom))]
mod races;
