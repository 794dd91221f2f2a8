//! The threads of the engine of the plugins.

use std::thread;

use nantian_wasm::EngineThreads;

/// Starts the threads of an engine: one moves its clock, the other looks after its instances. They end with
/// it.
pub(crate) fn start_engine_threads(threads: EngineThreads) {
    for (name, engine_thread) in [("wasm-clock", threads.clock), ("wasm-upkeep", threads.upkeep)] {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(|| engine_thread.run());
        if let Err(error) = spawned {
            tracing::error!(%error, name, "a thread cannot be started; plugins have no time limit");
        }
    }
}
