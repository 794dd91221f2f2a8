//! Queues in simulated time: what a strategy does to response times, the same on every machine.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use nantian_lb::{
    BalanceConfig, Balancer, Endpoint, InFlight, Outcome, PickContext, Strategy,
    clock::{Clock, ManualClock, Timestamp},
};

/// The mean time that a usual server works on a request.
const SERVICE: Duration = Duration::from_millis(10);

/// Servers that work on one request after the other, for exponentially distributed times.
struct Simulation {
    /// How many times as long as usual each takes.
    slowness: Vec<f64>,
    /// Requests in the mean service time of one usual server.
    rate: f64,
    requests: usize,
}

/// A response that is due.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due(Reverse<Timestamp>, usize);

impl Simulation {
    /// The time under which 99 % of the responses stay, in mean service times of a usual server.
    fn p99(&self, strategy: Strategy) -> f64 {
        let clock = ManualClock::new();
        let endpoints = (0..self.slowness.len()).map(|at| Endpoint::new(format!("{at:03}"), at));
        let balancer = Balancer::with_clock(endpoints, &BalanceConfig::new(strategy), clock.clone());
        let mut rng = fastrand::Rng::with_seed(11);
        let mut exponential = |mean: Duration| mean.mul_f64(-(1.0 - rng.f64()).ln());
        let mut free_at = vec![Timestamp::default(); self.slowness.len()];
        let mut due = BinaryHeap::new();
        let mut open = Vec::<Option<InFlight>>::new();
        let mut took = Vec::new();
        let mut arrival = Timestamp::default();
        let mut draws = fastrand::Rng::with_seed(12);
        for number in 0..self.requests {
            arrival = arrival.saturating_add(exponential(SERVICE.div_f64(self.rate)));
            while due.peek().is_some_and(|Due(Reverse(at), _)| *at <= arrival) {
                let Due(Reverse(at), number) = due.pop().unwrap();
                clock.advance(at.since(clock.now()));
                open.get_mut(number).unwrap().take().unwrap().record(Outcome::Success);
            }
            clock.advance(arrival.since(clock.now()));
            let picked = balancer.pick(&PickContext::seeded(draws.u64(..))).unwrap();
            let (server, in_flight) = picked.into_parts();
            let free = free_at.get_mut(server).unwrap();
            let work = exponential(SERVICE.mul_f64(*self.slowness.get(server).unwrap()));
            *free = (*free).max(arrival).saturating_add(work);
            took.push(free.since(arrival));
            due.push(Due(Reverse(*free), number));
            open.push(Some(in_flight));
        }
        took.sort();
        took.get(took.len() * 99 / 100).unwrap().as_secs_f64() / SERVICE.as_secs_f64()
    }
}

fn one_slow_of(n: usize) -> Vec<f64> {
    let mut slowness = vec![1.0; n];
    *slowness.first_mut().unwrap() = 5.0;
    slowness
}

#[test]
fn one_slow_server_of_twenty_costs_the_loaded_choices_little() {
    let simulation = Simulation { slowness: one_slow_of(20), rate: 0.8 * 20.0, requests: 200_000 };
    let round_robin = simulation.p99(Strategy::RoundRobin);
    let least_request = simulation.p99(Strategy::LeastRequest);
    let peak_ewma = simulation.p99(Strategy::PEAK_EWMA);
    println!(
        "p99 in service times: in turns {round_robin:.0}, least request {least_request:.1}, EWMA {peak_ewma:.1}"
    );
    assert!(round_robin > 100.0);
    assert!(least_request <= 12.0, "{least_request}");
    assert!(peak_ewma <= 9.0, "{peak_ewma}");
}

/// Four servers, one five times slower: must-hold 2 of the balancer, in simulated time.
#[test]
fn a_slow_fourth_server_keeps_the_times_of_the_healthy_three_within_twice() {
    for strategy in [Strategy::LeastRequest, Strategy::PEAK_EWMA] {
        for load in [0.2, 0.5, 0.7, 0.8, 0.9] {
            let rate = load * 3.0;
            let healthy = Simulation { slowness: vec![1.0; 3], rate, requests: 200_000 };
            let mixed = Simulation { slowness: one_slow_of(4), rate, requests: 200_000 };
            let [three, four] = [healthy, mixed].map(|simulation| simulation.p99(strategy.clone()));
            println!("{strategy:?} at {load}: {three:.1} with three, {four:.1} with four");
            assert!(four <= 2.0 * three, "{strategy:?} at {load}: {four} after {three}");
        }
    }
}
