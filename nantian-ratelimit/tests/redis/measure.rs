//! Measurements: to be run alone, in a release build.
//!
//! ```text
//! cargo test --release -p nantian-ratelimit --features redis --test redis -- --ignored --nocapture --test-threads 1
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use nantian_ratelimit::redis::{RedisStore, SharedLimiter};
use nantian_ratelimit::{Cost, Limit};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisConnectionInfo};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::server::{Server, admit, eventually, policy};

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
    let limiter = store.limiter("quota", policy([Limit::requests_per_day(1_000_000_000)]));
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

/// Has sixteen tasks send `command` for every key, each one when the last is answered, over one connection:
/// as decisions are.
async fn send_all(server: &Server, command: impl Fn(String) -> Cmd) {
    let address = (Ipv4Addr::LOCALHOST, server.port());
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let settings = RedisConnectionInfo::default();
    let (connection, driver) = MultiplexedConnection::new(&settings, stream).await.unwrap();
    let tasks = (0..16).map(|task| {
        let mut connection = connection.clone();
        let commands: Vec<_> =
            keys().skip(task).step_by(16).map(|key| command(format!("nrl3:{{{key:032x}}}"))).collect();
        tokio::spawn(async move {
            for command in commands {
                connection.send_packed_command(&command).await.unwrap();
            }
        })
    });
    let all = async {
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    };
    tokio::select! {
        () = driver => panic!("the server has closed the connection"),
        () = all => {}
    }
}

/// Sets as many bytes as a state of three limits has.
fn set(key: String) -> Cmd {
    let mut command = Cmd::new();
    command.arg("SET").arg(key).arg("v".repeat(52)).arg("PX").arg(61000);
    command
}

/// Calls the script `name` with as many bytes as a decision over three limits.
fn call(name: &str, key: String) -> Cmd {
    let mut command = Cmd::new();
    command.arg("EVALSHA").arg(name).arg(1).arg(key).arg("v".repeat(84));
    command
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
    send_all(&server, set).await;
    decide_all(&limiter).await;
    let answer = server.ask("SCRIPT LOAD \"return 1\"").await;
    let name = answer.lines().nth(1).unwrap();
    let mut ratios = Vec::new();
    for _ in 0..5 {
        server.ask("CONFIG RESETSTAT").await;
        send_all(&server, set).await;
        let set = cost(&server, "set").await;
        server.ask("CONFIG RESETSTAT").await;
        send_all(&server, |key| call(name, key)).await;
        let nothing = cost(&server, "evalsha").await;
        server.ask("CONFIG RESETSTAT").await;
        decide_all(&limiter).await;
        let decide = cost(&server, "evalsha").await;
        let (all, floor) = (decide / set, nothing / set);
        println!(
            "SET {set} µs, an empty script {nothing} µs: {floor:.2} times, a decision {decide} µs: {all:.2} times"
        );
        ratios.push(decide / set);
    }
    driver.abort();
    ratios.sort_by(f64::total_cmp);
    println!("median: {:.2} times", ratios[2]);
    assert!(ratios[2] <= 3.5, "a decision over three limits takes as long as {ratios:.2?} SETs");
}
