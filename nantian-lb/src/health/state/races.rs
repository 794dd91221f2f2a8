//! Every interleaving of requests that fail with a new plan, explored by loom.

use std::num::NonZeroU32;
use std::sync::Arc;

use loom::thread;

use super::*;
use crate::clock::ManualClock;
use crate::cluster::Cluster;
use crate::config::BalanceConfig;

struct World {
    cluster: Cluster,
    health: HealthState,
    config: OutlierConfig,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1000));
        let config = OutlierConfig::new().with_consecutive_errors(NonZeroU32::new(2));
        let cluster = Cluster::new(BalanceConfig::default().with_outlier(config.clone()), Arc::new(clock));
        Self { cluster, health: HealthState::new(Timestamp::ORIGIN), config }
    }

    fn note(&self, outcome: Outcome) {
        if self.health.note(outcome, || self.cluster.now(), &self.config) {
            self.cluster.request_replan();
        }
    }

    /// As the balancer plans anew, under its lock.
    fn replan(&self) {
        self.cluster.begin_replan();
        let now = self.cluster.now();
        let mut evaluation =
            Evaluation { now, outlier: Some(&self.config), ejections_left: 1, spares: false };
        self.health.evaluate(&mut evaluation);
        self.cluster.replan_at(self.health.snapshot(now, None).next);
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
        world.replan();
        failing.into_iter().for_each(|thread| thread.join().unwrap());
        if !world.health.is_ejected() {
            assert!(world.cluster.is_due(), "another plan is asked for");
            world.replan();
        }
        assert!(world.health.is_ejected());
        assert_eq!(world.health.ejections(), 1);
    });
}

#[test]
fn an_answer_in_probation_is_never_missed_by_a_look_at_the_same_time() {
    loom::model(|| {
        let world = Arc::new(World::new());
        world.health.verdict.store(PROBATION, Ordering::Relaxed);
        let answered = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.note(Outcome::Success))
        };
        world.replan();
        answered.join().unwrap();
        if world.health.is_ejected() {
            assert!(world.cluster.is_due());
            world.replan();
        }
        assert!(!world.health.is_ejected());
    });
}
