//! Who is told of the calls of an AIService: limits, metrics, the access log and collectors.

use std::{sync::Arc, time::SystemTime};

use http::Extensions;
use nantian_ai::{
    Operation, RequestFacts, Settings, Target,
    usage::{AttemptReport, UsageObserver, UsageReport, UsageSink},
};
use tokio::time::Instant;

use super::settle::Settle;
use crate::{
    ir::ObjectName,
    metrics::AiMetrics,
    observe::{AiCalls, PendingCall},
    policy::Lengths,
    telemetry::{CallRecord, Export, ServiceInfo, TraceParent},
};

/// The most that is told of a request and of its answer, in bytes each.
const CONTENT: usize = 64 * 1024;

/// When the request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived(pub(super) Instant);

/// Who is told of the calls of an AIService.
#[derive(Debug, Clone)]
pub(crate) struct AiObserver {
    service: Arc<ServiceInfo>,
    metrics: Arc<AiMetrics>,
    lengths: Arc<Lengths>,
    exports: Arc<[Arc<Export>]>,
}

/// The end of one call.
#[derive(Debug)]
pub(crate) struct CallSink {
    settle: Settle,
    /// Absent where no model is asked for an answer.
    call: Option<Call>,
}

#[derive(Debug)]
struct Call {
    observer: AiObserver,
    operation: Option<Operation>,
    max_tokens: Option<u64>,
    choices: u64,
    stream: bool,
    arrived: Option<Arrived>,
    /// Absent where no collector is told.
    settings: Option<Arc<Settings>>,
    parent: Option<TraceParent>,
    /// Present if there is an access log.
    noted: Option<PendingCall>,
}

/// What traces tell of an AIService.
pub(crate) fn service_info(name: &ObjectName, target: &Target) -> Arc<ServiceInfo> {
    let endpoint = target.endpoint();
    let default_port = if endpoint.scheme() == &http::uri::Scheme::HTTPS { 443 } else { 80 };
    Arc::new(ServiceInfo {
        name: name.to_string(),
        provider: provider_name(&target.config().provider, target.is_vertex()),
        model: target.model().to_owned(),
        host: endpoint.authority().host().to_owned(),
        port: endpoint.authority().port_u16().unwrap_or(default_port),
    })
}

/// `gen_ai.provider.name`, which spells some differently.
fn provider_name(provider: &str, is_vertex: bool) -> String {
    let name = provider.to_ascii_lowercase();
    match name.as_str() {
        "anthropic" | "gemini" if is_vertex => "gcp.vertex_ai".to_owned(),
        "azure-openai" => "azure.ai.openai".to_owned(),
        "bedrock" => "aws.bedrock".to_owned(),
        "gemini" => "gcp.gemini".to_owned(),
        "mistral" => "mistral_ai".to_owned(),
        "moonshot" => "moonshot_ai".to_owned(),
        "xai" => "x_ai".to_owned(),
        _ => name,
    }
}

// === impl AiObserver ===

impl AiObserver {
    /// Tells `metrics` and collectors of every call, and traces of those that no client asks not to record.
    /// `lengths` learns how long prompts and answers are.
    pub(crate) fn new(
        service: Arc<ServiceInfo>,
        metrics: Arc<AiMetrics>,
        lengths: Arc<Lengths>,
        exports: Vec<Arc<Export>>,
    ) -> Self {
        Self { service, metrics, lengths, exports: exports.into() }
    }

    /// How long prompts and answers are, as far as it has been told.
    pub(crate) fn lengths(&self) -> Arc<Lengths> {
        Arc::clone(&self.lengths)
    }

    /// Whether anybody wants to know which trace a call belongs to.
    pub(super) fn asks_for_traces(&self) -> bool {
        !self.exports.is_empty()
    }

    /// Warns once in a while where the provider refuses the credential: no client can do anything about it.
    fn remind(&self, attempts: &[AttemptReport]) {
        let refused = attempts.iter().find(|attempt| attempt.error == Some("upstream_auth"));
        let Some(refused) = refused else { return };
        if self.metrics.is_reminder_due() {
            let service = self.service.name.as_str();
            let status = refused.status.map(|status| status.as_u16());
            tracing::warn!(
                ai_service = service,
                status,
                "the provider does not take the AIService's credential"
            );
        }
    }
}

impl UsageObserver for AiObserver {
    type Sink = CallSink;

    fn keeps(&self) -> usize {
        let captures = self.exports.iter().any(|export| export.tells_contents());
        if captures { CONTENT } else { 0 }
    }

    fn begin(&self, extensions: &Extensions, facts: &RequestFacts) -> CallSink {
        let answers = facts.operation.is_none_or(Operation::spends);
        let call = answers.then(|| Call {
            observer: self.clone(),
            operation: facts.operation,
            max_tokens: facts.max_output(),
            choices: facts.choices,
            stream: facts.stream,
            arrived: extensions.get::<Arrived>().copied(),
            settings: (!self.exports.is_empty()).then(|| Arc::new(facts.settings.clone())),
            parent: extensions.get::<TraceParent>().copied(),
            noted: extensions.get::<AiCalls>().map(|calls| calls.begin(facts)),
        });
        let lengths = answers.then(|| Arc::clone(&self.lengths));
        CallSink { settle: Settle::new(extensions, facts, lengths), call }
    }
}

impl UsageSink for CallSink {
    fn finish(self, report: UsageReport) {
        if let Some(call) = self.call {
            call.tell(&report, false);
        }
        self.settle.finish(report);
    }

    fn pass_on(self, report: UsageReport) {
        if let Some(call) = self.call {
            call.tell(&report, true);
        }
        self.settle.attempt(&report);
    }
}

// === impl Call ===

impl Call {
    fn tell(self, report: &UsageReport, failed_over: bool) {
        let Self { observer, operation, max_tokens, choices, stream, arrived, settings, parent, noted } =
            self;
        let settings = settings.unwrap_or_default();
        if let Some(noted) = noted {
            noted.finish(&observer.service, report);
        }
        observer.metrics.count(report, failed_over);
        observer.remind(&report.call.attempts);
        if observer.exports.is_empty() {
            return;
        }
        let trace = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace);
        let taken = arrived.map(|Arrived(at)| at.elapsed());
        let waited = taken.unwrap_or_default().saturating_sub(report.call.duration);
        for export in observer.exports.iter() {
            export.tell(CallRecord {
                service: Arc::clone(&observer.service),
                operation,
                max_tokens,
                choices,
                stream,
                trace,
                waited,
                settings: Arc::clone(&settings),
                parent,
                ended: SystemTime::now(),
                report: report.clone(),
                failed_over,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_told_by_the_names_of_the_conventions() {
        const VERTEX: &str = "https://aiplatform.us.rep.googleapis.com/v1/projects/p/locations/us";
        let vertex = |end: &str| Some(format!("{VERTEX}{end}"));
        for (provider, endpoint, name) in [
            ("OpenAI", None, "openai"),
            ("mistral", None, "mistral_ai"),
            ("gemini", None, "gcp.gemini"),
            ("gemini", vertex("/publishers/google"), "gcp.vertex_ai"),
            ("anthropic", vertex("/publishers/anthropic"), "gcp.vertex_ai"),
            ("gemini", Some("http://10.0.0.9/v1/publishers/google/".to_owned()), "gcp.vertex_ai"),
        ] {
            let mut config = nantian_ai::TargetConfig::new("demo/a", provider, "m");
            if let Some(endpoint) = &endpoint {
                config = config.with_endpoint(endpoint);
            }
            let target = Target::new(config).unwrap();
            assert_eq!(provider_name(&target.config().provider, target.is_vertex()), name, "{endpoint:?}");
        }
    }
}
