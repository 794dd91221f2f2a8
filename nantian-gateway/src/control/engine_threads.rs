//! The threads of the engine of the plugins.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nantian_wasm::Engine;

/// Two threads that run as long as this lives: one moves the engine's clock, the other looks after its
/// instances.
#[derive(Debug)]
pub(crate) struct EngineThreads {
    stop: Arc<AtomicBool>,
}

impl EngineThreads {
    pub(crate) fn start(engine: &Engine) -> Self {
        let stop = Arc::default();
        spawn("wasm-clock", engine, &stop, Engine::run_clock);
        spawn("wasm-upkeep", engine, &stop, Engine::run_upkeep);
        Self { stop }
    }
}

impl Drop for EngineThreads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn spawn(name: &str, engine: &Engine, stop: &Arc<AtomicBool>, run: fn(&Engine, &AtomicBool)) {
    let (engine, stop) = (engine.clone(), Arc::clone(stop));
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || run(&engine, &stop));
    if let Err(error) = spawned {
        tracing::error!(%error, name, "a thread cannot be started; plugins have no time limit");
    }
}
