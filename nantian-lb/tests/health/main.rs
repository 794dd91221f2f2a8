//! What a balancer makes of endpoints that fail, are slow, start, drain, or are far away.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::time::Duration;

use http::HeaderName;
use nantian_lb::health::{Health, OutlierConfig};
use nantian_lb::{
    BalanceConfig, Balancer, Endpoint, HashKey, Outcome, PickContext, Strategy, clock::ManualClock,
};

mod despair;
mod ejection;
mod preference;
mod start;
mod times;

const ALL: [Strategy; 5] = [
    Strategy::RoundRobin,
    Strategy::Random,
    Strategy::LeastRequest,
    Strategy::PEAK_EWMA,
    Strategy::ConsistentHash(HashKey::Header(HeaderName::from_static("x-user"))),
];

struct World {
    clock: ManualClock,
    balancer: Balancer<usize>,
}

impl World {
    fn new(n: usize, config: &BalanceConfig) -> Self {
        let clock = ManualClock::new();
        // Not at its origin, as no clock is for long.
        clock.advance(Duration::from_secs(1000));
        let balancer = Balancer::with_clock(endpoints(n), config, clock.clone());
        Self { clock, balancer }
    }

    /// One request for a user of its own, and what becomes of it.
    fn ask(&self, at: usize, outcome: impl Fn(usize) -> Outcome) -> usize {
        let request = http::Request::builder().header("x-user", at).body(()).unwrap();
        let (target, mut in_flight) =
            self.balancer.pick(&PickContext::new().with_keys(&request)).unwrap().into_parts();
        in_flight.record(outcome(target));
        target
    }

    fn tally(&self, requests: usize, outcome: impl Fn(usize) -> Outcome) -> Vec<usize> {
        let mut tally = vec![0; self.balancer.status().len()];
        for at in 0..requests {
            *tally.get_mut(self.ask(at, &outcome)).unwrap() += 1;
        }
        tally
    }

    fn health(&self, at: usize) -> Health {
        self.balancer.status().get(at).unwrap().health
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn endpoints(n: usize) -> Vec<Endpoint<usize>> {
    (0..n).map(|at| Endpoint::new(format!("pod-{at:03}"), at)).collect()
}

fn watched(strategy: Strategy) -> BalanceConfig {
    BalanceConfig::new(strategy).with_outlier(OutlierConfig::new())
}

fn failing(bad: impl Fn(usize) -> bool) -> impl Fn(usize) -> Outcome {
    move |at| if bad(at) { Outcome::GatewayError } else { Outcome::Success }
}
