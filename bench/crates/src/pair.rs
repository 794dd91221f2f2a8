//! Two pieces of work in turns.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Does something so many times, and says how long it took.
pub type Work<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// What a pair of works took, in nanoseconds for each time.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Ours, the median of the slices.
    pub ours: f64,
    /// The peer's, the median of the slices.
    pub peer: f64,
    /// The median of the ratios of neighbouring slices.
    pub ratio: f64,
    /// The ratio of the least disturbed slice of each.
    pub best: f64,
}

/// Slices of each work. Odd, so that the median is one of them.
const SLICES: usize = 11;
/// Long enough to walk a million keys several times: in the first walk after the peer's slice the caches hold
/// what is the peer's.
const SLICE: Duration = Duration::from_millis(300);

/// Work of one thread.
pub fn alone<'a>(mut once: impl FnMut() + 'a) -> Work<'a> {
    Box::new(move |times| {
        let start = Instant::now();
        for _ in 0..times {
            once();
        }
        start.elapsed()
    })
}

/// The same work on two threads at once, each as many times; `prepare` makes what a thread does.
///
/// The time is that of the slower thread.
pub fn two_threads<'a, W: FnMut()>(prepare: impl Fn(usize) -> W + Sync + 'a) -> Work<'a> {
    Box::new(move |times| {
        let (prepare, barrier) = (&prepare, &Barrier::new(2));
        let run = |thread| {
            let mut once = prepare(thread);
            barrier.wait();
            let start = Instant::now();
            for _ in 0..times {
                once();
            }
            start.elapsed()
        };
        thread::scope(|scope| {
            let other = scope.spawn(|| run(1));
            let this = run(0);
            this.max(other.join().unwrap_or_default())
        })
    })
}

/// Measures both in turns, either first every other time.
pub fn paired(ours: &mut Work<'_>, peer: &mut Work<'_>) -> Figure {
    let times = [calibrate(ours), calibrate(peer)];
    let mut slices = Vec::with_capacity(SLICES);
    for round in 0..SLICES {
        let (a, b);
        if round % 2 == 0 {
            a = each(ours, times[0]);
            b = each(peer, times[1]);
        } else {
            b = each(peer, times[1]);
            a = each(ours, times[0]);
        }
        slices.push((a, b));
    }
    let of = |figure: fn(&(f64, f64)) -> f64| sorted(slices.iter().map(figure));
    let (ours, peer, ratios) = (of(|s| s.0), of(|s| s.1), of(|s| s.0 / s.1));
    let middle = SLICES / 2;
    Figure { ours: ours[middle], peer: peer[middle], ratio: ratios[middle], best: ours[0] / peer[0] }
}

/// How many times fill a slice.
fn calibrate(work: &mut Work<'_>) -> u64 {
    let mut times = 1;
    loop {
        let took = work(times);
        if took * 4 >= SLICE {
            let per_slice = SLICE.as_secs_f64() / took.as_secs_f64();
            return ((times as f64 * per_slice) as u64).max(1);
        }
        times *= 2;
    }
}

fn each(work: &mut Work<'_>, times: u64) -> f64 {
    work(times).as_secs_f64() * 1e9 / times as f64
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
