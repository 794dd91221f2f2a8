//! What a pick costs with its guard, beside the balancer of tower.

use std::hint::black_box;

use divan::Bencher;
use nantian_lb::{BalanceConfig, Balancer, Endpoint, PickContext, Strategy};

const SIZES: [usize; 3] = [10, 100, 1000];

fn main() {
    divan::main();
}

fn balancer(strategy: Strategy, n: usize, weight: impl Fn(usize) -> u32) -> Balancer<usize> {
    let endpoints = (0..n).map(|at| Endpoint::new(format!("pod-{at}"), at).with_weight(weight(at)));
    Balancer::new(endpoints, &BalanceConfig::new(strategy))
}

#[divan::bench(args = SIZES, threads = [1, 2])]
fn round_robin(bencher: Bencher<'_, '_>, n: usize) {
    let balancer = balancer(Strategy::RoundRobin, n, |_| 1);
    bencher.bench(|| balancer.pick(&PickContext::new()).is_ok());
}

#[divan::bench(args = SIZES, threads = [1, 2])]
fn least_request(bencher: Bencher<'_, '_>, n: usize) {
    let balancer = balancer(Strategy::LeastRequest, n, |_| 1);
    bencher.bench(|| balancer.pick(&PickContext::new()).is_ok());
}

#[divan::bench(args = SIZES)]
fn least_request_by_a_worker(bencher: Bencher<'_, '_>, n: usize) {
    let balancer = balancer(Strategy::LeastRequest, n, |_| 1);
    let mut picker = balancer.picker();
    bencher.bench_local(|| picker.pick(&PickContext::new()).is_ok());
}

#[divan::bench(args = SIZES)]
fn round_robin_by_a_worker(bencher: Bencher<'_, '_>, n: usize) {
    let balancer = balancer(Strategy::RoundRobin, n, |_| 1);
    let mut picker = balancer.picker();
    bencher.bench_local(|| black_box(picker.pick(&PickContext::new())).is_ok());
}
