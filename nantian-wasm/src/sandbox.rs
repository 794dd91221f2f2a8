//! Limits of an instance and budgets of a stream: what a guest can make the host spend.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::{FrameInfo, StoreLimits, StoreLimitsBuilder, Trap, WasmBacktrace};

use crate::config::Sandbox;
use crate::error::Cause;
use crate::observe::Spent;

/// Most elements of a guest's table; the largest real one has 8 096.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 16 * 1024;

/// WebAssembly instances and tables of one instance of a plugin: the guest's, and those of the shim beside it.
pub(crate) const INSTANCES: u32 = 2;
pub(crate) const TABLES: u32 = 2;

/// Most functions of a backtrace, and characters of a name, that are kept.
const MAX_FRAMES: usize = 20;
const MAX_FRAME: usize = 200;

/// Bytes one callback may make the host copy out of a guest, and into it: nothing of them is kept, and a stream as long as its
/// bodies may need more.
const MAX_FROM_GUEST: u64 = 16 << 20;
const MAX_INTO_GUEST: u64 = 32 << 20;
/// Bytes of header names and values one stream may write.
const MAX_HEADER_BYTES: u64 = 64 << 10;
/// Lines and bytes one stream may log; the rest is dropped and counted.
const MAX_LOG_LINES: u32 = 64;
const MAX_LOG_BYTES: u64 = 16 << 10;
/// Header fields one stream may add to its messages.
const MAX_ENTRIES: u64 = 512;
/// Bytes of properties one stream may set.
const MAX_PROPERTY_BYTES: u64 = 64 << 10;
/// Call-outs one stream may make.
const MAX_CALLS: u32 = 64;
/// How many times a budget that a client's headers can use up has to be exceeded before the guest is ended, and not only its
/// stream: what a client sends is copied a few times, a guest that floods goes on.
const FLOOD: u64 = 16;
/// Time all callbacks of one stream may take, in time limits of one.
const MAX_LIMITS: u64 = 10;
/// How long a stream lasts, in times of what it has spent, to have that time again: what a long stream takes for its bodies, and
/// what a busy machine took from it.
const TIME_RETURNS_IN: u64 = 20;

/// Why a stream ends that has used up its time.
pub(crate) const NO_TIME: Cause = Cause::Budget { what: "time of the stream" };

/// What one stream has cost the host so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    from_guest: Copied,
    into_guest: Copied,
    header_bytes: u64,
    header_entries: u64,
    property_bytes: u64,
    log_bytes: u64,
    log_lines: u32,
    calls: u32,
    /// The tick of the engine at which all its time is there again.
    rested_at: u64,
}

/// Bytes that the callbacks of a stream copied.
#[derive(Debug, Clone, Copy, Default)]
struct Copied {
    /// By the one that runs.
    now: u64,
    /// By the one that copied most.
    most: u64,
}

/// The most that one stream has cost so far, by budget in the order of [`Usage::by_budget`].
#[derive(Debug, Default)]
pub(crate) struct Peaks([AtomicU64; 8]);

/// Why a host call ends the guest instead of answering it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostTrap {
    #[error("budget exceeded: {0}")]
    Budget(&'static str),
    #[error("guest exited with code {0}")]
    Exit(u32),
    #[error("host call from inside the guest's allocator")]
    InsideAllocator,
    #[error("the guest's allocator gave no memory")]
    NoMemory,
}

/// Memory, tables and instances of one store.
pub(crate) fn limits(sandbox: &Sandbox) -> StoreLimits {
    StoreLimitsBuilder::new()
        .memory_size(sandbox.max_memory)
        .memories(1)
        .table_elements(MAX_TABLE_ELEMENTS)
        .tables(TABLES as usize)
        .instances(INSTANCES as usize)
        .build()
}

/// Why a guest call ended, in words that outlive the engine.
pub(crate) fn cause(error: &wasmtime::Error, limit: Duration) -> Cause {
    match error.downcast_ref::<HostTrap>() {
        Some(HostTrap::Budget(what)) => return Cause::Budget { what },
        Some(HostTrap::Exit(code)) => return Cause::Exit { code: *code },
        Some(trap @ (HostTrap::InsideAllocator | HostTrap::NoMemory)) => {
            return Cause::Trap(trap.to_string());
        }
        None => {}
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Cause::TimeLimit { limit },
        Some(trap) => Cause::Trap(trap.to_string().trim_start_matches("wasm trap: ").to_owned()),
        None => Cause::Trap(error.to_string()),
    }
}

/// Where the guest was when its call ended, the innermost function first: name or number, and offset in the module.
///
/// Functions of the host's own module are left out: `shim` is its code.
pub(crate) fn backtrace(error: &wasmtime::Error, shim: &wasmtime::Module) -> Vec<String> {
    let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    let shim = shim.image_range();
    let frames = frames.iter().filter(|frame| frame.module().image_range() != shim);
    let frame = |frame: &FrameInfo| {
        let function =
            frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), str::to_owned);
        let function: String = function.chars().take(MAX_FRAME).filter(|char| !char.is_control()).collect();
        match frame.module_offset() {
            Some(offset) => format!("{function} at {offset:#x}"),
            None => function,
        }
    };
    frames.take(MAX_FRAMES).map(frame).collect()
}

// === impl Usage ===

impl Usage {
    pub(crate) fn charge_from_guest(&mut self, bytes: usize) -> Result<(), HostTrap> {
        self.from_guest.charge(bytes, MAX_FROM_GUEST, "bytes from the guest")
    }

    pub(crate) fn charge_into_guest(&mut self, bytes: usize) -> Result<(), HostTrap> {
        self.into_guest.charge(bytes, MAX_INTO_GUEST, "bytes into the guest")
    }

    /// A callback begins.
    pub(crate) fn begin_callback(&mut self) {
        (self.from_guest.now, self.into_guest.now) = (0, 0);
    }

    /// Notes that a callback ran for so many ticks.
    pub(crate) fn ran_until(&mut self, now: u64, ticks: u64) {
        self.rested_at = self.rested_at.max(now).saturating_add(ticks.saturating_mul(TIME_RETURNS_IN));
    }

    /// Whether the stream has time left; `limit` is that of one callback.
    pub(crate) fn has_time_at(&self, now: u64, limit: u64) -> bool {
        let spent = self.rested_at.saturating_sub(now);
        spent < limit.saturating_mul(MAX_LIMITS).saturating_mul(TIME_RETURNS_IN)
    }

    /// Whether the stream can afford to write so many bytes of headers.
    pub(crate) fn affords_header(&mut self, bytes: usize) -> Result<Result<(), Cause>, HostTrap> {
        afford(&mut self.header_bytes, bytes, MAX_HEADER_BYTES, "header bytes")
    }

    pub(crate) fn charge_entries(&mut self, entries: usize) -> Result<(), HostTrap> {
        charge(&mut self.header_entries, entries, MAX_ENTRIES, "header entries")
    }

    /// Whether the stream can afford to set so many bytes of properties.
    pub(crate) fn affords_property(&mut self, bytes: usize) -> Result<Result<(), Cause>, HostTrap> {
        afford(&mut self.property_bytes, bytes, MAX_PROPERTY_BYTES, "property bytes")
    }

    pub(crate) fn charge_call(&mut self) -> Result<(), HostTrap> {
        self.calls = self.calls.saturating_add(1);
        if self.calls > MAX_CALLS { Err(HostTrap::Budget("call-outs")) } else { Ok(()) }
    }

    /// What was spent of each budget.
    fn by_budget(&self) -> [Spent; 8] {
        let spent = |what, used, limit| Spent { what, used, limit };
        [
            spent("bytes from the guest", self.from_guest.most, MAX_FROM_GUEST),
            spent("bytes into the guest", self.into_guest.most, MAX_INTO_GUEST),
            spent("header bytes", self.header_bytes, MAX_HEADER_BYTES),
            spent("header entries", self.header_entries, MAX_ENTRIES),
            spent("property bytes", self.property_bytes, MAX_PROPERTY_BYTES),
            spent("log bytes", self.log_bytes, MAX_LOG_BYTES),
            spent("log lines", self.log_lines.into(), MAX_LOG_LINES.into()),
            spent("call-outs", self.calls.into(), MAX_CALLS.into()),
        ]
    }

    /// Whether a line of this length may still be logged.
    pub(crate) fn admits_log(&mut self, bytes: usize) -> bool {
        self.log_lines = self.log_lines.saturating_add(1);
        self.log_lines <= MAX_LOG_LINES
            && charge(&mut self.log_bytes, bytes, MAX_LOG_BYTES, "log bytes").is_ok()
    }
}

// === impl Peaks ===

impl Peaks {
    /// Notes what a stream has cost.
    pub(crate) fn note(&self, usage: &Usage) {
        for (peak, spent) in self.0.iter().zip(usage.by_budget()) {
            // Written by whoever has the instance only: what is read is current.
            if spent.used > peak.load(Ordering::Relaxed) {
                peak.store(spent.used, Ordering::Relaxed);
            }
        }
    }

    /// The highest of several instances.
    pub(crate) fn highest<'a>(all: impl IntoIterator<Item = &'a Self>) -> Vec<Spent> {
        let mut highest = Usage::default().by_budget();
        for peaks in all {
            for (highest, peak) in highest.iter_mut().zip(&peaks.0) {
                highest.used = highest.used.max(peak.load(Ordering::Relaxed));
            }
        }
        highest.into()
    }
}

// === impl Copied ===

impl Copied {
    fn charge(&mut self, bytes: usize, limit: u64, what: &'static str) -> Result<(), HostTrap> {
        let charged = charge(&mut self.now, bytes, limit, what);
        self.most = self.most.max(self.now);
        charged
    }
}

fn charge(spent: &mut u64, bytes: usize, limit: u64, what: &'static str) -> Result<(), HostTrap> {
    *spent = spent.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    if *spent > limit { Err(HostTrap::Budget(what)) } else { Ok(()) }
}

/// Charges for what a client may have sent: beyond the budget, the stream is to fail for this cause and nothing is done.
fn afford(
    spent: &mut u64,
    bytes: usize,
    limit: u64,
    what: &'static str,
) -> Result<Result<(), Cause>, HostTrap> {
    charge(spent, bytes, limit.saturating_mul(FLOOD), what)?;
    Ok(if *spent > limit { Err(Cause::Budget { what }) } else { Ok(()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_that_copies_more_than_its_budget_is_ended() {
        let mut usage = Usage::default();
        for _ in 0..3 {
            usage.begin_callback();
            assert_eq!(usage.charge_from_guest(16 << 20), Ok(()));
        }
        assert_eq!(usage.charge_from_guest(1), Err(HostTrap::Budget("bytes from the guest")));
        assert_eq!(usage.affords_header(64 << 10), Ok(Ok(())));
        assert_eq!(usage.affords_header(1), Ok(Err(Cause::Budget { what: "header bytes" })));
        assert_eq!(usage.affords_header(usize::MAX), Err(HostTrap::Budget("header bytes")));
    }

    #[test]
    fn a_stream_has_ten_limits_of_time_and_a_twentieth_of_its_life() {
        let mut usage = Usage::default();
        let mut now = 0;
        while usage.has_time_at(now, 100) {
            now += 99;
            usage.ran_until(now, 99);
        }
        assert!((1_000..=1_200).contains(&now), "{now} ms, one after the other");
        let mut usage = Usage::default();
        for now in (0..100_000).step_by(1_000) {
            assert!(usage.has_time_at(now, 100), "{now}");
            usage.ran_until(now, 40);
        }
    }

    #[test]
    fn a_stream_that_logs_too_much_is_silenced_not_ended() {
        let mut usage = Usage::default();
        assert_eq!((0..1000).filter(|_| usage.admits_log(10)).count(), 64);
        assert!(!Usage::default().admits_log(1 << 20));
    }
}
