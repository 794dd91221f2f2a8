//! Active checks: when an endpoint is asked how it is, and how many answers in a row count.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::endpoint::EndpointId;

/// When endpoints are checked, and how many answers in a row count.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckConfig {
    /// The time between two checks of an endpoint.
    ///
    /// Default: 10 s.
    pub interval: Duration,
    /// A check that takes longer fails.
    ///
    /// Default: 2 s.
    pub timeout: Duration,
    /// How much later than after the interval, at random, lest all are checked at once.
    ///
    /// Unit: percent of the interval. Range: 0..=100. Default: 10.
    pub jitter_percent: u8,
    /// Passed checks in a row that bring an endpoint back.
    ///
    /// Default: 2.
    pub healthy_threshold: NonZeroU32,
    /// Failed checks in a row after which an endpoint is left out; the very first check of an endpoint
    /// decides at once.
    ///
    /// Default: 3.
    pub unhealthy_threshold: NonZeroU32,
    /// Checks that run at the same time.
    ///
    /// Default: 64.
    pub max_concurrent: NonZeroU32,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a check passes or fails")]
pub enum Verdict {
    /// The endpoint is well.
    Passes,
    /// It is not, or did not answer.
    Fails,
}

/// The schedule of the checks of one set of endpoints. Pure: it is told the time and the findings.
///
/// An endpoint that was never checked counts as well.
#[derive(Debug)]
pub struct Checks {
    config: CheckConfig,
    endpoints: BTreeMap<EndpointId, Checked>,
}

/// One endpoint.
#[derive(Debug)]
struct Checked {
    /// When it is checked next; `None` while a check is running.
    next: Option<Timestamp>,
    /// What counts, once a check has ended.
    verdict: Option<Verdict>,
    /// Findings in a row that differ from it.
    against: u32,
}

// === impl CheckConfig ===

impl CheckConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            jitter_percent: 10,
            healthy_threshold: NonZeroU32::MIN.saturating_add(1),
            unhealthy_threshold: NonZeroU32::MIN.saturating_add(2),
            max_concurrent: NonZeroU32::MIN.saturating_add(63),
        }
    }

    fn pause(&self) -> Duration {
        let jitter = f64::from(self.jitter_percent.min(100)) / 100.0 * fastrand::f64();
        self.interval.saturating_add(self.interval.mul_f64(jitter))
    }
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Checks ===

impl Checks {
    /// Nothing is checked yet.
    #[must_use]
    pub fn new(config: CheckConfig) -> Self {
        Self { config, endpoints: BTreeMap::new() }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &CheckConfig {
        &self.config
    }

    /// Which of `present` are to be checked now, up to the limit; their checks count as running until
    /// [`finish_at`](Self::finish_at). Endpoints that are not present are forgotten.
    pub fn begin_at<'a>(
        &mut self,
        now: Timestamp,
        present: impl IntoIterator<Item = &'a EndpointId>,
    ) -> Vec<EndpointId> {
        let mut known = std::mem::take(&mut self.endpoints);
        for id in present {
            let checked = known.remove(id);
            self.endpoints.insert(
                id.clone(),
                checked.unwrap_or(Checked { next: Some(now), verdict: None, against: 0 }),
            );
        }
        let left = self.places_left();
        let due =
            self.endpoints.iter_mut().filter(|(_, checked)| checked.next.is_some_and(|next| next <= now));
        due.take(left)
            .map(|(id, checked)| {
                checked.next = None;
                id.clone()
            })
            .collect()
    }

    /// How many more checks may run.
    fn places_left(&self) -> usize {
        let running = self.endpoints.values().filter(|checked| checked.next.is_none()).count();
        (self.config.max_concurrent.get() as usize).saturating_sub(running)
    }

    /// A check has ended. Gives what counts from now on; `None` of an endpoint that is not present.
    ///
    /// Tell [`Balancer::set_check`](crate::Balancer::set_check) whether it has changed or not: an endpoint
    /// that has left and come back since the last check is a new one there.
    pub fn finish_at(&mut self, now: Timestamp, id: &EndpointId, found: Verdict) -> Option<Verdict> {
        let checked = self.endpoints.get_mut(id)?;
        checked.next = Some(now.saturating_add(self.config.pause()));
        if checked.verdict == Some(found) {
            checked.against = 0;
            return checked.verdict;
        }
        checked.against += 1;
        let threshold = match (checked.verdict, found) {
            (None, _) => NonZeroU32::MIN,
            (_, Verdict::Passes) => self.config.healthy_threshold,
            (_, Verdict::Fails) => self.config.unhealthy_threshold,
        };
        if checked.against >= threshold.get() {
            checked.verdict = Some(found);
            checked.against = 0;
        }
        checked.verdict
    }

    /// When the next check is due; `None` if there is nothing to check, or as many checks are running as may.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.places_left() == 0 {
            return None;
        }
        self.endpoints.values().filter_map(|checked| checked.next).min()
    }

    /// Endpoints whose checks are kept in mind.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is nothing to check.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn ids(names: &[&str]) -> Vec<EndpointId> {
        names.iter().map(|&name| EndpointId::from(name)).collect()
    }

    fn checks() -> Checks {
        let max_concurrent = NonZeroU32::new(2).unwrap();
        Checks::new(CheckConfig { jitter_percent: 0, max_concurrent, ..CheckConfig::new() })
    }

    #[test]
    fn the_first_finding_decides_and_later_ones_by_their_threshold() {
        let mut checks = checks();
        let present = ids(&["a"]);
        let mut now = 0;
        let mut find = |verdict| {
            assert_eq!(checks.begin_at(at(now), &present), present);
            let counts = checks.finish_at(at(now), &present[0], verdict);
            now += 10;
            counts.unwrap()
        };
        use Verdict::{Fails, Passes};
        assert_eq!(find(Fails), Fails);
        assert_eq!([find(Passes), find(Passes)], [Fails, Passes]);
        assert_eq!([find(Fails), find(Fails), find(Passes)], [Passes; 3], "a passed check breaks the row");
        assert_eq!([find(Fails), find(Fails), find(Fails)], [Passes, Passes, Fails]);
    }

    #[test]
    fn no_more_run_at_once_than_the_limit_and_each_waits_for_its_interval() {
        let mut checks = checks();
        let present = ids(&["a", "b", "c"]);
        assert_eq!(checks.begin_at(at(0), &present), ids(&["a", "b"]));
        assert_eq!(checks.begin_at(at(0), &present), []);
        assert_eq!(
            checks.next_due(),
            None,
            "one that is due has to wait for another one's end, and nobody for it"
        );
        checks.finish_at(at(1), &present[0], Verdict::Passes);
        assert_eq!(checks.begin_at(at(1), &present), ids(&["c"]));
        checks.finish_at(at(2), &present[1], Verdict::Passes);
        assert_eq!(checks.next_due(), Some(at(11)));
    }

    #[test]
    fn who_is_gone_is_forgotten_and_who_stays_keeps_its_verdict() {
        let mut checks = checks();
        let present = ids(&["a", "b"]);
        checks.begin_at(at(0), &present);
        checks.finish_at(at(0), &present[0], Verdict::Fails);
        checks.begin_at(at(1), &present[..1]);
        assert_eq!(checks.len(), 1);
        assert_eq!(checks.finish_at(at(1), &present[1], Verdict::Fails), None, "of one that is gone");
        checks.begin_at(at(10), &present[..1]);
        let counts = checks.finish_at(at(10), &present[0], Verdict::Passes);
        assert_eq!(counts, Some(Verdict::Fails), "it is known to fail, and one check is not enough");
    }
}
