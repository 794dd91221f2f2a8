//! Random histories against a model that keeps every bucket as a rational number in a map.

use std::collections::HashMap;

use nantian_ratelimit::{Cost, Limit, Policy, Settlement, Unit, clock::Timestamp};
use proptest::prelude::*;

use crate::admit::limiter;

/// Levels in tokens times nanoseconds of the window; negative is debt.
struct Model {
    limits: Vec<InForce>,
    changes: usize,
    now: i128,
    levels: HashMap<u8, Vec<i128>>,
}

/// A limit in force.
#[derive(Clone)]
struct InForce {
    /// What levels are of and refill by: where all is denied, the limit before.
    bucket: Limit,
    is_closed: bool,
    /// By which change it came to be.
    born: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Pause(u64),
    Admit { key: u8, tokens: u64 },
    Settle { open: usize, settlement: Settlement },
    Cancel { open: usize },
    Change { limits: Vec<Limit> },
}

struct Open<R> {
    reservation: R,
    key: u8,
    cost: Cost,
    limits: Vec<InForce>,
}

impl InForce {
    fn new(limit: &Limit, born: usize) -> Self {
        let is_closed = limit.max() == 0;
        let least = Limit::new(limit.name().clone(), limit.unit(), 1, limit.window());
        Self { bucket: if is_closed { least } else { limit.clone() }, is_closed, born }
    }

    fn succeeded_by(&self, limit: &Limit) -> Self {
        let next = Self::new(limit, self.born);
        if next.is_closed { Self { bucket: self.bucket.clone(), ..next } } else { next }
    }

    fn is_the_same(&self, limit: &Limit) -> bool {
        (self.bucket.unit(), self.bucket.window()) == (limit.unit(), limit.window())
    }
}

impl Model {
    fn new(limits: &[Limit]) -> Self {
        let limits = limits.iter().map(|limit| InForce::new(limit, 0)).collect();
        Self { changes: 0, limits, now: 0, levels: HashMap::new() }
    }

    fn window(limit: &Limit) -> i128 {
        i128::try_from(limit.window().as_nanos()).unwrap()
    }

    fn full(limit: &Limit) -> i128 {
        i128::from(limit.capacity()) * Self::window(limit)
    }

    fn levels(&mut self, key: u8) -> &mut Vec<i128> {
        let limits = &self.limits;
        self.levels
            .entry(key)
            .or_insert_with(|| limits.iter().map(|limit| Self::full(&limit.bucket)).collect())
    }

    fn pause(&mut self, nanos: u64) {
        self.now += i128::from(nanos);
        for levels in self.levels.values_mut() {
            for (level, InForce { bucket: limit, .. }) in levels.iter_mut().zip(&self.limits) {
                *level += i128::from(nanos) * i128::from(limit.max());
                *level = Self::full(limit).min(*level);
            }
        }
    }

    fn counted(limit: &Limit, cost: Cost) -> u64 {
        match limit.unit() {
            Unit::Requests => cost.requests,
            _ => cost.tokens,
        }
    }

    fn reserved(limit: &Limit, cost: Cost) -> i128 {
        i128::from(Self::counted(limit, cost).min(limit.capacity())) * Self::window(limit)
    }

    fn admit(&mut self, key: u8, cost: Cost) -> bool {
        let limits = self.limits.clone();
        let levels = self.levels(key);
        let mut both = levels.iter().zip(&limits);
        let fits = both.all(|(level, InForce { bucket, is_closed, .. })| {
            let need = Self::reserved(bucket, cost);
            Self::counted(bucket, cost) == 0 || (!is_closed && *level >= need)
        });
        if fits {
            for (level, limit) in levels.iter_mut().zip(&limits) {
                *level -= Self::reserved(&limit.bucket, cost);
            }
        }
        fits
    }

    /// Gives back (or takes, if negative) on a limit that existed at the time of the charge and has since.
    fn give(&mut self, key: u8, charged: &InForce, amount: i128) {
        let is_meant = |limit: &InForce| limit.is_the_same(&charged.bucket) && limit.born == charged.born;
        let Some(position) = self.limits.iter().position(is_meant) else {
            return;
        };
        let limit = self.limits[position].bucket.clone();
        let level = &mut self.levels(key)[position];
        let floor = -i128::from(limit.max()) * Self::window(&limit);
        *level = if amount < 0 {
            (*level + amount).max(floor.min(*level))
        } else {
            (*level + amount).min(Self::full(&limit))
        };
    }

    fn change(&mut self, limits: &[Limit]) {
        self.changes += 1;
        let twins = limits.iter().map(|limit| self.limits.iter().position(|old| old.is_the_same(limit)));
        let twins: Vec<Option<usize>> = twins.collect();
        let next = limits.iter().zip(&twins).map(|(limit, twin)| match twin {
            Some(twin) => self.limits[*twin].succeeded_by(limit),
            None => InForce::new(limit, self.changes),
        });
        let next: Vec<InForce> = next.collect();
        for levels in self.levels.values_mut() {
            let carried = next.iter().zip(&twins).map(|(InForce { bucket, .. }, twin)| {
                let used = twin.map_or(0, |twin| Self::full(&self.limits[twin].bucket) - levels[twin]);
                let debt = i128::from(bucket.max()) * Self::window(bucket);
                (Self::full(bucket) - used).max(-debt)
            });
            *levels = carried.collect();
        }
        self.limits = next;
    }
}

/// Amounts that divide their windows, for which the limiter is exact.
fn any_limits() -> impl Strategy<Value = Vec<Limit>> {
    let amount = || prop::sample::select(vec![0u64, 1, 10, 60, 100, 300]);
    let burst = || prop::sample::select(vec![1.0, 1.5, 2.0]);
    let all = (amount(), amount(), amount(), burst()).prop_map(|(rpm, tpm, tph, burst)| {
        vec![
            Limit::requests_per_minute(rpm).with_burst(burst),
            Limit::tokens_per_minute(tpm).with_burst(burst),
            Limit::tokens_per_hour(tph),
        ]
    });
    (all, 1..8u8).prop_map(|(limits, chosen)| {
        let limits = limits.into_iter().enumerate();
        let chosen = limits.filter(|(i, _)| chosen & (1 << i) != 0);
        chosen.map(|(_, limit)| limit).collect()
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let settlement = prop_oneof![
        (0..200u64).prop_map(Settlement::Used),
        (0..200u64).prop_map(Settlement::AtLeast),
        Just(Settlement::AsReserved),
        Just(Settlement::NotServed),
    ];
    prop_oneof![
        2 => prop_oneof![0..2_000_000_000u64, 0..100_000_000_000u64].prop_map(Step::Pause),
        8 => (0..4u8, 0..150u64).prop_map(|(key, tokens)| Step::Admit { key, tokens }),
        3 => (any::<usize>(), settlement)
            .prop_map(|(open, settlement)| Step::Settle { open, settlement }),
        1 => any::<usize>().prop_map(|open| Step::Cancel { open }),
        1 => any_limits().prop_map(|limits| Step::Change { limits }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_history_is_decided_as_by_the_model(
        limits in any_limits(),
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut model = Model::new(&limits);
        let mut limiter = limiter(limits);
        let mut open = Vec::new();
        let mut now = Timestamp::ORIGIN;
        for step in steps {
            match step {
                Step::Pause(nanos) => {
                    now = Timestamp::from_nanos(now.as_nanos() + nanos);
                    model.pause(nanos);
                }
                Step::Admit { key, tokens } => {
                    let cost = Cost::tokens(tokens);
                    let admitted = limiter.admit_at(now, limiter.key(&[key]), cost);
                    prop_assert_eq!(admitted.is_ok(), model.admit(key, cost));
                    let limits = model.limits.clone();
                    open.extend(admitted.ok().map(|admitted| admitted.reserve()).map(|reservation| Open { reservation, key, cost, limits }));
                }
                Step::Settle { open: chosen, settlement } if !open.is_empty() => {
                    let Open { reservation, key, cost, limits } = open.remove(chosen % open.len());
                    reservation.settle_at(now, settlement);
                    for limit in limits.iter().filter(|limit| limit.bucket.unit() == Unit::Tokens) {
                        let reserved = Model::reserved(&limit.bucket, cost);
                        let window = Model::window(&limit.bucket);
                        let amount = match settlement {
                            Settlement::Used(used) => reserved - i128::from(used) * window,
                            Settlement::AtLeast(used) => {
                                reserved - (i128::from(used) * window).max(reserved)
                            }
                            Settlement::NotServed => reserved,
                            _ => 0,
                        };
                        model.give(key, limit, amount);
                    }
                }
                Step::Cancel { open: chosen } if !open.is_empty() => {
                    let Open { reservation, key, cost, limits } = open.remove(chosen % open.len());
                    reservation.cancel_at(now);
                    for limit in &limits {
                        model.give(key, limit, Model::reserved(&limit.bucket, cost));
                    }
                }
                Step::Change { limits } => {
                    let policy = limits.iter().cloned().fold(Policy::builder(), |p, l| p.limit(l));
                    limiter = limiter.successor_at(now, policy.build().unwrap());
                    model.change(&limits);
                }
                _ => {}
            }
            for key in 0..4 {
                let levels = limiter.levels_at(now, limiter.key(&[key]));
                let expected = model.levels(key).clone();
                for ((level, exact), limit) in levels.iter().zip(expected).zip(&model.limits) {
                    let exact = if limit.is_closed { 0 } else { exact };
                    let exact = exact.div_euclid(Model::window(level.limit)).max(0);
                    prop_assert_eq!(i128::from(level.remaining), exact);
                }
            }
        }
    }
}
