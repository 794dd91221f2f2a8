//! Limits of an instance and budgets of a stream: what a guest can make the host spend.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::{FrameInfo, Trap, WasmBacktrace};

use crate::callout_limits;
use crate::config::Sandbox;
use crate::error::Cause;
use crate::observe::BudgetUsage;

/// Most elements of a guest's table: Go has each function there, behind 4 096 places of none, and
/// `MAX_FUNCTIONS` is 20 000.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 24 * 1024;

/// WebAssembly instances and tables of one instance of a plugin: the guest's, and those of the shim beside
/// it.
pub(crate) const INSTANCES: u32 = 2;
pub(crate) const TABLES: u32 = 2;

/// Most functions of a backtrace, and characters of a name, that are kept.
const MAX_FRAMES: usize = 20;
const MAX_FRAME: usize = 200;

/// Bytes one callback may make the host copy out of a guest, and into it, at least: nothing of them is kept,
/// and a stream as long as its bodies may need more.
const MIN_FROM_GUEST: u64 = 16 << 20;
const MIN_INTO_GUEST: u64 = 32 << 20;
/// How many held bodies one callback may have copied, be they longer than that: to read, to write, and to ask
/// about.
const COPIES: u64 = 4;
/// Largest body of a call-out's request, at least; and in held bodies, of which it may be made: Base64 takes
/// four thirds.
const MIN_CALL_BODY: u64 = 1 << 20;
const CALL_BODIES: u64 = 2;
/// Bytes of header names and values one stream may write.
const MAX_HEADER_BYTES: u64 = 64 << 10;
/// Lines and bytes one stream may log; the rest is dropped and counted.
const MAX_LOG_LINES: u32 = 64;
const MAX_LOG_BYTES: u64 = 16 << 10;
/// Header fields one stream may add to its messages.
const MAX_ENTRIES: u64 = 512;
/// Bytes of properties one stream may set, with what the place of each takes.
const MAX_PROPERTY_BYTES: u64 = 64 << 10;
/// Call-outs one stream may make, besides one for so many bytes of its bodies: what is asked about piece by
/// piece may be long.
const MAX_CALLS: u64 = 64;
const BYTES_OF_CALL: u64 = 1 << 10;
/// How many times a budget that a client can use up has to be exceeded before the guest is ended, and not
/// only its stream: what a client sends is copied a few times, a guest that floods goes on.
const FLOOD: u64 = 16;
/// Time all callbacks of one stream may take, in time limits of one.
const MAX_LIMITS: u64 = 10;
/// How long a stream lasts, in times of what it has spent, to have that time again: what a long stream takes
/// for its bodies, and what a busy machine took from it.
const TIME_RETURNS_IN: u64 = 20;

/// Why a stream ends that has used up its time.
pub(crate) const NO_TIME: Cause = Cause::Budget { what: "time of the stream" };

/// Budgets that follow from how long a body may be held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budgets {
    from_guest: u64,
    into_guest: u64,
    call_body: u64,
}

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
    calls: u64,
    /// As many of them as its bodies are long enough for.
    calls_of_bodies: u64,
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

/// The most that one stream has cost so far, by budget in the order of [`Budgets::all`].
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

/// Where the guest was when its call ended, the innermost function first: name or number, and offset in the
/// module.
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

// === impl Budgets ===

impl Budgets {
    pub(crate) fn of(sandbox: &Sandbox) -> Self {
        let held = count(sandbox.max_buffered_body);
        let bodies = |bodies: u64, least: u64| held.saturating_mul(bodies).max(least);
        Self {
            from_guest: bodies(COPIES, MIN_FROM_GUEST),
            into_guest: bodies(COPIES, MIN_INTO_GUEST),
            call_body: bodies(CALL_BODIES, MIN_CALL_BODY).min(count(callout_limits::MAX_BODY)),
        }
    }

    /// Each by its name, and how much of it there is.
    fn all(&self) -> [(&'static str, u64); 8] {
        [
            ("bytes from the guest", self.from_guest),
            ("bytes into the guest", self.into_guest),
            ("header bytes", MAX_HEADER_BYTES),
            ("header entries", MAX_ENTRIES),
            ("property bytes", MAX_PROPERTY_BYTES),
            ("log bytes", MAX_LOG_BYTES),
            ("log lines", MAX_LOG_LINES.into()),
            ("call-outs", MAX_CALLS),
        ]
    }

    /// Whether a callback may copy so much of a body out of the guest at once.
    pub(crate) fn admits_from_guest(&self, bytes: usize) -> bool {
        count(bytes) <= self.from_guest
    }

    /// Whether a callback may copy so much of a body into the guest at once.
    pub(crate) fn admits_into_guest(&self, bytes: usize) -> bool {
        count(bytes) <= self.into_guest
    }

    /// Whether the body of a call-out's request may be so long.
    pub(crate) fn admits_call_body(&self, bytes: u32) -> bool {
        u64::from(bytes) <= self.call_body
    }
}

// === impl Usage ===

impl Usage {
    pub(crate) fn charge_from_guest(&mut self, bytes: usize, budgets: &Budgets) -> Result<(), HostTrap> {
        self.from_guest.charge(bytes, budgets.from_guest, "bytes from the guest")
    }

    pub(crate) fn charge_into_guest(&mut self, bytes: usize, budgets: &Budgets) -> Result<(), HostTrap> {
        self.into_guest.charge(bytes, budgets.into_guest, "bytes into the guest")
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

    /// Whether the stream can afford to have added so many header fields.
    pub(crate) fn affords_entries(&mut self, entries: usize) -> Result<Result<(), Cause>, HostTrap> {
        afford(&mut self.header_entries, entries, MAX_ENTRIES, "header entries")
    }

    /// Whether the stream can afford to set so many bytes of properties.
    pub(crate) fn affords_property(&mut self, bytes: usize) -> Result<Result<(), Cause>, HostTrap> {
        afford(&mut self.property_bytes, bytes, MAX_PROPERTY_BYTES, "property bytes")
    }

    /// Whether the stream, whose bodies have been so long until now, can afford one more call-out.
    pub(crate) fn affords_call(&mut self, of_bodies: u64) -> Result<Result<(), Cause>, HostTrap> {
        self.calls_of_bodies = of_bodies / BYTES_OF_CALL;
        afford(&mut self.calls, 1, MAX_CALLS.saturating_add(self.calls_of_bodies), "call-outs")
    }

    /// What was spent of each budget, in the order of [`Budgets::all`].
    fn used(&self) -> [u64; 8] {
        [
            self.from_guest.most,
            self.into_guest.most,
            self.header_bytes,
            self.header_entries,
            self.property_bytes,
            self.log_bytes,
            self.log_lines.into(),
            self.calls.saturating_sub(self.calls_of_bodies),
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
        for (peak, used) in self.0.iter().zip(usage.used()) {
            // Written by whoever has the instance only: what is read is current.
            if used > peak.load(Ordering::Relaxed) {
                peak.store(used, Ordering::Relaxed);
            }
        }
    }

    /// The highest of several instances.
    pub(crate) fn highest<'a>(
        all: impl IntoIterator<Item = &'a Self>,
        budgets: &Budgets,
    ) -> Vec<BudgetUsage> {
        let mut highest = budgets.all().map(|(what, limit)| BudgetUsage::new(what, 0, limit));
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
    *spent = spent.saturating_add(count(bytes));
    if *spent > limit { Err(HostTrap::Budget(what)) } else { Ok(()) }
}

/// Charges for what a client may have sent: beyond the budget, the stream is to fail for this cause and
/// nothing is done.
fn afford(
    spent: &mut u64,
    bytes: usize,
    limit: u64,
    what: &'static str,
) -> Result<Result<(), Cause>, HostTrap> {
    charge(spent, bytes, limit.saturating_mul(FLOOD), what)?;
    Ok(if *spent > limit { Err(Cause::StreamBudget { what }) } else { Ok(()) })
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_that_copies_more_than_its_budget_is_ended() {
        let (mut usage, budgets) = (Usage::default(), Budgets::of(&Sandbox::default()));
        for _ in 0..3 {
            usage.begin_callback();
            assert_eq!(usage.charge_from_guest(16 << 20, &budgets), Ok(()));
        }
        assert_eq!(usage.charge_from_guest(1, &budgets), Err(HostTrap::Budget("bytes from the guest")));
        assert_eq!(usage.affords_header(64 << 10), Ok(Ok(())));
        assert_eq!(usage.affords_header(1), Ok(Err(Cause::StreamBudget { what: "header bytes" })));
        assert_eq!(usage.affords_header(usize::MAX), Err(HostTrap::Budget("header bytes")));
    }

    #[test]
    fn a_call_out_for_which_there_is_never_room_fails_its_stream() {
        let of = |max_buffered_body| Budgets::of(&Sandbox { max_buffered_body, ..Sandbox::default() });
        assert!(of(1 << 30).admits_call_body(63 << 20) && !of(1 << 30).admits_call_body(64 << 20));
        assert!(of(20 << 20).admits_call_body(40 << 20) && !of(20 << 20).admits_call_body(41 << 20));
    }

    #[test]
    fn a_stream_may_ask_about_each_kibibyte_of_its_bodies_and_some_times_more() {
        let mut usage = Usage::default();
        for call in 0..100_u64 {
            let refused = Err(Cause::StreamBudget { what: "call-outs" });
            let expected = if call < 64 + 10 { Ok(()) } else { refused };
            assert_eq!(usage.affords_call(10 << 10), Ok(expected), "{call}");
        }
        assert_eq!(usage.used().last(), Some(&90), "those that its bodies pay for are not among them");
        let traps = (0..2_000).filter(|_| usage.affords_call(10 << 10).is_err()).count();
        assert_eq!(traps, 2_000 + 100 - 16 * 74);
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
