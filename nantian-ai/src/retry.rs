//! When a failed attempt is repeated, and after how long: decided without clock and chance of its own.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};

pub use crate::call::budget::{BudgetPolicy, BudgetedCall, RetryBudget};

/// How often a request is repeated, and how long to wait before.
///
/// The wait before the n-th repetition is drawn evenly from zero to a bound that grows with n, at most
/// `max_backoff` ("full jitter"), and is never less than what the upstream's `Retry-After` asks for. In a 429
/// that has none it is what `x-ratelimit-reset` says where `x-ratelimit-remaining` is 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts after the first.
    ///
    /// Default: 0. Source: `AIService.spec.retry.maxRetries`.
    pub max_retries: u32,
    /// The bound of the wait before the first repetition.
    ///
    /// Default: 500 ms. Source: `AIService.spec.retry.backoff`.
    pub backoff: Duration,
    /// How the bound grows with each further repetition.
    ///
    /// Default: [`Growth::Exponential`]. Source: `AIService.spec.retry.backoff`.
    pub growth: Growth,
    /// The longest wait. An upstream that asks for a longer one is not asked again: its answer, with its
    /// `Retry-After`, is for the client to act on. In a [`ModelRoute`](crate::route::ModelRoute) one that
    /// asks for longer than `backoff`, and a second, makes way for the next model, and is waited for once all
    /// others have failed.
    ///
    /// Default: 30 s. Source: the operator of the proxy.
    pub max_backoff: Duration,
    /// How many of the target's calls may be repeats at once. Where it is spent, the answer of the last
    /// attempt counts.
    ///
    /// Default: [`BudgetPolicy::default`]. Source: the operator of the proxy.
    pub budget: BudgetPolicy,
}

/// How the wait between attempts grows.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Growth {
    /// It doubles each time.
    #[default]
    Exponential,
    /// It is longer by the first one each time.
    Linear,
    /// It stays as it is.
    Fixed,
}

/// What came of an attempt that failed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Failure<'a> {
    /// No response: no connection, a broken one, or a timeout.
    NoResponse,
    /// A response.
    Response {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: &'a HeaderMap,
    },
}

/// How many attempts a response took. In the extensions of every response that took more than one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "it is one number")]
pub struct Attempts(pub u32);

// === impl RetryPolicy ===

impl RetryPolicy {
    /// A policy with the default longest wait.
    pub const fn new(max_retries: u32, backoff: Duration) -> Self {
        Self {
            max_retries,
            backoff,
            growth: Growth::Exponential,
            max_backoff: Duration::from_secs(30),
            budget: BudgetPolicy::standard(),
        }
    }

    /// Sets how the wait grows.
    #[must_use]
    pub const fn with_growth(mut self, growth: Growth) -> Self {
        self.growth = growth;
        self
    }

    /// Sets how many calls may be repeats.
    #[must_use]
    pub const fn with_budget(mut self, budget: BudgetPolicy) -> Self {
        self.budget = budget;
        self
    }

    /// How long to wait before the next attempt; `None` if the request is not to be repeated.
    ///
    /// `retries` attempts after the first have been made; `chance` is evenly drawn from `0.0..1.0`; `now`
    /// is what a date in `Retry-After`, or the end of a limit's window, is compared with.
    ///
    /// Repeated are failures without a response and the statuses 408, 425, 429, 500, 502, 503, 504 and
    /// 529, unless the upstream says `x-should-retry: false`.
    pub fn next_at(
        &self,
        now: SystemTime,
        retries: u32,
        failure: Failure<'_>,
        chance: f64,
    ) -> Option<Duration> {
        if retries >= self.max_retries {
            return None;
        }
        let asked = match failure {
            Failure::NoResponse => Duration::ZERO,
            Failure::Response { status, headers } => {
                let refused = headers.get("x-should-retry").is_some_and(|value| value == "false");
                if refused || !is_passing(status) {
                    return None;
                }
                failure.asked_at(now).unwrap_or_default()
            }
        };
        if asked > self.max_backoff {
            return None;
        }
        let factor = match self.growth {
            Growth::Exponential => 2_u32.saturating_pow(retries),
            Growth::Linear => retries.saturating_add(1),
            Growth::Fixed => 1,
        };
        let bound = self.backoff.saturating_mul(factor).min(self.max_backoff);
        Some(bound.mul_f64(chance.clamp(0.0, 1.0)).max(asked))
    }
}

// === impl Failure ===

impl Failure<'_> {
    /// How long the upstream does not want to be asked.
    pub(crate) fn asked_at(&self, now: SystemTime) -> Option<Duration> {
        match self {
            Self::NoResponse => None,
            Self::Response { status, headers } => {
                let is_limited = *status == StatusCode::TOO_MANY_REQUESTS;
                retry_after(headers, now).or_else(|| reset(headers, now).filter(|_| is_limited))
            }
        }
    }
}

impl Default for RetryPolicy {
    /// Never repeats.
    fn default() -> Self {
        Self::new(0, Duration::from_millis(500))
    }
}

/// Statuses of a state that passes; 529 is Anthropic's "overloaded".
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504 | 529)
}

/// `retry-after-ms` (OpenAI), else `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let seconds = |text: &str| Duration::try_from_secs_f64(text.parse().ok()?).ok();
    if let Some(wait) = text(headers, "retry-after-ms").and_then(seconds) {
        return Some(wait / 1_000);
    }
    let value = text(headers, RETRY_AFTER.as_str())?;
    seconds(value).or_else(|| {
        let date = httpdate::parse_http_date(value).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    })
}

/// How long it takes until a limit of which nothing is left is reset, as OpenRouter and those that do as it
/// does tell it. OpenAI's `-requests` and `-tokens` tell when all of a limit is there again: the next call
/// may be let in long before. What is over is no wait, and -1 is what is left where there is no limit.
fn reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let left: f64 = text(headers, "x-ratelimit-remaining")?.parse().ok()?;
    let wait = wait_until(text(headers, "x-ratelimit-reset")?, now)?;
    (left == 0.0 && !wait.is_zero()).then_some(wait)
}

/// A wait, in seconds, or until a moment, in seconds or milliseconds since 1970.
fn wait_until(text: &str, now: SystemTime) -> Option<Duration> {
    let number: f64 = text.parse().ok()?;
    // No wait is of three years, and no moment in seconds after the year 5000.
    if number < 1e8 {
        return Duration::try_from_secs_f64(number).ok();
    }
    let since = if number < 1e11 { number } else { number / 1e3 };
    let moment = SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(since).ok()?)?;
    Some(moment.duration_since(now).unwrap_or_default())
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Tells in `Retry-After` how long the upstream does not want to be asked, unless it does so itself.
pub(crate) fn tell_wait(headers: &mut HeaderMap, wait: Duration) {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    headers.entry(RETRY_AFTER).or_insert(seconds.into());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy::new(3, Duration::from_millis(500));

    fn after(status: u16, headers: &[(&'static str, &str)]) -> Option<Duration> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let failure = Failure::Response { status: StatusCode::from_u16(status).unwrap(), headers: &headers };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        POLICY.next_at(now, 0, failure, 0.5)
    }

    #[test]
    fn only_states_that_pass_are_retried() {
        for status in [408, 425, 429, 500, 502, 503, 504, 529] {
            assert_eq!(after(status, &[]), Some(Duration::from_millis(250)), "{status}");
        }
        for status in [200, 400, 401, 403, 404, 409, 422, 501] {
            assert_eq!(after(status, &[]), None, "{status}");
        }
    }

    #[test]
    fn retry_after_is_honoured_in_each_form() {
        let ten = Some(Duration::from_secs(10));
        assert_eq!(after(429, &[("retry-after", "10")]), ten);
        assert_eq!(after(429, &[("retry-after-ms", "10000"), ("retry-after", "3")]), ten);
        assert_eq!(after(429, &[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")]), ten);
        for odd in ["soon", "-1", "NaN", "1e400"] {
            assert_eq!(after(429, &[("retry-after", odd)]), Some(Duration::from_millis(250)));
        }
    }

    #[test]
    fn a_limit_that_is_used_up_is_waited_for_in_each_form() {
        let (ten, soon) = (Some(Duration::from_secs(10)), Some(Duration::from_millis(250)));
        for (reset, wait) in [
            ("10", ten),
            ("9.0", Some(Duration::from_secs(9))),
            ("784111787", ten),
            ("784111787000", ten),
            ("784111700", soon),
            ("360", None),
            ("-1", soon),
            ("later", soon),
        ] {
            let of = |left| [("x-ratelimit-remaining", left), ("x-ratelimit-reset", reset)];
            assert_eq!(after(429, &of("0")), wait, "{reset}");
            assert_eq!(after(429, &of("1")), soon, "something is left");
            assert_eq!(after(429, &of("-1")), soon, "there is no limit");
            assert_eq!(after(503, &of("0")), soon, "that is not why");
            let [left, end] = of("0");
            assert_eq!(after(429, &[("retry-after", "10"), left, end]), ten, "it has said so itself");
        }
    }

    #[test]
    fn nobody_waits_until_all_of_a_limit_is_there_again() {
        let soon = Some(Duration::from_millis(250));
        let of_requests = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "10")];
        assert_eq!(after(429, &of_requests), soon);
        let of_tokens = [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "10")];
        assert_eq!(after(429, &of_tokens), soon);
    }

    #[test]
    fn an_upstream_that_asks_for_too_long_a_wait_is_not_asked_again() {
        assert_eq!(after(429, &[("retry-after", "31")]), None);
        assert_eq!(after(503, &[("x-should-retry", "false")]), None);
    }

    #[test]
    fn no_more_attempts_than_configured() {
        let next = |retries| POLICY.next_at(SystemTime::UNIX_EPOCH, retries, Failure::NoResponse, 1.0);
        assert_eq!(next(0), Some(Duration::from_millis(500)));
        assert_eq!(next(2), Some(Duration::from_secs(2)));
        assert_eq!(next(3), None);
    }

    #[test]
    fn the_wait_grows_as_configured() {
        for (growth, seconds) in [
            (Growth::Exponential, [1, 2, 4, 8]),
            (Growth::Linear, [1, 2, 3, 4]),
            (Growth::Fixed, [1, 1, 1, 1]),
        ] {
            let policy = RetryPolicy::new(9, Duration::from_secs(1)).with_growth(growth);
            for (retries, expected) in (0..).zip(seconds) {
                let wait = policy.next_at(SystemTime::UNIX_EPOCH, retries, Failure::NoResponse, 1.0);
                assert_eq!(wait, Some(Duration::from_secs(expected)), "{growth:?} {retries}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_wait_is_within_its_bounds(retries in 0_u32..100, chance in 0.0..1.0) {
            let policy = RetryPolicy::new(u32::MAX, Duration::from_millis(500));
            let wait = policy
                .next_at(SystemTime::UNIX_EPOCH, retries, Failure::NoResponse, chance)
                .unwrap();
            prop_assert!(wait <= policy.max_backoff);
        }
    }
}
