//! The clock of the plugins' time limits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nantian_wasm::Engine;
use tokio::time::Instant;

/// Two threads that run as long as this lives: one moves the engine's clock, the other looks after its instances.
#[derive(Debug)]
pub(crate) struct EngineClock {
    running: Arc<AtomicBool>,
}

impl EngineClock {
    pub(crate) fn start(engine: &Engine) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let (ticking, maintained) = (engine.clone(), engine.clone());
        every(Duration::from_millis(1), "wasm-clock", &running, move || ticking.tick());
        every(Duration::from_millis(10), "wasm-upkeep", &running, move || maintained.maintain());
        Self { running }
    }
}

impl Drop for EngineClock {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
    }
}

fn every(period: Duration, name: &str, running: &Arc<AtomicBool>, work: impl Fn() + Send + 'static) {
    let running = Arc::clone(running);
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let mut next = Instant::now();
        while running.load(Ordering::Relaxed) {
            next += period;
            thread::park_timeout(next.saturating_duration_since(Instant::now()));
            // A thread that wakes late has several turns to make up for.
            work();
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, name, "a thread cannot be started; plugins have no time limit");
    }
}
