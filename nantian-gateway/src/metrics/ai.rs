//! Counters of one AIService, and the bridge to Prometheus for them.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use nantian_ai::usage::{AttemptReport, Outcome, UsageReport};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};
use tokio::time::Instant;

use super::{
    Metrics,
    family::{counters, labels},
};
use crate::{sync::lock, telemetry::ExportCounts};

/// How calls end.
const OUTCOMES: [&str; 4] = ["completed", "aborted", "truncated", "not_served"];

/// How often the log says of an AIService that its credential is refused.
const REMINDER: Duration = Duration::from_secs(60);

/// What is counted in tokens; what came from a cache or went into one is part of the input, reasoning is part
/// of the output.
const KINDS: [&str; 5] = ["input", "output", "cached", "cache_written", "reasoning"];

/// Upper bounds of the time to the first token and between tokens, in milliseconds.
const BOUNDS: [u64; 14] = [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];

labels! {
    /// What becomes of an attempt.
    enum AttemptResult {
        /// The provider serves it.
        Success = "2xx",
        /// The provider answers with a 4xx that is none of the others.
        ClientError = "4xx",
        /// The provider answers with a 5xx.
        ServerError = "5xx",
        /// The provider has had too many requests.
        RateLimited = "429",
        /// The provider refuses the AIService's credential, or none is to be had.
        Credential = "credential",
        /// The answer has not come in time, or not its first token.
        Timeout = "timeout",
        /// Nobody answers.
        Unreachable = "unreachable",
        /// The stream says an error or breaks off, or the answer is none of a provider.
        Other = "other",
        /// Nobody waits for it any more.
        Aborted = "aborted",
    }
}

/// Counters of one AIService.
#[derive(Debug, Default)]
pub(crate) struct AiMetrics {
    outcomes: [AtomicU64; OUTCOMES.len()],
    tokens: [AtomicU64; KINDS.len()],
    attempts: [AtomicU64; AttemptResult::LABELS.len()],
    /// When its credential was last said to be refused.
    reminded: Mutex<Option<Instant>>,
    failovers: AtomicU64,
    over_budget: AtomicU64,
    lossy: AtomicU64,
    first_token: Times,
    between_tokens: Times,
    exports: Arc<ExportCounts>,
}

#[derive(Debug, Default)]
struct Times {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

// === impl AttemptResult ===

impl AttemptResult {
    fn of(attempt: &AttemptReport) -> Self {
        let by_status = attempt.status.map(|status| match status.as_u16() {
            429 => Self::RateLimited,
            200..300 => Self::Success,
            400..500 => Self::ClientError,
            500..600 => Self::ServerError,
            _ => Self::Other,
        });
        match (attempt.error, by_status) {
            (Some("upstream_auth"), _) => Self::Credential,
            (Some("timeout"), _) => Self::Timeout,
            (Some("upstream_unreachable"), None) => Self::Unreachable,
            (Some(_), None | Some(Self::Success)) => Self::Other,
            (_, Some(result)) => result,
            (None, None) => Self::Aborted,
        }
    }
}

// === impl AiMetrics ===

impl AiMetrics {
    /// Counts a call, and whether another AIService was asked afterwards.
    pub(crate) fn count(&self, report: &UsageReport, failed_over: bool) {
        let outcome = match report.outcome {
            Outcome::Completed => 0,
            Outcome::Aborted => 1,
            Outcome::Truncated => 2,
            _ => 3,
        };
        add(self.outcomes.get(outcome), 1);
        let usage = &report.usage;
        let tokens = [usage.input, usage.output, usage.cached, usage.cache_written, usage.reasoning];
        for (counter, tokens) in self.tokens.iter().zip(tokens) {
            counter.fetch_add(tokens, Relaxed);
        }
        for attempt in &report.call.attempts {
            add(self.attempts.get(AttemptResult::of(attempt) as usize), 1);
        }
        self.failovers.fetch_add(failed_over.into(), Relaxed);
        self.over_budget.fetch_add(report.call.over_budget.into(), Relaxed);
        self.lossy.fetch_add((!report.call.dropped.is_empty()).into(), Relaxed);
        self.first_token.observe(report.call.first_token);
        self.between_tokens.observe(report.call.between_tokens);
    }

    /// Whether it is time to say that the credential is refused.
    pub(crate) fn is_reminder_due(&self) -> bool {
        let (now, mut reminded) = (Instant::now(), lock(&self.reminded));
        let is_due = reminded.is_none_or(|last| now.duration_since(last) >= REMINDER);
        if is_due {
            *reminded = Some(now);
        }
        is_due
    }

    /// What becomes of records for collectors.
    pub(crate) fn exports(&self) -> &Arc<ExportCounts> {
        &self.exports
    }
}

fn add(counter: Option<&AtomicU64>, count: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(count, Relaxed);
    }
}

// === impl Times ===

impl Times {
    fn observe(&self, time: Option<Duration>) {
        let Some(time) = time else { return };
        let at = BOUNDS.iter().position(|bound| time <= Duration::from_millis(*bound));
        add(self.buckets.get(at.unwrap_or(BOUNDS.len())), 1);
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn encode(&self, encoder: &mut prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().map(|bound| Duration::from_millis(*bound).as_secs_f64());
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let seconds = Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }
}

impl Metrics {
    pub(super) fn encode_ai(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let services: Vec<(String, Arc<AiMetrics>)> = {
            let services = lock(&self.ai_services);
            services.iter().map(|(name, metrics)| (name.clone(), Arc::clone(metrics))).collect()
        };
        let services = services.as_slice();
        let loads =
            |counters: &[AtomicU64]| counters.iter().map(|count| count.load(Relaxed)).collect::<Vec<_>>();
        let help = "Calls of an AIService that are over, by how they ended";
        labelled(encoder, ("nantian_ai_calls", help), services, "outcome", |it| {
            OUTCOMES.into_iter().zip(loads(&it.outcomes)).collect()
        })?;
        let help =
            "Tokens by kind; cached and cache_written are parts of input, reasoning is a part of output";
        labelled(encoder, ("nantian_ai_tokens", help), services, "kind", |it| {
            KINDS.into_iter().zip(loads(&it.tokens)).collect()
        })?;
        let help = "Records of calls for collectors, by what became of them";
        labelled(encoder, ("nantian_ai_exported_records", help), services, "result", |it| {
            it.exports.get().to_vec()
        })?;
        let help = "Requests that a provider was sent, further attempts included, by what became of them";
        labelled(encoder, ("nantian_ai_attempts", help), services, "result", |it| {
            AttemptResult::LABELS.into_iter().zip(loads(&it.attempts)).collect()
        })?;
        let help = "Calls that failed, so that another AIService was asked";
        plain(encoder, ("nantian_ai_failovers", help), services, |it| &it.failovers)?;
        let help = "Calls that were not sent again because too many others were";
        plain(encoder, ("nantian_ai_retries_over_budget", help), services, |it| &it.over_budget)?;
        let help = "Calls of which one of the two dialects had no words for something";
        plain(encoder, ("nantian_ai_lossy_calls", help), services, |it| &it.lossy)?;
        let help = "Time to the first token of a stream";
        times(encoder, ("nantian_ai_time_to_first_token_seconds", help), services, |it| &it.first_token)?;
        let help = "Mean time between the tokens of a stream";
        times(encoder, ("nantian_ai_time_between_tokens_seconds", help), services, |it| &it.between_tokens)
    }
}

/// Counters with a label of their own.
fn labelled(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    services: &[(String, Arc<AiMetrics>)],
    label: &str,
    counts: impl Fn(&AiMetrics) -> Vec<(&'static str, u64)>,
) -> fmt::Result {
    let samples = services.iter().flat_map(|(service, metrics)| {
        let counts = counts(metrics).into_iter();
        counts.map(move |(value, count)| ([("ai_service", service.as_str()), (label, value)], count))
    });
    counters(encoder, name, help, samples)
}

fn plain(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    services: &[(String, Arc<AiMetrics>)],
    counter: impl Fn(&AiMetrics) -> &AtomicU64,
) -> fmt::Result {
    let samples = services
        .iter()
        .map(|(service, metrics)| ([("ai_service", service.as_str())], counter(metrics).load(Relaxed)));
    counters(encoder, name, help, samples)
}

fn times(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    services: &[(String, Arc<AiMetrics>)],
    of: impl Fn(&AiMetrics) -> &Times,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (service, metrics) in services {
        of(metrics).encode(&mut family.encode_family(&[("ai_service", service.as_str())])?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn attempts_tell_why_a_provider_fails() {
        for (status, error, expected) in [
            (Some(200), None, "2xx"),
            (Some(200), Some("timeout"), "timeout"),
            (Some(200), Some("overloaded"), "other"),
            (Some(400), None, "4xx"),
            (Some(400), Some("upstream_auth"), "credential"),
            (Some(401), Some("upstream_auth"), "credential"),
            (Some(429), None, "429"),
            (Some(429), Some("rate_limit_exceeded"), "429"),
            (Some(503), None, "5xx"),
            (Some(302), None, "other"),
            (None, Some("upstream_auth"), "credential"),
            (None, Some("timeout"), "timeout"),
            (None, Some("upstream_unreachable"), "unreachable"),
            (None, None, "aborted"),
        ] {
            let mut attempt = AttemptReport::default();
            attempt.status = status.map(|status| StatusCode::from_u16(status).unwrap());
            attempt.error = error;
            assert_eq!(AttemptResult::of(&attempt).as_str(), expected, "{attempt:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_credential_is_said_once_a_minute() {
        let metrics = AiMetrics::default();
        let mut due = Vec::new();
        for seconds in [0, 59, 1, 0] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            due.push(metrics.is_reminder_due());
        }
        assert_eq!(due, [true, false, true, false]);
    }
}
