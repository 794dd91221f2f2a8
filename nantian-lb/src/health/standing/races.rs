//! Every interleaving of requests that fail with a look at the endpoint, explored by loom.

use std::num::NonZeroU32;
use std::sync::Arc;

use loom::thread;

use super::*;
use crate::clock::ManualClock;
use crate::config::BalanceConfig;
use crate::group::Group;

struct World {
    group: Group,
    standing: Standing,
    config: OutlierConfig,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1000));
        let config = OutlierConfig::new().with_consecutive_errors(NonZeroU32::new(2));
        let group = Group::new(BalanceConfig::default().with_outlier(config.clone()), Arc::new(clock));
        Self { group, standing: Standing::new(Timestamp::ORIGIN), config }
    }

    fn note(&self, outcome: Outcome) {
        if self.standing.note(outcome, || self.group.now(), &self.config) {
            self.group.ask_for_a_look();
        }
    }

    /// As the balancer looks, under its lock.
    fn look(&self) {
        self.group.begin_look();
        let now = self.group.now();
        let mut settlement =
            Settlement { now, outlier: Some(&self.config), ejections_left: 1, spares: false };
        self.standing.settle(&mut settlement);
        self.group.look_at(self.standing.condition(now, None).next);
    }
}

#[test]
fn the_last_failure_is_never_missed_by_a_look_at_the_same_time() {
    loom::model(|| {
        let world = Arc::new(World::new());
        let failing = [(); 2].map(|()| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.note(Outcome::Unreachable))
        });
        world.look();
        failing.into_iter().for_each(|thread| thread.join().unwrap());
        if !world.standing.is_ejected() {
            assert!(world.group.is_due(), "another look is asked for");
            world.look();
        }
        assert!(world.standing.is_ejected());
        assert_eq!(world.standing.ejections(), 1);
    });
}

#[test]
fn an_answer_in_probation_is_never_missed_by_a_look_at_the_same_time() {
    loom::model(|| {
        let world = Arc::new(World::new());
        world.standing.verdict.store(PROBATION, Ordering::Relaxed);
        let answered = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.note(Outcome::Success))
        };
        world.look();
        answered.join().unwrap();
        if world.standing.is_ejected() {
            assert!(world.group.is_due());
            world.look();
        }
        assert!(!world.standing.is_ejected());
    });
}
