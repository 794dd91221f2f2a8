//! What the access log says of the AIServices that a request was sent to.

use std::{
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::StatusCode;
use nantian_ai::{
    ClientDialect, Dialect, RequestFacts,
    usage::{AttemptReport, Outcome, UsageReport},
};
use serde::{Serialize, Serializer};

use crate::{
    sync::lock,
    telemetry::{ServiceInfo, outcome_name},
};

/// How much is noted of a model's name that a client has given, in letters.
const LONGEST_MODEL: usize = 256;

/// Where the calls of AIServices for one request are noted: in its extensions if there is an access log.
#[derive(Debug, Clone, Default)]
pub(crate) struct AiCalls(Arc<Mutex<Vec<AiCall>>>);

/// A call that is under way, and is noted once it is over.
#[derive(Debug)]
pub(crate) struct PendingCall {
    calls: AiCalls,
    client_dialect: Option<ClientDialect>,
    original_model: Option<String>,
}

/// One call, further attempts included.
#[derive(Debug, Serialize)]
pub(super) struct AiCall {
    service: String,
    provider: String,
    /// What the client speaks and what the provider was asked in, as `spec.format` names them.
    client_dialect: Option<&'static str>,
    provider_dialect: Option<&'static str>,
    /// As the client has named it, as the provider was asked for it, and as it says that has answered.
    original_model: Option<String>,
    request_model: String,
    response_model: Option<String>,
    #[serde(serialize_with = "by_name")]
    outcome: Outcome,
    error: Option<&'static str>,
    attempts: Vec<Attempt>,
    /// Whether the answer was one.
    stream: bool,
    input_tokens: u64,
    output_tokens: u64,
    cached_tokens: u64,
    cache_written_tokens: u64,
    reasoning_tokens: u64,
    /// Whether the provider has not told all of them.
    estimated: bool,
    time_to_first_token_ms: Option<f64>,
    /// What one of the two dialects had no words for.
    #[serde(skip_serializing_if = "String::is_empty")]
    dropped: String,
}

#[derive(Debug, Serialize)]
struct Attempt {
    /// What the provider has answered with, if it has.
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    duration_ms: f64,
}

// === impl AiCalls ===

impl AiCalls {
    /// A call that begins.
    pub(crate) fn begin(&self, facts: &RequestFacts) -> PendingCall {
        let original_model = facts.model.as_deref().map(|model| model.chars().take(LONGEST_MODEL).collect());
        PendingCall { calls: self.clone(), client_dialect: facts.dialect, original_model }
    }

    /// Why the last call, for which the client got `status`, came to no answer or to none that is whole.
    pub(super) fn failure(&self, status: Option<StatusCode>) -> Option<String> {
        let calls = lock(&self.0);
        let call = calls.last()?;
        let has_failed = call.outcome == Outcome::Truncated || status?.is_server_error();
        let why = call.error.filter(|_| has_failed)?;
        Some(format!("the provider of {} gave no whole answer: {why}", call.service))
    }

    /// Whether nobody waited for the end of the last answer.
    pub(super) fn is_aborted(&self) -> bool {
        lock(&self.0).last().is_some_and(|call| call.outcome == Outcome::Aborted)
    }

    /// Those that have been noted.
    pub(super) fn take(&self) -> Vec<AiCall> {
        mem::take(&mut *lock(&self.0))
    }
}

// === impl PendingCall ===

impl PendingCall {
    /// Notes the call, which is over.
    pub(crate) fn finish(self, service: &ServiceInfo, report: &UsageReport) {
        let (call, usage) = (&report.call, &report.usage);
        let noted = AiCall {
            service: service.name.clone(),
            provider: service.provider.clone(),
            client_dialect: self.client_dialect.map(|dialect| Dialect::from(dialect).name()),
            provider_dialect: call.dialect.map(Dialect::name),
            original_model: self.original_model,
            request_model: service.model.clone(),
            response_model: call.model.clone(),
            outcome: report.outcome,
            error: call.error,
            attempts: call.attempts.iter().map(Attempt::of).collect(),
            stream: call.stream,
            input_tokens: usage.input,
            output_tokens: usage.output,
            cached_tokens: usage.cached,
            cache_written_tokens: usage.cache_written,
            reasoning_tokens: usage.reasoning,
            estimated: usage.estimated,
            time_to_first_token_ms: call.first_token.map(milliseconds),
            dropped: call.dropped.to_string(),
        };
        lock(&self.calls.0).push(noted);
    }
}

// === impl Attempt ===

impl Attempt {
    fn of(attempt: &AttemptReport) -> Self {
        let (status, error) = (attempt.status.map(|status| status.as_u16()), attempt.error);
        Self { status, error, duration_ms: milliseconds(attempt.duration) }
    }
}

fn by_name<S: Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome_name(*outcome))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
