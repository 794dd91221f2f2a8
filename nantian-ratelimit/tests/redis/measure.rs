//! Measurements: to be run alone, in a release build.
//!
//! ```text
//! cargo test --release -p nantian-ratelimit --features redis --test redis -- --ignored --nocapture --test-threads 1
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use nantian_ratelimit::redis::{RedisStore, SharedLimiter};
use nantian_ratelimit::{Cost, Limit, LimitName, Unit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::server::{Server, admit, eventually, policy};

fn per_day(max: u64) -> Limit {
    let name = LimitName::new("requests-per-day").unwrap();
    Limit::new(name, Unit::Requests, max, Duration::from_secs(24 * 3600))
}

fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    #[expect(clippy::cast_possible_truncation, reason = "a share of a length")]
    let position = (times.len() as f64 * share).ceil() as usize;
    times[position.clamp(1, times.len()) - 1]
}

async fn time_of(limiter: &SharedLimiter) -> Duration {
    let begun = Instant::now();
    assert!(admit(limiter, "alice", Cost::REQUEST).await.is_ok());
    begun.elapsed()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn a_frozen_server_costs_its_timeout_then_next_to_nothing() {
    const TIMEOUT: Duration = Duration::from_millis(20);
    let server = Server::start().await;
    let (store, driver) = RedisStore::builder(server.url()).replicas(1).build();
    let driver = tokio::spawn(driver.run());
    let limiter = store.limiter("quota", policy([per_day(1_000_000_000)]));
    let (mut answered, mut closed, mut open, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..60 {
        eventually(|| store.status().is_reachable).await;
        for _ in 0..100 {
            answered.push(time_of(&limiter).await);
        }
        server.freeze();
        while store.status().is_reachable {
            closed.push(time_of(&limiter).await);
        }
        for _ in 0..1000 {
            open.push(time_of(&limiter).await);
        }
        server.thaw();
        for _ in 0..5 {
            let begun = Instant::now();
            sleep(TIMEOUT - Duration::from_millis(1)).await;
            bare.push(begun.elapsed());
        }
    }
    driver.abort();
    for (name, times) in [
        ("answered", &mut answered),
        ("frozen, asked", &mut closed),
        ("frozen, not asked", &mut open),
        ("a timer of 19 ms", &mut bare),
    ] {
        let [half, most, all] = [0.5, 0.99, 1.0].map(|share| quantile(times, share));
        println!("{name}: {} decisions, p50 {half:?}, p99 {most:?}, slowest {all:?}", times.len());
    }
    // What the machine adds to a bare timer is not the limiter's.
    let late = quantile(&mut bare, 0.99).saturating_sub(TIMEOUT);
    assert!(quantile(&mut closed, 0.99) <= TIMEOUT + Duration::from_millis(1) + late);
    assert!(quantile(&mut open, 0.99) < Duration::from_micros(100));
}

/// Microseconds of the server for a call of `command`.
async fn cost(server: &Server, command: &str) -> f64 {
    let stats = server.ask("INFO commandstats").await;
    let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:"))).unwrap();
    let number = line.split("usec_per_call=").nth(1).unwrap().split(',').next().unwrap();
    number.parse().unwrap()
}

/// Keys in an order that no cache foresees.
fn keys() -> impl Iterator<Item = u64> {
    (0..200_000u64).map(|step| step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).map(|key| key % 100_000)
}

/// Sets as many bytes as a state of three limits has, under names as long as those of levels.
async fn set_all(server: &Server) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).await.unwrap();
    let value = "v".repeat(44);
    for batch in keys().collect::<Vec<_>>().chunks(16) {
        let commands: String =
            batch.iter().map(|key| format!("SET nrl:{{{key:032x}}} {value} PX 61000\r\n")).collect();
        stream.write_all(commands.as_bytes()).await.unwrap();
        let mut answers = vec![0; "+OK\r\n".len() * batch.len()];
        stream.read_exact(&mut answers).await.unwrap();
    }
}

/// Decides with sixteen requests on their way.
async fn decide_all(limiter: &SharedLimiter) {
    let tasks = (0..16).map(|task| {
        let limiter = limiter.clone();
        tokio::spawn(async move {
            for key in keys().skip(task).step_by(16) {
                let key = limiter.key(&key.to_be_bytes());
                drop(limiter.admit(key, Cost::tokens(10)).await);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn what_three_limits_cost_the_server_beside_a_set() {
    let server = Server::start().await;
    let (store, driver) = RedisStore::builder(server.url()).command_timeout(Duration::from_secs(10)).build();
    let driver = tokio::spawn(driver.run());
    eventually(|| store.status().is_reachable).await;
    let limits =
        [Limit::requests_per_minute(60), Limit::tokens_per_minute(1000), Limit::tokens_per_hour(1000)];
    let limiter = store.limiter("quota", policy(limits));
    set_all(&server).await;
    decide_all(&limiter).await;
    let mut ratios = Vec::new();
    for _ in 0..5 {
        server.ask("CONFIG RESETSTAT").await;
        set_all(&server).await;
        let set = cost(&server, "set").await;
        server.ask("CONFIG RESETSTAT").await;
        decide_all(&limiter).await;
        let decide = cost(&server, "evalsha").await;
        println!("SET {set} µs, a decision {decide} µs: {:.2} times", decide / set);
        ratios.push(decide / set);
    }
    driver.abort();
    ratios.sort_by(f64::total_cmp);
    println!("median: {:.2} times", ratios[2]);
}
