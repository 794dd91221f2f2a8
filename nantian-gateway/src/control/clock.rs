//! The clock of the plugins' time limits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use nantian_wasm::Engine;
use tokio::time::Instant;

/// Time between two looks after instances.
const UPKEEP: Duration = Duration::from_millis(10);
/// Longest time the clock stands still while it meets no guest that runs, in milliseconds: to wake a thread costs as much
/// as to take some requests through a plugin.
const REST: u64 = 4;

/// Two threads that run as long as this lives: one moves the engine's clock, the other looks after its instances.
#[derive(Debug)]
pub(crate) struct EngineClock {
    running: Arc<AtomicBool>,
}

/// Wakes the thread that moves the clock.
struct Hurry(Thread);

impl EngineClock {
    pub(crate) fn start(engine: &Engine) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        spawn("wasm-clock", engine, &running, keep_time);
        spawn("wasm-upkeep", engine, &running, look_after);
        Self { running }
    }
}

impl Drop for EngineClock {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
    }
}

impl Wake for Hurry {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn spawn(name: &str, engine: &Engine, running: &Arc<AtomicBool>, work: fn(&Engine, &AtomicBool)) {
    let (engine, running) = (engine.clone(), Arc::clone(running));
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || work(&engine, &running));
    if let Err(error) = spawned {
        tracing::error!(%error, name, "a thread cannot be started; plugins have no time limit");
    }
}

/// Moves the clock every millisecond while guests run for so long, and otherwise more rarely.
fn keep_time(engine: &Engine, running: &AtomicBool) {
    let waker = Waker::from(Arc::new(Hurry(thread::current())));
    let mut clock = Instant::now();
    while running.load(Ordering::Relaxed) {
        let has_to_hurry = engine.poll_hurry(&mut Context::from_waker(&waker)).is_ready();
        let step = if has_to_hurry { 1 } else { REST };
        let due = clock + Duration::from_millis(step);
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // A thread that wakes late has several steps to make up for.
            engine.leap(step);
            clock = due;
        } else {
            // It may be woken because a step is due earlier now.
            thread::park_timeout(left);
        }
    }
}

fn look_after(engine: &Engine, running: &AtomicBool) {
    let mut next = Instant::now();
    while running.load(Ordering::Relaxed) {
        next += UPKEEP;
        thread::park_timeout(next.saturating_duration_since(Instant::now()));
        engine.maintain();
    }
}
