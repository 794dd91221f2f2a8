//! Hours of streams with random lengths, offered five times as fast as the limit allows, in simulated time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use nantian_ratelimit::{Cost, Limit, Limiter, OutputEstimate, Reservation, Settlement, clock::Timestamp};

use crate::admit::limiter;

const PER_MINUTE: u64 = 100_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// A seeded source of numbers.
struct Random(u64);

impl Random {
    /// Evenly from 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }

    /// About normal, mean 0, deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Tokens of a response: log-normal, with this mean.
    fn tokens(&mut self, mean: f64) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "six deviations are far below u64::MAX")]
        let tokens = (mean * (0.8 * self.normal() - 0.32).exp()) as u64;
        tokens
    }

    /// How long a response streams: about as long as `mean`, a quarter more or less.
    fn stream(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(0.75 + 0.5 * self.unit())
    }
}

/// How many ask, again as soon as they have their response or may ask again, and what responses are like.
#[derive(Clone, Copy, Debug)]
struct Load {
    clients: usize,
    /// Tokens.
    mean: f64,
    stream: Duration,
}

/// What a client does next, and when.
enum Event {
    Ask,
    Finish(Reservation, u64),
}

/// When responses ended and what they used, where so much is expected of each.
fn simulate(
    limit: Limit,
    seed: u64,
    minutes: u64,
    load: Load,
    expected: impl Fn(&Limiter) -> u64,
    learn: impl Fn(u64),
) -> Vec<(u64, u64)> {
    let limiter = limiter([limit]);
    let key = limiter.key(b"everyone");
    let mut random = Random(seed);
    let mut queue: BinaryHeap<Reverse<(u64, usize)>> =
        (0..load.clients).map(|client| Reverse((0, client))).collect();
    let mut next: Vec<Event> = (0..load.clients).map(|_| Event::Ask).collect();
    let mut used = Vec::new();
    while let Some(Reverse((time, client))) =
        queue.pop().filter(|Reverse((time, _))| *time < minutes * MINUTE)
    {
        let now = Timestamp::from_nanos(time);
        let wait = match std::mem::replace(&mut next[client], Event::Ask) {
            Event::Finish(reservation, tokens) => {
                reservation.settle_at(now, Settlement::Used(tokens));
                learn(tokens);
                used.push((time, tokens));
                Duration::ZERO
            }
            Event::Ask => match limiter.admit_at(now, key, Cost::tokens(expected(&limiter).max(1))) {
                Ok(admitted) => {
                    next[client] = Event::Finish(admitted.reserve(), random.tokens(load.mean));
                    random.stream(load.stream)
                }
                Err(denied) => denied.retry_after().unwrap(),
            },
        };
        queue.push(Reverse((now.saturating_add(wait).as_nanos(), client)));
    }
    used
}

/// The long run, and the worst minute by when responses ended, in limits; after five minutes.
fn long_run_and_worst_minute(used: &[(u64, u64)], minutes: u64) -> (f64, f64) {
    let first = used.partition_point(|(time, _)| *time < 5 * MINUTE);
    let warm = &used[first..];
    let total: u64 = warm.iter().map(|(_, tokens)| tokens).sum();
    let (mut worst, mut minute, mut first) = (0, 0, 0);
    for (time, tokens) in warm {
        minute += tokens;
        while warm[first].0 + MINUTE <= *time {
            minute -= warm[first].1;
            first += 1;
        }
        worst = minute.max(worst);
    }
    (total as f64 / (PER_MINUTE * (minutes - 5)) as f64, worst as f64 / PER_MINUTE as f64)
}

/// In overload a bucket is never full: the burst plays no part. What does is how much of a minute's limit one
/// answer is, for their lengths are random, and how late these are known: `docs/decisions/limits.md`.
#[test]
fn learned_reservations_hold_the_long_run_and_every_minute() {
    for (mean, seconds, bound) in [(1400.0, 8, 1.4), (1400.0, 40, 1.65), (6700.0, 40, 2.6)] {
        let load = Load { clients: 50, mean, stream: Duration::from_secs(seconds) };
        for (burst, seed) in [(1.0, 1), (1.0, 2), (1.5, 1), (1.5, 3)] {
            assert_held(load, burst, seed, 240, bound);
        }
    }
}

/// So many clients, and such slow streams, that they offer five times the limit.
#[test]
fn every_minute_of_many_slow_streams_is_within_the_burst_and_some() {
    let load = Load { clients: 250, mean: 1400.0, stream: Duration::from_secs(40) };
    for seed in [3, 4] {
        assert_held(load, 1.5, seed, 125, 1.65);
    }
}

/// Whether what is expected of answers is learnt by their model or by the limiter.
fn assert_held(load: Load, burst: f64, seed: u64, minutes: u64, bound: f64) {
    let limit = Limit::tokens_per_minute(PER_MINUTE).with_burst(burst);
    let (outputs, bucket) = (OutputEstimate::default(), limit.capacity());
    let expected = |_: &Limiter| outputs.expect(None, bucket);
    let learn = |tokens| outputs.learn(tokens, None);
    let by_model = simulate(limit.clone(), seed, minutes, load, expected, learn);
    let by_limiter = simulate(limit, seed, minutes, load, Limiter::typical_tokens, |_| {});
    for (name, used) in [("the model", by_model), ("the limiter", by_limiter)] {
        let (share, worst) = long_run_and_worst_minute(&used, minutes);
        let case = format!("{load:?}, burst {burst}, seed {seed}, expected by {name}");
        assert!((0.98..=1.01).contains(&share), "{case}: {share} of the limit in the long run");
        assert!(worst <= bound, "{case}: {worst} of the limit in the worst minute");
    }
}

/// Of a model that nobody knows yet: not a window of any length sees more than its refill, the burst and 0.15
/// of the limit.
#[test]
fn expected_answers_hold_every_window_from_a_cold_start() {
    for (per_minute, burst, mean) in
        [(100_000, 1.0, 1400.0), (100_000, 1.5, 1400.0), (20_000, 1.0, 300.0), (20_000, 1.5, 300.0)]
    {
        let mut first_answers = 0.0;
        for seed in 1..=10 {
            let limit = Limit::tokens_per_minute(per_minute).with_burst(burst);
            let (outputs, bucket) = (OutputEstimate::default(), limit.capacity());
            let expected = |_: &Limiter| outputs.expect(None, bucket);
            let load = Load { clients: 50, mean, stream: Duration::from_secs(8) };
            let used = simulate(limit, seed, 10, load, expected, |tokens| outputs.learn(tokens, None));
            let (mut level, mut last, mut worst) = (0.0_f64, 0, 0.0_f64);
            for (time, tokens) in &used {
                let refill = (time - last) as f64 / MINUTE as f64;
                level = (level - refill).max(0.0) + *tokens as f64 / per_minute as f64;
                (last, worst) = (*time, level.max(worst));
            }
            assert!(
                worst <= burst + 0.15,
                "{per_minute}, burst {burst}, seed {seed}: {worst} of the limit at once"
            );
            first_answers += used.iter().filter(|(time, _)| *time < MINUTE).count() as f64;
        }
        let share = first_answers * mean / 10.0 / per_minute as f64;
        assert!(share > 0.8, "{per_minute}: only {share} of the limit is used in the first minute");
    }
}

/// A bucket that what is expected of an unknown model would not fit into is used all the same.
#[test]
fn small_limits_are_used_from_a_cold_start() {
    let limit = Limit::tokens_per_minute(500);
    let (outputs, bucket) = (OutputEstimate::default(), limit.capacity());
    let limiter = limiter([limit]);
    let key = limiter.key(b"one");
    let now = Timestamp::ORIGIN;
    let mut answers = 0;
    while let Ok(admitted) = limiter.admit_at(now, key, Cost::tokens(outputs.expect(None, bucket))) {
        admitted.reserve().settle_at(now, Settlement::Used(20));
        outputs.learn(20, None);
        answers += 1;
    }
    assert!(answers >= 18, "{answers} of 25 answers of 20 tokens at once");
}
