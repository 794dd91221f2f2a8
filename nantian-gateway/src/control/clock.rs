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
/// as to take some requests through a plugin. A guest's first slice is so much longer, 5 ms at most.
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use http::Request;
    use nantian_wasm::{Action, Cause, Module, Plugin, PluginConfig, StreamContext, StreamInfo};

    use super::*;

    /// Loops in the request's headers for ever.
    const LOOPING: &str = r#"(module
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (loop $more (br $more)) (i32.const 0)))"#;

    /// A stream of a plugin that loops, with this time for each callback.
    fn stream_that_loops(engine: &Engine, limit: Duration) -> StreamContext {
        let module = Module::compile(engine, &wat::parse_str(LOOPING).unwrap(), None).unwrap();
        let mut config = PluginConfig::new("looping");
        config.instances = NonZeroUsize::new(1);
        config.sandbox.max_execution_time = limit;
        let plugin = Plugin::new(&module, config).unwrap();
        StreamContext::new([plugin].into(), StreamInfo::default())
    }

    #[test]
    fn clock_that_rests_stops_a_guest_that_loops_at_its_time_limit() {
        let engine = Engine::new().unwrap();
        let _clock = EngineClock::start(&engine);
        let mut stream = stream_that_loops(&engine, Duration::from_millis(20));
        let (mut parts, ()) = Request::new(()).into_parts();
        let failure = loop {
            match stream.on_request_headers(&mut parts, true) {
                Action::Pending => {
                    while stream.poll_request(&mut Context::from_waker(Waker::noop())).is_pending() {}
                }
                Action::Fail(failure) => break failure,
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(failure.cause, Cause::TimeLimit { .. }), "{failure}");
    }

    /// The time limit is far away, however late the clock's thread wakes.
    #[test]
    fn clock_that_rests_makes_a_guest_that_loops_give_way_again_and_again() {
        let engine = Engine::new().unwrap();
        let _clock = EngineClock::start(&engine);
        let mut stream = stream_that_loops(&engine, Duration::from_secs(60));
        let (mut parts, ()) = Request::new(()).into_parts();
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Pending));
        for _ in 0..3 {
            assert!(stream.poll_request(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }
}
