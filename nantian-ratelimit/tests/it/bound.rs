//! What requests use, over any window, whatever was expected of them.

use nantian_ratelimit::{Cost, Limit, Reservation, Settlement, clock::Timestamp};
use proptest::prelude::*;

use crate::admit::{limiter, seconds};

const PER_MINUTE: u64 = 600;
const TOKEN: u64 = 60_000_000_000 / PER_MINUTE;

/// An admitted request.
struct Served {
    admitted: Timestamp,
    reserved: u64,
    used: u64,
    /// How many requests had been admitted when it was settled.
    settled_before: usize,
}

impl Served {
    fn excess(&self) -> u64 {
        self.reserved.saturating_sub(self.used)
    }

    fn debt(&self) -> u64 {
        self.used.saturating_sub(self.reserved)
    }
}

/// A step: what is expected, what is used, how long until the next step, how many requests are on their way.
fn step() -> impl Strategy<Value = (u64, u64, u64, usize)> {
    let tokens = || prop_oneof![0..20_u64, 0..PER_MINUTE, 0..3 * PER_MINUTE];
    (tokens(), tokens(), prop_oneof![Just(0), 0..30_u64, 0..90_u64], 0..6_usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_used_is_the_bucket_the_refill_the_excess_at_the_start_and_debt(
        burst in prop_oneof![Just(1.0), Just(1.5), Just(3.0)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let limit = Limit::tokens_per_minute(PER_MINUTE).with_burst(burst);
        let bucket = limit.capacity();
        let limiter = limiter([limit]);
        let key = limiter.key(b"k");
        let mut now = Timestamp::ORIGIN;
        let mut served: Vec<Served> = Vec::new();
        let mut open: Vec<(usize, Reservation)> = Vec::new();
        for (expected, used, pause, on_their_way) in steps {
            if let Ok(admitted) = limiter.admit_at(now, key, Cost::tokens(expected)) {
                open.push((served.len(), admitted.reserve()));
                let reserved = expected.min(bucket);
                served.push(Served { admitted: now, reserved, used, settled_before: usize::MAX });
            }
            now = now.saturating_add(seconds(pause).since(Timestamp::ORIGIN));
            while open.len() > on_their_way {
                // Neither the first nor the last to come is always the first to end.
                let (position, reservation) = open.swap_remove(on_their_way);
                let settled = reservation.settle_at(now, Settlement::Used(served[position].used));
                prop_assert!(settled.forgiven <= served[position].debt());
                served[position].settled_before = served.len();
            }
        }
        for (first, begin) in served.iter().enumerate() {
            let on_their_way = served[..first].iter().filter(|request| request.settled_before > first);
            let excess: u64 = on_their_way.map(Served::excess).sum();
            let (mut used, mut debt) = (0, 0);
            for end in &served[first..] {
                (used, debt) = (used + end.used, debt + end.debt());
                let refill = (end.admitted.as_nanos() - begin.admitted.as_nanos()) / TOKEN;
                prop_assert!(used <= bucket + refill + excess + debt, "{used} of {bucket} + {refill} + {excess} + {debt}");
            }
        }
    }
}

/// The excess is no slack of the proof: two buckets at one instant.
#[test]
fn what_was_reserved_in_excess_is_used_besides_the_bucket() {
    let limiter = limiter([Limit::tokens_per_minute(60)]);
    let key = limiter.key(b"k");
    let reserve =
        |time| limiter.admit_at(seconds(time), key, Cost::tokens(60)).map(|admitted| admitted.reserve());
    let unused = reserve(0).unwrap();
    assert!(reserve(60).is_ok() && reserve(60).is_err());
    unused.settle_at(seconds(60), Settlement::Used(0));
    assert!(reserve(60).is_ok() && reserve(60).is_err());
}
