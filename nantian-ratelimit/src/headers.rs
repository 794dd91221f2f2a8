//! Response fields: `Retry-After`, `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers-11), and those that clients of OpenAI (`x-ratelimit-*`) and
//! Anthropic (`anthropic-ratelimit-*`) read.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::Response;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use jiff::Timestamp;

use crate::error::{Denied, MissingPart, Unavailable};
use crate::levels::{Level, Levels};
use crate::limit::Unit;
use crate::scope::ScopePart;

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

/// As OpenAI has them.
const OPENAI: [Fields; 2] = [
    Fields {
        unit: Unit::Requests,
        limit: HeaderName::from_static("x-ratelimit-limit-requests"),
        remaining: HeaderName::from_static("x-ratelimit-remaining-requests"),
        reset: HeaderName::from_static("x-ratelimit-reset-requests"),
    },
    Fields {
        unit: Unit::Tokens,
        limit: HeaderName::from_static("x-ratelimit-limit-tokens"),
        remaining: HeaderName::from_static("x-ratelimit-remaining-tokens"),
        reset: HeaderName::from_static("x-ratelimit-reset-tokens"),
    },
];

/// As Anthropic has them.
const ANTHROPIC: [Fields; 2] = [
    Fields {
        unit: Unit::Requests,
        limit: HeaderName::from_static("anthropic-ratelimit-requests-limit"),
        remaining: HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
        reset: HeaderName::from_static("anthropic-ratelimit-requests-reset"),
    },
    Fields {
        unit: Unit::Tokens,
        limit: HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
        remaining: HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
        reset: HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
    },
];

/// How the fields begin by which servers tell where limits stand.
const FAMILIES: [&str; 6] = [
    "ratelimit",
    "x-ratelimit",
    "x-rate-limit-",
    "anthropic-ratelimit-",
    "anthropic-priority-",
    "anthropic-fast-",
];

/// Marks a response whose fields are ours, not an upstream's.
#[derive(Debug, Clone, Copy)]
struct Reported;

// === impl Levels ===

impl Levels {
    /// Writes where the limits stand, for the head of a response: `RateLimit`, `RateLimit-Policy`,
    /// `x-ratelimit-*`.
    ///
    /// All fields of these names, and those of Anthropic (`anthropic-ratelimit-*`, `-priority-*`, `-fast-*`),
    /// that are in `headers` are an upstream's and are removed: clients must not take its limits for these.
    /// [`RateLimitLayer`](crate::RateLimitLayer) does this by itself.
    pub fn write_fields(&self, headers: &mut HeaderMap) {
        strip(headers);
        report(headers, self, None);
    }

    /// Writes the same in the fields that clients of Anthropic read, after those: `anthropic-ratelimit-*`,
    /// which tell a reset as a time of day, that is `now` where the limits are.
    ///
    /// [`RateLimitLayer`](crate::RateLimitLayer) does this by itself for requests with `anthropic-version`.
    pub fn write_anthropic_fields(&self, headers: &mut HeaderMap, now: SystemTime) {
        let text = |reset| now.checked_add(reset).map(date_time).unwrap_or_default();
        ANTHROPIC.iter().for_each(|fields| fields.write(headers, self, text));
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

// === impl MissingPart ===

impl MissingPart {
    /// Writes what a 401 must say (RFC 9110, section 15.5.2), which credential is missing
    /// (`WWW-Authenticate`): `Bearer` where the scope counts by `apiKey`, `Basic` where it counts by `user`.
    /// What is there already stays.
    ///
    /// [`RateLimitLayer`](crate::RateLimitLayer) does this by itself.
    pub fn write_fields(&self, headers: &mut HeaderMap) {
        let challenge = match self.part {
            ScopePart::ApiKey => r#"Bearer realm="rate limit""#,
            ScopePart::User => r#"Basic realm="rate limit""#,
            _ => return,
        };
        headers.entry(WWW_AUTHENTICATE).or_insert(HeaderValue::from_static(challenge));
    }
}

/// Whether the client is one of Anthropic's, as it tells every server.
pub(crate) fn is_of_anthropic(request: &HeaderMap) -> bool {
    request.contains_key("anthropic-version")
}

/// Tells an admitted caller where the limits stand.
///
/// Fields of the upstream are replaced; those of a limiter further in are joined.
pub(crate) fn admitted<B>(response: &mut Response<B>, levels: &Levels, is_of_anthropic: bool) {
    strip_once(response);
    report(response.headers_mut(), levels, None);
    if is_of_anthropic {
        levels.write_anthropic_fields(response.headers_mut(), SystemTime::now());
    }
}

/// Removes an upstream's fields, not those of a limiter further in.
pub(crate) fn strip_once<B>(response: &mut Response<B>) {
    if response.extensions_mut().insert(Reported).is_none() {
        strip(response.headers_mut());
    }
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
    let tells_limits = |name: &&HeaderName| FAMILIES.iter().any(|start| name.as_str().starts_with(start));
    let names: Vec<HeaderName> = headers.keys().filter(tells_limits).cloned().collect();
    for name in names {
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
    OPENAI.iter().for_each(|fields| fields.write(headers, levels, go_duration));
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
    /// Writes the fields for the tightest limit of the unit, unless a limiter further in has less left.
    fn write(&self, headers: &mut HeaderMap, levels: &Levels, reset_text: impl Fn(Duration) -> String) {
        let of_unit = levels.iter().filter(|level| level.limit.unit() == self.unit);
        let Some(level) = of_unit.reduce(tighter) else { return };
        let told = headers.get(&self.remaining);
        let told = told.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if told.is_some_and(|told| told <= level.remaining) {
            return;
        }
        headers.insert(&self.limit, HeaderValue::from(level.limit.max()));
        headers.insert(&self.remaining, HeaderValue::from(level.remaining));
        let reset = HeaderValue::try_from(reset_text(level.reset)).ok();
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

/// A time in UTC as RFC 3339 has it, rounded up to a second; nothing for one after the year 9999.
fn date_time(time: SystemTime) -> String {
    let since = seconds(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let time = i64::try_from(since).ok().and_then(|since| Timestamp::from_second(since).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// Whole seconds, rounded up: whoever waits that long has waited long enough.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Whole milliseconds, rounded up.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
