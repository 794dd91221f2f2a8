//! Response fields: `Retry-After`, `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers-10), and the `x-ratelimit-*` fields that OpenAI clients read.

use std::fmt::Write as _;
use std::time::Duration;

use http::Response;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::error::{Denied, Unavailable};
use crate::levels::{Level, Levels};
use crate::limit::Unit;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What the clients of OpenAI and Anthropic read before they try again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// The longest wait that a program sits out for a person, as openai-python has it. openai-node sleeps through
/// any that it is told of, without a way to stop it, and others ask again at once where they are told of more
/// than a minute.
const LONGEST_RETRIED: Duration = Duration::from_secs(120);
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// The largest integer of a structured field (RFC 9651, section 3.3.1): with a larger one a reader passes
/// over the whole field.
const LARGEST: u64 = 999_999_999_999_999;

/// The fields for one unit: limit, remaining, reset.
struct Fields {
    unit: Unit,
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

const REQUESTS: Fields = Fields {
    unit: Unit::Requests,
    limit: HeaderName::from_static("x-ratelimit-limit-requests"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-requests"),
    reset: HeaderName::from_static("x-ratelimit-reset-requests"),
};
const TOKENS: Fields = Fields {
    unit: Unit::Tokens,
    limit: HeaderName::from_static("x-ratelimit-limit-tokens"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-tokens"),
    reset: HeaderName::from_static("x-ratelimit-reset-tokens"),
};

/// Marks a response whose fields are ours, not an upstream's.
#[derive(Debug, Clone, Copy)]
struct Reported;

// === impl Levels ===

impl Levels {
    /// Writes where the limits stand, for the head of a response: `RateLimit`, `RateLimit-Policy`,
    /// `x-ratelimit-*`.
    ///
    /// Those of an upstream in `headers` are replaced. [`RateLimitLayer`](crate::RateLimitLayer) does this by
    /// itself.
    pub fn write_fields(&self, headers: &mut HeaderMap) {
        strip(headers);
        report(headers, self, None);
    }
}

// === impl Denied ===

impl Denied {
    /// Writes what the response to a refused request says besides its body: when to come back (`Retry-After`,
    /// and `retry-after-ms`, which is exact), where the limits stand ([`Levels::write_fields`]), that it is
    /// not to be stored (`Cache-Control: no-store`), and, where the wait is longer than two minutes or for
    /// ever, that a program is not to wait for it (`x-should-retry: false`).
    ///
    /// [`RateLimitLayer`](crate::RateLimitLayer) does this by itself.
    pub fn write_fields(&self, headers: &mut HeaderMap) {
        refused(headers, self);
        report(headers, self.levels(), self.retry_after());
    }
}

// === impl Unavailable ===

impl Unavailable {
    /// Writes what the response to a request that cannot be decided on says besides its body: when to try
    /// again, and that it is not to be stored.
    ///
    /// [`RateLimitLayer`](crate::RateLimitLayer) does this by itself.
    pub fn write_fields(&self, headers: &mut HeaderMap) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

/// Tells an admitted caller where the limits stand.
///
/// Fields of the upstream are replaced; those of a limiter further in are joined.
pub(crate) fn admitted<B>(response: &mut Response<B>, levels: &Levels) {
    if response.extensions_mut().insert(Reported).is_none() {
        strip(response.headers_mut());
    }
    report(response.headers_mut(), levels, None);
}

/// Tells a refused caller when to come back.
pub(crate) fn refused(headers: &mut HeaderMap, denied: &Denied) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let wait = denied.retry_after();
    if let Some(wait) = wait {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait).max(1)));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(milliseconds(wait).max(1)));
    }
    if wait.is_none_or(|wait| wait > LONGEST_RETRIED) {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
}

fn strip(headers: &mut HeaderMap) {
    let fields = [&REQUESTS, &TOKENS];
    let names = fields.iter().flat_map(|fields| [&fields.limit, &fields.remaining, &fields.reset]);
    for name in names.chain([&RATELIMIT, &RATELIMIT_POLICY]) {
        headers.remove(name);
    }
}

/// Writes all fields. `wait` is what `Retry-After` says to who is refused: no reset is told that lies beyond
/// it, as the draft demands.
fn report(headers: &mut HeaderMap, levels: &Levels, wait: Option<Duration>) {
    let (mut status, mut policy) = (String::new(), String::new());
    for level in levels.iter() {
        write_policy(&mut policy, &level);
    }
    if let Some(first) = levels.tightest() {
        write_status(&mut status, &first, wait);
        for level in levels.iter().filter(|level| level.limit.name() != first.limit.name()) {
            write_status(&mut status, &level, wait);
        }
    }
    append(headers, RATELIMIT, status);
    append(headers, RATELIMIT_POLICY, policy);
    for fields in [&REQUESTS, &TOKENS] {
        let of_unit = levels.iter().filter(|level| level.limit.unit() == fields.unit);
        if let Some(level) = of_unit.reduce(tighter) {
            fields.write(headers, &level);
        }
    }
}

fn tighter<'a>(a: Level<'a>, b: Level<'a>) -> Level<'a> {
    if b.is_tighter_than(&a) { b } else { a }
}

fn write_policy(out: &mut String, level: &Level<'_>) {
    let (limit, separator) = (level.limit, separator(out));
    let window = seconds(limit.window());
    let _ = write!(out, "{separator}\"{}\";q={}", limit.name(), limit.max().min(LARGEST));
    if limit.unit() == Unit::Tokens {
        out.push_str(";qu=\"tokens\"");
    }
    let _ = write!(out, ";w={window}");
}

fn write_status(out: &mut String, level: &Level<'_>, wait: Option<Duration>) {
    let (name, separator) = (level.limit.name(), separator(out));
    let until = wait.map_or_else(|| level.until_more(), |wait| level.reset.min(wait));
    let (left, until) = (level.remaining.min(LARGEST), seconds(until));
    let _ = write!(out, "{separator}\"{name}\";r={left}");
    // Of a limit of 0 nothing is ever there again.
    if level.limit.max() > 0 {
        let _ = write!(out, ";t={until}");
    }
}

fn separator(list: &str) -> &'static str {
    if list.is_empty() { "" } else { ", " }
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.append(name, value);
    }
}

// === impl Fields ===

impl Fields {
    /// Writes the fields unless a limiter further in has less left.
    fn write(&self, headers: &mut HeaderMap, level: &Level<'_>) {
        let told = headers.get(&self.remaining);
        let told = told.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if told.is_some_and(|told| told <= level.remaining) {
            return;
        }
        headers.insert(&self.limit, HeaderValue::from(level.limit.max()));
        headers.insert(&self.remaining, HeaderValue::from(level.remaining));
        let reset = HeaderValue::try_from(go_duration(level.reset)).ok();
        match reset.filter(|_| level.limit.max() > 0) {
            Some(reset) => headers.insert(&self.reset, reset),
            None => headers.remove(&self.reset),
        };
    }
}

/// A duration as Go prints it, rounded up: `12ms`, `1s`, `6m0s`, `1h0m0s`.
fn go_duration(duration: Duration) -> String {
    let milliseconds = milliseconds(duration);
    if (1..1000).contains(&milliseconds) {
        return format!("{milliseconds}ms");
    }
    let seconds = seconds(duration);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// Whole seconds, rounded up: whoever waits that long has waited long enough.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Whole milliseconds, rounded up.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
