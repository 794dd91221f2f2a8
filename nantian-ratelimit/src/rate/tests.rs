use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limit::{LimitName, Unit};

/// A token bucket in rationals: tokens times the window in nanoseconds.
struct Exact {
    level: i128,
    full: i128,
    max: i128,
    window: i128,
    at: i128,
}

impl Exact {
    fn of(limit: &Limit) -> Self {
        let window = i128::try_from(limit.window().as_nanos()).unwrap();
        let full = i128::from(limit.capacity()) * window;
        Self { level: full, full, max: i128::from(limit.max()), window, at: 0 }
    }

    fn level_at(&mut self, now: u64) -> i128 {
        let now = i128::from(now);
        self.level = self.full.min(self.level + (now - self.at) * self.max);
        self.at = now;
        self.level
    }

    fn take(&mut self, items: u64) {
        self.level -= i128::from(items) * self.window;
    }

    /// What refills in one nanosecond.
    fn slack(&self) -> i128 {
        if self.window % self.max == 0 { 0 } else { self.max }
    }
}

fn limit(max: u64, seconds: u64, burst: f64) -> Limit {
    let name = LimitName::new("test").unwrap();
    Limit::new(name, Unit::Tokens, max, Duration::from_secs(seconds)).with_burst(burst)
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn any_limit() -> impl Strategy<Value = Limit> {
    let max = prop_oneof![1..20u64, 1..1_000_000_000u64, Just(100_000), Just(60)];
    let window = prop_oneof![Just(1u64), Just(60), Just(3600), Just(2_678_400)];
    (max, window, 1.0..4.0f64).prop_map(|(max, window, burst)| limit(max, window, burst))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Costs are given in 64ths of the bucket and pauses in 64ths of the window, so that both verdicts occur.
    #[test]
    fn verdicts_are_those_of_an_exact_bucket(
        limit in any_limit(),
        steps in prop::collection::vec((0..20u64, 0..1000u64, 0..48u64), 1..200),
    ) {
        let rate = Rate::of(&limit);
        let mut exact = Exact::of(&limit);
        let window = nanos(limit.window());
        let (mut now, mut tat) = (0, 0);
        for (pause, jitter, share) in steps {
            now += window / 64 * pause + jitter;
            let cost = (limit.capacity() * share / 64).max(1);
            let level = exact.level_at(now);
            let needed = i128::from(cost) * exact.window;
            match rate.charge(tat, rate.tick(at(now)), cost) {
                Some(charged) => {
                    prop_assert!(level >= needed - exact.slack(), "admitted without room");
                    tat = charged;
                    exact.take(cost);
                }
                None => prop_assert!(level < needed + exact.slack(), "denied despite room"),
            }
        }
    }

    #[test]
    fn a_denied_cost_fits_when_told_and_not_a_nanosecond_earlier(
        limit in any_limit(),
        start in 0..1u64 << 50,
        share in 1..=64u64,
    ) {
        let rate = Rate::of(&limit);
        let tat = rate.charge(0, rate.tick(at(start)), limit.capacity()).unwrap();
        let cost = (limit.capacity() * share / 64).max(1);
        prop_assert!(rate.charge(tat, rate.tick(at(start)), cost).is_none());
        let until = rate.room_at(tat, rate.tick(at(start)), cost).unwrap();
        prop_assert!(rate.charge(tat, rate.tick(until), cost).is_some());
        let earlier = at(until.as_nanos() - 1);
        prop_assert!(rate.charge(tat, rate.tick(earlier), cost).is_none());
    }

    #[test]
    fn a_full_bucket_holds_exactly_its_capacity(limit in any_limit(), start in 0..1u64 << 60) {
        let rate = Rate::of(&limit);
        let tick = rate.tick(at(start));
        prop_assert_eq!(rate.remaining(0, tick), limit.capacity());
        let empty = rate.charge(0, tick, limit.capacity()).unwrap();
        prop_assert_eq!(rate.remaining(empty, tick), 0);
        prop_assert!(rate.charge(empty, tick, 1).is_none());
    }

    #[test]
    fn a_reservation_settled_at_once_is_a_charge_of_what_was_used(
        limit in any_limit(),
        start in 0..1u64 << 50,
        reserved in 0..=64u64,
        used in 0..=64u64,
    ) {
        let rate = Rate::of(&limit);
        let tick = rate.tick(at(start));
        let [reserved, used] = [reserved, used].map(|share| limit.capacity() * share / 64);
        let held = rate.charge(0, tick, reserved).unwrap();
        let settled = if used > reserved {
            rate.debit(held, tick, used - reserved).tat
        } else {
            rate.refund(held, tick, reserved - used)
        };
        prop_assert_eq!(settled, rate.charge(0, tick, used).unwrap());
    }

    #[test]
    fn a_refund_never_overfills(limit in any_limit(), start in 0..1u64 << 50, items: u64) {
        let rate = Rate::of(&limit);
        let tick = rate.tick(at(start));
        let held = rate.charge(0, tick, limit.capacity()).unwrap();
        let refunded = rate.refund(held, tick, items);
        prop_assert!(refunded >= tick);
        prop_assert_eq!(rate.refund(5.min(tick), tick, items), 5.min(tick));
    }

    #[test]
    fn debt_is_paid_off_within_a_window(limit in any_limit(), start in 0..1u64 << 50, items: u64) {
        let rate = Rate::of(&limit);
        let tick = rate.tick(at(start));
        let empty = rate.charge(0, tick, limit.capacity()).unwrap();
        let indebted = rate.debit(empty, tick, items);
        let taken = items - indebted.forgiven;
        prop_assert!(taken <= limit.max());
        let window = nanos(limit.window());
        prop_assert!(rate.charge(indebted.tat, rate.tick(at(start + 2 * window)), 1).is_some());
    }

    #[test]
    fn another_amount_keeps_what_was_used(
        from in any_limit(),
        to in any_limit(),
        start in 0..1u64 << 50,
        share in 0..=64u64,
    ) {
        let (old, new) = (Rate::of(&from), Rate::of(&to));
        let now = at(start);
        let used = from.capacity() * share / 64;
        let tat = old.charge(0, old.tick(now), used).unwrap();
        let converted = old.convert(tat, &new, now);
        let left = new.remaining(converted, new.tick(now));
        prop_assert_eq!(left, to.capacity().saturating_sub(used));
    }

    #[test]
    fn a_tick_is_the_exact_quotient_rounded_down(limit in any_limit(), now in 0..=Timestamp::END.as_nanos()) {
        let rate = Rate::of(&limit);
        let exact = u128::from(now) * u128::from(rate.speed) / u128::from(rate.window);
        prop_assert_eq!(u128::from(rate.tick(at(now))), exact);
        // Where the quotient has no remainder, and a nanosecond before.
        let even = now / rate.window * rate.window;
        prop_assert_eq!(rate.tick(at(even)), even / rate.window * rate.speed);
        if let Some(before) = even.checked_sub(1) {
            prop_assert!(rate.tick(at(before)) < rate.tick(at(even)));
        }
    }

    #[test]
    fn no_time_and_no_amount_overflows(
        limit in any_limit(), now: u64, tat in 0..u64::MAX - 1, items: u64,
    ) {
        let rate = Rate::of(&limit);
        let tick = rate.tick(at(now));
        for time in [tick, rate.tick(at(u64::MAX)), 0] {
            if let Some(charged) = rate.charge(tat.min(time), time, items) {
                prop_assert!(charged < u64::MAX);
            }
            prop_assert!(rate.debit(tat, time, items).tat < u64::MAX);
            rate.refund(tat, time, items);
            rate.remaining(tat, time);
            rate.full_at(tat);
        }
    }
}

#[test]
fn a_unit_is_a_nanosecond_when_the_amount_divides_the_window() {
    let rate = Rate::of(&limit(100_000, 60, 1.5));
    assert_eq!(rate.tick(at(123_456_789)), 123_456_789);
    let charged = rate.charge(0, 0, 1).unwrap();
    assert_eq!(charged, 600_000);
}

#[test]
fn a_long_run_admits_the_amount_even_if_it_divides_nothing() {
    let limit = limit(7_777_777, 60, 1.0);
    let rate = Rate::of(&limit);
    let hour = 3_600_000_000_000;
    let (mut now, mut tat, mut admitted) = (0, 0, 0);
    while now < hour {
        match rate.charge(tat, rate.tick(at(now)), 77_777) {
            Some(charged) => {
                tat = charged;
                admitted += 77_777;
            }
            None => now = rate.room_at(tat, rate.tick(at(now)), 77_777).unwrap().as_nanos(),
        }
    }
    let expected = 61 * limit.max();
    assert!((expected - 77_777..=expected).contains(&admitted), "{admitted} of {expected}");
}

#[test]
fn a_cost_above_the_capacity_waits_for_a_full_bucket_and_takes_it() {
    let rate = Rate::of(&limit(60, 60, 1.0));
    let second = 1_000_000_000;
    let tat = rate.charge(0, 0, 1_000_000).unwrap();
    assert_eq!(rate.remaining(tat, 0), 0);
    let until = rate.room_at(tat, 30 * second, 1_000_000).unwrap();
    assert_eq!(until, at(60 * second));
}
