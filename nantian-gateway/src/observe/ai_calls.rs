//! What the access log says of the AIServices that a request was sent to.

use std::{
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use nantian_ai::usage::UsageReport;
use serde::Serialize;

use crate::{
    sync::lock,
    telemetry::{ServiceInfo, outcome_name},
};

/// Where the calls of AIServices for one request are noted: in its extensions if there is an access log.
#[derive(Debug, Clone, Default)]
pub(crate) struct AiCalls(Arc<Mutex<Vec<AiCall>>>);

/// One call, further attempts included.
#[derive(Debug, Serialize)]
pub(super) struct AiCall {
    service: String,
    provider: String,
    /// As the provider names it.
    model: Option<String>,
    outcome: &'static str,
    error: Option<&'static str>,
    attempts: u32,
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

// === impl AiCalls ===

impl AiCalls {
    /// Notes a call that is over.
    pub(crate) fn note(&self, service: &ServiceInfo, report: &UsageReport) {
        let (call, usage) = (&report.call, &report.usage);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let noted = AiCall {
            service: service.name.clone(),
            provider: service.provider.clone(),
            model: call.model.clone(),
            outcome: outcome_name(report.outcome),
            error: call.error,
            attempts: call.attempts,
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
        lock(&self.0).push(noted);
    }

    /// Those that have been noted.
    pub(super) fn take(&self) -> Vec<AiCall> {
        mem::take(&mut *lock(&self.0))
    }
}
