//! Peak EWMA: how long an endpoint takes, as one word that all threads share.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// A moving average of response times that jumps to a new peak at once and forgets it exponentially, or the
/// middle of samples.
///
/// The word holds, from its highest bit on, the average in microseconds (an `f32` without its lowest 8 bits),
/// how rarely requests are timed, and when it was made, in milliseconds since the clock's origin, which wrap
/// after 49 days. 0 is no average.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

/// What the word says.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// In microseconds; 0 if there is none.
    average: f32,
    /// One request in two to the power of this is timed.
    rarity: u32,
    /// Milliseconds since it was made.
    age: u32,
}

/// The word of whom no answer can be expected from: an infinite average.
const INFINITE: u64 = (f32::INFINITY.to_bits() as u64) << 32;

/// How far a sample moves the middle of samples.
const STEP: f32 = 1.125;

/// An average below this is as good as none: what decides is then the number of requests in flight.
const LEAST_MICROS: f32 = 1.0;

/// Of requests that follow one another closer than this, in milliseconds, fewer are timed: they would tell
/// the same.
const CLOSE: u32 = 4;
/// After a time without one, in milliseconds, all are timed again.
const PAUSE: u32 = 64;
/// The rarest of a moving average is one in 8.
const RAREST_OBSERVED: u32 = 3;
/// The rarest of samples is one in 128.
const RAREST_SAMPLED: u32 = 7;

// === impl Latency ===

impl Latency {
    /// Whether a request with this random number is to be timed.
    #[inline]
    pub(crate) fn is_wanted(&self, random: u64) -> bool {
        let rarity = (self.0.load(Relaxed) >> 32) & 7;
        random & ((1 << rarity) - 1) == 0
    }

    /// Takes in that a request took `took`.
    pub(crate) fn observe(&self, now: Timestamp, took: Duration, decay: Duration) {
        let sample = micros(took);
        self.change(now, RAREST_OBSERVED, |Reading { average, age, .. }| {
            let old_share = share_after(age, decay);
            // What is as long as the average counts as a peak, so that it does not fade while it is
            // confirmed.
            if sample >= average { sample } else { average * old_share + sample * (1.0 - old_share) }
        });
    }

    /// Takes in that a request takes at least `took`, and is not over or was given up.
    pub(crate) fn observe_at_least(&self, now: Timestamp, took: Duration, decay: Duration) {
        if micros(took) > self.at(now, decay) {
            self.observe(now, took, decay);
        }
    }

    /// Takes in that a request out of many, drawn at random, took `took`.
    ///
    /// The average is then the middle of the samples: half of them are longer, however much. It does not
    /// fade.
    pub(crate) fn sample(&self, now: Timestamp, took: Duration) {
        let sample = micros(took);
        self.change(now, RAREST_SAMPLED, |Reading { average: middle, .. }| match middle {
            0.0 => sample,
            middle if sample >= middle * STEP => middle * STEP,
            middle if sample <= middle / STEP => middle / STEP,
            _ => sample,
        });
    }

    /// Takes in that a request out of many takes at least `took`, and is not over or was given up.
    pub(crate) fn sample_at_least(&self, now: Timestamp, took: Duration) {
        if micros(took) > self.latest() {
            self.sample(now, took);
        }
    }

    /// Takes in that no answer can be expected: the middle of samples is infinite until the next one.
    pub(crate) fn set_infinite(&self) {
        self.0.store(INFINITE, Relaxed);
    }

    /// Undoes [`set_infinite`](Self::set_infinite): nothing is known.
    pub(crate) fn clear_infinite(&self) {
        // Unless somebody has observed something meanwhile.
        let _ = self.0.compare_exchange(INFINITE, 0, Relaxed, Relaxed);
    }

    /// The average in microseconds as it was made last, 0 if there is none.
    #[inline]
    pub(crate) fn latest(&self) -> f32 {
        average(self.0.load(Relaxed))
    }

    /// Begins with an average of others, if there is none yet.
    pub(crate) fn begin_with(&self, now: Timestamp, micros: f32) {
        let word = self.0.load(Relaxed);
        if matches!(word, 0 | INFINITE) {
            // Somebody may have observed something better meanwhile.
            let _ = self.0.compare_exchange(word, pack(now, micros, 0), Relaxed, Relaxed);
        }
    }

    /// The average in microseconds; one that was not confirmed fades, so that the endpoint is tried again.
    pub(crate) fn at(&self, now: Timestamp, decay: Duration) -> f32 {
        let Reading { average, age, .. } = Reading::of(self.0.load(Relaxed), now);
        let average = if age == 0 { average } else { average * share_after(age, decay) };
        average.max(LEAST_MICROS)
    }

    /// The average, if there is one.
    pub(crate) fn average(&self) -> Option<Duration> {
        let average = self.latest();
        (average > 0.0 && average.is_finite()).then(|| Duration::from_secs_f32(average / 1e6))
    }

    fn change(&self, now: Timestamp, rarest: u32, average: impl Fn(Reading) -> f32) {
        let mut word = self.0.load(Relaxed);
        loop {
            let reading = Reading::of(word, now);
            let new = pack(now, average(reading), reading.next_rarity(rarest));
            match self.0.compare_exchange_weak(word, new, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(present) => word = present,
            }
        }
    }
}

// === impl Reading ===

impl Reading {
    fn of(word: u64, now: Timestamp) -> Self {
        let average = average(word);
        let age = millis(now).wrapping_sub(low_half(word));
        Self {
            average: if average.is_finite() { average } else { 0.0 },
            rarity: low_half(word >> 32) & 7,
            // Threads may note their times a little out of order.
            age: if age > u32::MAX / 2 { 0 } else { age },
        }
    }

    /// How rarely requests are timed after one that was.
    fn next_rarity(self, rarest: u32) -> u32 {
        match self.age {
            PAUSE.. => 0,
            CLOSE.. => self.rarity,
            _ => (self.rarity + 1).min(rarest),
        }
    }
}

fn micros(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1e6
}

/// The share of the old average that is left after `age` milliseconds.
fn share_after(age: u32, decay: Duration) -> f32 {
    if age == 0 { 1.0 - 1e-4 } else { (age as f32 / (decay.as_secs_f32() * -1e3)).exp() }
}

fn millis(at: Timestamp) -> u32 {
    // Wraps, which `Reading` takes into account.
    low_half(at.as_nanos() / 1_000_000)
}

fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}

fn average(word: u64) -> f32 {
    f32::from_bits(low_half(word >> 32) & !0xff)
}

fn pack(now: Timestamp, micros: f32, rarity: u32) -> u64 {
    let micros = if micros.is_finite() { micros.max(LEAST_MICROS) } else { LEAST_MICROS };
    (u64::from(micros.to_bits() & !0xff | rarity) << 32) | u64::from(millis(now))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_by_its_decay() {
        let latency = Latency::default();
        latency.observe(at(0), Duration::from_millis(10), DECAY);
        latency.observe(at(1), Duration::from_millis(500), DECAY);
        assert!((latency.at(at(1), DECAY) - 500_000.0).abs() < 100.0);
        let faded = latency.at(at(10_001), DECAY);
        assert!((faded / 500_000.0 - (-1f32).exp()).abs() < 0.01, "{faded}");
        latency.observe(at(10_001), Duration::from_millis(10), DECAY);
        let average = latency.at(at(10_001), DECAY);
        let expected = 500_000.0 * (-1f32).exp() + 10_000.0 * (1.0 - (-1f32).exp());
        assert!((average / expected - 1.0).abs() < 0.01, "{average} of {expected}");
    }

    #[test]
    fn samples_lead_to_their_middle_whatever_the_longest_takes() {
        let latency = Latency::default();
        assert_eq!(latency.latest(), 0.0);
        for number in 0..2000 {
            // One in ten takes a hundred times as long.
            let millis = if number % 10 == 0 { 1000 } else { 10 };
            latency.sample(at(number * 1000), Duration::from_millis(millis));
        }
        assert!((9_000.0..12_000.0).contains(&latency.latest()), "{}", latency.latest());
        for _ in 0..20 {
            latency.sample(at(0), Duration::from_millis(50));
        }
        assert!((49_000.0..51_000.0).contains(&latency.latest()), "{}", latency.latest());
        latency.sample_at_least(at(0), Duration::from_millis(1));
        assert!(latency.latest() > 49_000.0);
        latency.sample_at_least(at(0), Duration::from_secs(1));
        assert!(latency.latest() > 55_000.0);
    }

    #[test]
    fn what_was_given_up_counts_only_if_it_took_longer() {
        let latency = Latency::default();
        latency.observe(at(0), Duration::from_millis(10), DECAY);
        latency.observe_at_least(at(0), Duration::from_millis(1), DECAY);
        assert!(latency.at(at(0), DECAY) > 9_000.0);
        latency.observe_at_least(at(0), Duration::from_secs(1), DECAY);
        assert!(latency.at(at(0), DECAY) > 990_000.0);
    }

    #[test]
    fn the_time_may_wrap_and_be_noted_out_of_order() {
        let latency = Latency::default();
        let end = u64::from(u32::MAX);
        latency.observe(at(end - 1), Duration::from_millis(10), DECAY);
        assert!(latency.at(at(end + 1), DECAY) > 9_900.0);
        assert!(latency.at(at(end - 50), DECAY) > 9_900.0);
    }

    #[test]
    fn the_closer_requests_follow_one_another_the_fewer_are_timed() {
        let latency = Latency::default();
        let timed = |latency: &Latency| (0..128).filter(|&random| latency.is_wanted(random)).count();
        assert_eq!(timed(&latency), 128);
        (0..20).for_each(|number| latency.sample(at(1000 + number), Duration::from_millis(1)));
        assert_eq!(timed(&latency), 1);
        latency.sample(at(1050), Duration::from_millis(1));
        assert_eq!(timed(&latency), 1, "they are not close, and there was no pause");
        latency.sample(at(1200), Duration::from_millis(1));
        assert_eq!(timed(&latency), 128);
        (0..20).for_each(|_| latency.observe(at(1200), Duration::from_millis(1), DECAY));
        assert_eq!(timed(&latency), 16, "peaks are looked for more often");
    }

    #[test]
    fn after_despair_the_next_sample_is_the_middle() {
        let latency = Latency::default();
        latency.sample(at(1), Duration::from_millis(3));
        latency.set_infinite();
        assert_eq!((latency.latest(), latency.average()), (f32::INFINITY, None));
        assert!(latency.is_wanted(127), "the next one is timed, whichever it is");
        latency.sample(at(2), Duration::from_millis(5));
        assert!((4_900.0..5_001.0).contains(&latency.latest()), "{}", latency.latest());
    }

    #[test]
    fn a_newcomer_begins_with_what_others_take() {
        let latency = Latency::default();
        assert_eq!(latency.average(), None);
        latency.begin_with(at(5), 2_000.0);
        latency.begin_with(at(5), 9_000.0);
        assert_eq!(latency.average(), Some(Duration::from_millis(2)));
        latency.set_infinite();
        latency.begin_with(at(6), 3_000.0);
        assert!((2_999.0..3_001.0).contains(&latency.latest()), "{}", latency.latest());
    }
}
