//! Active checks, as the future that an embedder polls.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use nantian_lb::health::{CheckConfig, Health, Verdict, run};
use nantian_lb::{
    BalanceConfig, Balancer, Endpoint,
    clock::{Clock, Timestamp},
};
use tokio::time::{Instant, sleep, timeout};

/// The time of the runtime, which the tests stop.
#[derive(Debug)]
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp::default().saturating_add(self.0.elapsed())
    }
}

/// Servers that fail, or never answer, and the checks that they have seen.
#[derive(Default)]
struct Servers {
    failing: BTreeSet<u32>,
    silent: BTreeSet<u32>,
    seen: BTreeMap<u32, usize>,
    running: usize,
    most: usize,
}

fn balancer(n: u32) -> Balancer<u32> {
    let clock = RuntimeClock(Instant::now());
    Balancer::with_clock(endpoints(n), &BalanceConfig::default().with_panic_threshold_percent(0), clock)
}

fn endpoints(n: u32) -> impl Iterator<Item = Endpoint<u32>> {
    (0..n).map(|at| Endpoint::new(format!("{at:03}"), at))
}

/// Lets the checks run for so long.
async fn check(balancer: &Balancer<u32>, config: CheckConfig, servers: &Rc<RefCell<Servers>>, seconds: u64) {
    let probe = |at: u32| {
        let servers = Rc::clone(servers);
        async move {
            let silent = {
                let mut servers = servers.borrow_mut();
                *servers.seen.entry(at).or_default() += 1;
                servers.running += 1;
                servers.most = servers.most.max(servers.running);
                servers.silent.contains(&at)
            };
            sleep(if silent { Duration::from_secs(3600) } else { Duration::from_millis(100) }).await;
            let mut servers = servers.borrow_mut();
            servers.running -= 1;
            if servers.failing.contains(&at) { Verdict::Fails } else { Verdict::Passes }
        }
    };
    let checks = run(balancer.clone(), config, probe, sleep);
    assert!(timeout(Duration::from_secs(seconds), checks).await.is_err(), "they never end");
}

fn health(balancer: &Balancer<u32>) -> Vec<Health> {
    balancer.status().into_iter().map(|status| status.health).collect()
}

#[tokio::test(start_paused = true)]
async fn who_fails_or_is_silent_is_passed_over_at_once_and_returns_after_two_passed_checks() {
    let (balancer, servers) = (balancer(3), Rc::<RefCell<Servers>>::default());
    servers.borrow_mut().failing.insert(1);
    servers.borrow_mut().silent.insert(2);
    check(&balancer, CheckConfig::new(), &servers, 5).await;
    assert_eq!(health(&balancer), [Health::Healthy, Health::Failing, Health::Failing]);
    servers.borrow_mut().failing.clear();
    // A new run knows nothing of the old one: its first check decides.
    check(&balancer, CheckConfig::new(), &servers, 5).await;
    assert_eq!(health(&balancer), [Health::Healthy, Health::Healthy, Health::Failing]);
}

#[tokio::test(start_paused = true)]
async fn who_fails_is_passed_over_also_after_it_has_left_and_come_back_between_two_checks() {
    let (balancer, servers) = (balancer(2), Rc::<RefCell<Servers>>::default());
    servers.borrow_mut().failing.insert(1);
    let flapping = async {
        sleep(Duration::from_secs(50)).await;
        assert_eq!(health(&balancer), [Health::Healthy, Health::Failing]);
        balancer.update(endpoints(1), &balancer.config());
        balancer.update(endpoints(2), &balancer.config());
    };
    tokio::join!(check(&balancer, CheckConfig::new(), &servers, 70), flapping);
    assert_eq!(health(&balancer), [Health::Healthy, Health::Failing]);
}

#[tokio::test(start_paused = true)]
async fn each_is_asked_once_in_an_interval_and_newcomers_soon() {
    let (balancer, servers) = (balancer(2), Rc::<RefCell<Servers>>::default());
    let growing = async {
        sleep(Duration::from_secs(50)).await;
        balancer.update(endpoints(3), &balancer.config());
    };
    tokio::join!(check(&balancer, CheckConfig::new(), &servers, 100), growing);
    let seen = servers.borrow().seen.clone();
    // Every 10 to 11 s, after checks that take a tenth.
    assert!((9..=10).contains(&seen[&0]) && (9..=10).contains(&seen[&1]), "{seen:?}");
    assert!((5..=6).contains(&seen[&2]), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn checks_run_side_by_side_up_to_their_limit_and_stop_for_those_that_leave() {
    let (balancer, servers) = (balancer(100), Rc::<RefCell<Servers>>::default());
    let mut config = CheckConfig::new();
    config.max_concurrent = NonZeroU32::new(8).unwrap();
    check(&balancer, config.clone(), &servers, 5).await;
    {
        let servers = servers.borrow();
        assert_eq!((servers.most, servers.seen.len()), (8, 100));
    }
    balancer.update(endpoints(1), &balancer.config());
    *servers.borrow_mut() = Servers::default();
    check(&balancer, config, &servers, 30).await;
    assert_eq!(servers.borrow().seen.keys().copied().collect::<Vec<_>>(), [0]);
}
