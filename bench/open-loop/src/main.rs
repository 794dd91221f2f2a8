//! Calls at a rate of their own: each begins when it is planned, whether earlier ones are answered or not.
//!
//! Usage: `open-loop ADDR CALLS_PER_SECOND SECONDS CONNECTIONS SEED < REQUEST`. Calls come as those of many
//! clients do who know nothing of one another: the pauses between them are drawn from an exponential
//! distribution, the same for the same seed. The time of a call runs from when it was planned, so that a wait
//! for a server that is behind counts; each connection carries one call at a time, and a call that finds none
//! free is late, which counts too.
//!
//! One line of JSON is printed: how many calls were planned, how many of them were answered before the plan
//! ended, and percentiles of all planned calls in microseconds, `null` where so many were never answered.

mod http;

use std::error::Error;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use self::http::Connection;

#[expect(clippy::disallowed_types, reason = "there is no runtime here whose clock could be paused")]
type Instant = std::time::Instant;
type BoxError = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: open-loop ADDR CALLS_PER_SECOND SECONDS CONNECTIONS SEED < REQUEST";

/// How long after the end of the plan calls that are late may still begin.
const GRACE: Duration = Duration::from_millis(500);

/// What all connections work on.
struct Plan {
    request: Vec<u8>,
    /// When calls begin, counted from the start.
    calls: Vec<Duration>,
    length: Duration,
    next: AtomicUsize,
}

/// When a call that was answered began by the plan, and how long it took since.
struct Answered {
    planned: Duration,
    took: Duration,
}

fn main() -> Result<(), BoxError> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().ok_or(USAGE)?.parse()?;
    let rate: f64 = args.next().ok_or(USAGE)?.parse()?;
    let length = Duration::from_secs_f64(args.next().ok_or(USAGE)?.parse()?);
    let connections: usize = args.next().ok_or(USAGE)?.parse()?;
    let seed: u64 = args.next().ok_or(USAGE)?.parse()?;
    let mut request = Vec::new();
    std::io::stdin().read_to_end(&mut request)?;
    // The kernel may wake a sleeper 50 µs late to save power; threads inherit what their parent asks for.
    std::fs::write("/proc/self/timerslack_ns", "1")?;

    let plan = Plan { request, calls: calls(rate, length, seed), length, next: AtomicUsize::new(0) };
    let streams: Vec<_> = (0..connections).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
    let start = Instant::now() + Duration::from_millis(50);
    let answered = thread::scope(|scope| {
        let plan = &plan;
        let threads: Vec<_> =
            streams.into_iter().map(|stream| scope.spawn(move || call(plan, stream, start))).collect();
        let mut answered = Vec::new();
        for thread in threads {
            answered.extend(thread.join().map_err(|_| "a connection panicked")??);
        }
        Ok::<_, BoxError>(answered)
    })?;
    println!("{}", report(&plan, answered));
    Ok(())
}

/// When calls begin: the pauses between them are those of independent clients.
fn calls(rate: f64, length: Duration, seed: u64) -> Vec<Duration> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut at = 0.0;
    let pauses = std::iter::from_fn(|| {
        // xorshift64*: the upper 53 bits, as a number above 0 and at most 1.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let drawn = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        at -= ((drawn + 1) as f64 / (1_u64 << 53) as f64).ln() / rate;
        Some(Duration::from_secs_f64(at))
    });
    pauses.take_while(|at| *at < length).collect()
}

/// Makes calls over one connection, the next one whenever it is free.
fn call(plan: &Plan, stream: TcpStream, start: Instant) -> Result<Vec<Answered>, BoxError> {
    let mut connection = Connection::new(stream)?;
    let mut answered = Vec::new();
    while let Some(&planned) = plan.calls.get(plan.next.fetch_add(1, Ordering::Relaxed)) {
        let due = start + planned;
        sleep_until(due);
        if start.elapsed() > plan.length + GRACE {
            break;
        }
        connection.exchange(&plan.request)?;
        answered.push(Answered { planned, took: due.elapsed() });
    }
    Ok(answered)
}

#[expect(clippy::disallowed_methods, reason = "a thread for each connection is what keeps time here")]
fn sleep_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

fn report(plan: &Plan, mut answered: Vec<Answered>) -> String {
    let in_time = answered.iter().filter(|call| call.planned + call.took <= plan.length).count();
    answered.sort_by_key(|call| call.took);
    let percentile = |percent: usize| {
        let rank = (plan.calls.len() * percent).div_ceil(100).max(1) - 1;
        answered.get(rank).map_or_else(|| "null".to_owned(), |call| call.took.as_micros().to_string())
    };
    format!(
        r#"{{"planned":{},"answered":{in_time},"p50_us":{},"p99_us":{}}}"#,
        plan.calls.len(),
        percentile(50),
        percentile(99)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_at_the_rate_and_the_same_for_the_same_seed() {
        let length = Duration::from_secs(100);
        let planned = calls(500.0, length, 7);
        assert!((49_000..51_000).contains(&planned.len()), "{}", planned.len());
        assert!(planned.is_sorted() && planned.iter().all(|at| *at < length));
        assert_eq!(planned, calls(500.0, length, 7));
        assert_ne!(planned, calls(500.0, length, 8));
    }

    #[test]
    fn calls_that_were_never_answered_are_slower_than_all_others() {
        let plan = Plan {
            request: Vec::new(),
            calls: vec![Duration::ZERO; 4],
            length: Duration::from_secs(1),
            next: AtomicUsize::new(0),
        };
        let took = |ms| Answered { planned: Duration::ZERO, took: Duration::from_millis(ms) };
        assert_eq!(
            report(&plan, vec![took(2_000), took(3), took(1)]),
            r#"{"planned":4,"answered":2,"p50_us":3000,"p99_us":null}"#
        );
    }
}
