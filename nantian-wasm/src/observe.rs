//! What can be seen of a plugin from outside: counters, guest metrics, guest logs.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::{Level, debug, enabled, event, warn};

use crate::error::{Cause, Failure, Phase, PluginError};
use crate::log_rate::{LogRate, OnceAMinute};
use crate::proxy_wasm::{CallRefusal, excerpt};
use crate::sync::lock;

/// Longest log line taken from a guest, in bytes; the rest is cut off.
const MAX_LOG_LINE: usize = 4 << 10;

/// Most frames of a backtrace that are logged.
const LOGGED_FRAMES: usize = 3;

/// A plugin's state at one moment. What it has counted its [successors](crate::Plugin::successor) go on
/// counting: each tells of all of them.
///
/// The default is that of a plugin without instances, to be filled in by tests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PluginStatus {
    /// Instances the plugin keeps where there is memory for all of them.
    pub instances: usize,
    /// Instances that are ready: one more than those while one that is to be replaced has streams yet.
    pub live_instances: usize,
    /// Streams seen so far.
    pub streams: u64,
    /// Calls into guests that have started: callbacks that follow one another at once, such as those at the
    /// end of a stream, are one.
    pub calls: u64,
    /// Time that those calls took: a beat of the engine's clock that meets one counts the milliseconds since
    /// the last beat. Short ones are mostly met by none, so it is right for many of them only. One of more
    /// than a millisecond counts one or two too many, and fewer while the host works for it.
    pub guest_time: Duration,
    /// Bytes of linear memory of all instances, as of the last upkeep.
    pub memory: u64,
    /// Guest calls that ended badly, by cause: each cost its instance.
    pub traps: Traps,
    /// Streams the plugin failed, traps included, whatever the failure policy made of it.
    pub failures: u64,
    /// Of these, how many for each [kind](Cause::kind) of cause, also of those that have failed none.
    pub failures_by_cause: BTreeMap<&'static str, u64>,
    /// Call-outs that were not made, by reason, also by those for which none was refused.
    pub refused_calls: BTreeMap<&'static str, u64>,
    /// Attempts to start an instance in the place of one that ended or asked for it, or that there was no
    /// memory for.
    pub rebuilds: u64,
    /// Log lines of guests that were dropped for exceeding a stream's budget or the plugin's.
    pub dropped_log_lines: u64,
    /// Metrics that guests defined and that were left out, because their names were too many: each definition
    /// counts.
    pub dropped_metrics: u64,
    /// Values of shared data that made room for others, or were too large to be kept.
    pub dropped_shared_data: u64,
    /// Items that were lost from queues that were full.
    pub dropped_queue_items: u64,
    /// The last failure, be it of a version of the plugin before this one.
    pub last_failure: Option<Failure>,
    /// Where the guest was when an instance last ended, be it one of a version before this one, the innermost
    /// function first: its name, or its number where the module has no names, and the offset in its module.
    /// At most 20.
    pub last_backtrace: Vec<String>,
    /// Metrics the guest defined.
    pub metrics: Vec<Metric>,
    /// The most that one stream that is over has cost, by budget.
    pub peaks: Vec<BudgetUsage>,
}

/// How much of a limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetUsage {
    /// What is limited.
    pub what: &'static str,
    /// What is used.
    pub used: u64,
    /// The most there may be.
    pub limit: u64,
}

/// Why instances ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traps {
    /// WebAssembly traps, among them aborts and panics of guests.
    pub trap: u64,
    /// Callbacks that used up their time.
    pub time_limit: u64,
    /// Streams that asked the host for more than they may cost.
    pub budget: u64,
    /// Guests that ended themselves.
    pub exit: u64,
}

/// A metric a guest defined.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Name, as the guest gave it.
    pub name: String,
    /// What the value means.
    pub kind: MetricKind,
    /// Counter: the total. Gauge: the last value. Histogram: the sum of all observations.
    pub value: u64,
    /// How often the guest wrote to it.
    pub observations: u64,
}

/// Kind of a guest's metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution of observed values.
    Histogram,
}

/// Counters of one plugin; what is counted for every stream is counted by slot.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    trap: AtomicU64,
    time_limit: AtomicU64,
    budget: AtomicU64,
    exit: AtomicU64,
    pub(crate) rebuilds: AtomicU64,
    pub(crate) dropped_log_lines: AtomicU64,
    pub(crate) dropped_metrics: AtomicU64,
    pub(crate) dropped_shared_data: AtomicU64,
    pub(crate) dropped_queue_items: AtomicU64,
    failures: Mutex<Failures>,
    last_backtrace: Mutex<Vec<String>>,
    refused_calls: [AtomicU64; CallRefusal::ALL.len()],
}

/// What the log tells of one version of a plugin: what it has told of the last one says nothing of the next.
#[derive(Debug, Default)]
pub(crate) struct PluginLog {
    pub(crate) guest_lines: LogRate,
    trapped: OnceAMinute,
    not_replaced: OnceAMinute,
    refused_calls: [OnceAMinute; CallRefusal::ALL.len()],
    ignored_answer: OnceAMinute,
    kept_route: OnceAMinute,
}

/// Streams that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failures {
    pub(crate) by_cause: BTreeMap<&'static str, u64>,
    pub(crate) last: Option<Failure>,
}

// === impl BudgetUsage ===

impl BudgetUsage {
    /// How much of `limit` is used.
    pub const fn new(what: &'static str, used: u64, limit: u64) -> Self {
        Self { what, used, limit }
    }
}

// === impl Metric ===

impl Metric {
    /// A metric to which nothing was written yet.
    pub fn new(name: impl Into<String>, kind: MetricKind) -> Self {
        Self { name: name.into(), kind, value: 0, observations: 0 }
    }
}

// === impl Traps ===

impl Traps {
    /// All of them.
    pub fn total(self) -> u64 {
        let Self { trap, time_limit, budget, exit } = self;
        trap + time_limit + budget + exit
    }
}

// === impl Failures ===

impl Default for Failures {
    fn default() -> Self {
        Self { by_cause: BTreeMap::from(Cause::KINDS.map(|kind| (kind, 0))), last: None }
    }
}

// === impl Counters ===

impl Counters {
    /// Notes a failed stream.
    pub(crate) fn failed(&self, failure: &Failure) {
        debug!(plugin = %failure.plugin, phase = %failure.phase, cause = %failure.cause, "plugin failed a stream");
        let mut failures = lock(&self.failures);
        *failures.by_cause.entry(failure.cause.kind()).or_default() += 1;
        failures.last = Some(failure.clone());
    }

    /// Notes an instance that ended.
    pub(crate) fn trapped(&self, cause: &Cause) {
        let counter = match cause {
            Cause::TimeLimit { .. } => &self.time_limit,
            Cause::Budget { .. } => &self.budget,
            Cause::Exit { .. } => &self.exit,
            _ => &self.trap,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a call-out that is not made.
    pub(crate) fn refused_call(&self, reason: CallRefusal) {
        if let Some(count) = self.refused_calls.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn refused_calls(&self) -> BTreeMap<&'static str, u64> {
        let all = CallRefusal::ALL.into_iter().zip(&self.refused_calls);
        all.map(|(reason, count)| (reason.kind(), count.load(Ordering::Relaxed))).collect()
    }

    /// Notes where a guest was when its call ended.
    pub(crate) fn note_backtrace(&self, frames: Vec<String>) {
        *lock(&self.last_backtrace) = frames;
    }

    pub(crate) fn last_backtrace(&self) -> Vec<String> {
        lock(&self.last_backtrace).clone()
    }

    pub(crate) fn traps(&self) -> Traps {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traps {
            trap: count(&self.trap),
            time_limit: count(&self.time_limit),
            budget: count(&self.budget),
            exit: count(&self.exit),
        }
    }

    pub(crate) fn failures(&self) -> Failures {
        lock(&self.failures).clone()
    }
}

// === impl PluginLog ===

impl PluginLog {
    /// Tells of an instance that ended at this engine tick; the backtrace is asked for if it is told.
    pub(crate) fn trapped(
        &self,
        plugin: &str,
        phase: Phase,
        cause: &Cause,
        backtrace: impl FnOnce() -> Vec<String>,
        now: u64,
    ) {
        let Some(times) = self.trapped.note_at(now) else {
            debug!(plugin, %phase, %cause, "plugin instance ended");
            return;
        };
        let mut backtrace = backtrace();
        backtrace.truncate(LOGGED_FRAMES);
        let backtrace = backtrace.join(", ");
        warn!(plugin, %phase, %cause, backtrace, times, "plugin instance ended");
    }

    /// Tells of an instance that could not be replaced at this engine tick.
    pub(crate) fn not_replaced(&self, plugin: &str, error: &PluginError, now: u64) {
        let cause = error.source().map(ToString::to_string);
        match self.not_replaced.note_at(now) {
            Some(times) => warn!(plugin, %error, cause, times, "plugin instance not replaced"),
            None => debug!(plugin, %error, cause, "plugin instance not replaced"),
        }
    }

    /// Tells of a call-out, at this engine tick, that is not made.
    pub(crate) fn refused_call(&self, plugin: &str, upstream: &str, reason: CallRefusal, now: u64) {
        let lines = self.refused_calls.get(reason as usize);
        match lines.and_then(|lines| lines.note_at(now)) {
            Some(times) => {
                let upstream = excerpt(upstream.as_bytes());
                warn!(plugin, upstream, %reason, times, "call-out not made");
            }
            None => debug!(plugin, upstream, %reason, "call-out not made"),
        }
    }

    /// Tells that a guest would have had another route chosen at this engine tick.
    pub(crate) fn kept_route(&self, plugin: &str, now: u64) {
        match self.kept_route.note_at(now) {
            Some(times) => {
                warn!(plugin, times, "clear_route_cache has no effect: routes are chosen before plugins run");
            }
            None => debug!(plugin, "clear_route_cache has no effect"),
        }
    }

    /// Tells of an answer, at this engine tick, that had no stream to go to.
    pub(crate) fn ignored_answer(&self, plugin: &str, root: bool, now: u64) {
        match self.ignored_answer.note_at(now) {
            Some(times) => warn!(plugin, root, times, "local response outside a stream ignored"),
            None => debug!(plugin, root, "local response outside a stream ignored"),
        }
    }
}

/// Tells that there is memory for so few instances of a plugin that starts.
pub(crate) fn has_few_instances(plugin: &str, live: usize, instances: usize) {
    warn!(plugin, live, instances, "too little memory for all instances of the plugin");
}

/// The part of a guest's log line that is written: a longer one is cut.
pub(crate) fn written(line: &[u8]) -> &[u8] {
    line.get(..line.len().min(MAX_LOG_LINE)).unwrap_or_default()
}

/// Passes a guest's log line on, cut to a sane length and made printable.
pub(crate) fn log(plugin: &str, context: u32, level: u32, line: &[u8]) {
    let line = printable(line);
    match level {
        0 => event!(target: "nantian_wasm::guest", Level::TRACE, plugin, context, "{line}"),
        1 => event!(target: "nantian_wasm::guest", Level::DEBUG, plugin, context, "{line}"),
        2 => event!(target: "nantian_wasm::guest", Level::INFO, plugin, context, "{line}"),
        3 => event!(target: "nantian_wasm::guest", Level::WARN, plugin, context, "{line}"),
        _ => event!(target: "nantian_wasm::guest", Level::ERROR, plugin, context, "{line}"),
    }
}

/// One line of text: a guest cannot forge a second one.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(written(line))
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

/// The lowest level of guest logs that anybody listens to, in the ABI's numbers; 5 ("critical") when nobody
/// does.
pub(crate) fn log_level() -> u32 {
    if enabled!(target: "nantian_wasm::guest", Level::TRACE) {
        0
    } else if enabled!(target: "nantian_wasm::guest", Level::DEBUG) {
        1
    } else if enabled!(target: "nantian_wasm::guest", Level::INFO) {
        2
    } else if enabled!(target: "nantian_wasm::guest", Level::WARN) {
        3
    } else if enabled!(target: "nantian_wasm::guest", Level::ERROR) {
        4
    } else {
        5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_forge_a_second_log_line() {
        assert_eq!(printable(b"hello\r\nERROR root logged in\n"), "hello  ERROR root logged in ");
        assert_eq!(printable(&[b'a'; 10_000]).len(), MAX_LOG_LINE);
        assert_eq!(printable(&[b'a', 0xff]), "a\u{fffd}");
    }
}
