//! One call, as it is told.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use nantian_ai::{
    Operation, Settings,
    usage::{Outcome, UsageReport},
};

/// The AIService that was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceInfo {
    /// `namespace/name`.
    pub(crate) name: String,
    /// The provider, as the semantic conventions of OpenTelemetry name it.
    pub(crate) provider: String,
    /// The model that the provider was asked for.
    pub(crate) model: String,
    /// The provider's host.
    pub(crate) host: String,
    /// The provider's port.
    pub(crate) port: u16,
}

/// One call of an AIService.
#[derive(Debug, Clone)]
pub(crate) struct CallRecord {
    /// Who was called.
    pub(crate) service: Arc<ServiceInfo>,
    /// What the client asked for.
    pub(crate) operation: Option<Operation>,
    /// The most tokens of the answer, as the client limits it.
    pub(crate) max_tokens: Option<u64>,
    /// How many answers.
    pub(crate) choices: u64,
    /// How they are to be made, and for whom.
    pub(crate) settings: Arc<Settings>,
    /// Whether it wants a stream.
    pub(crate) stream: bool,
    /// The trace that the call belongs to: the client's, or one of its own.
    pub(crate) trace: u128,
    /// What the client says of the trace, if it names one.
    pub(crate) parent: Option<TraceParent>,
    /// How long the request has been here when the call began: in queues, and while other AIServices were
    /// asked.
    pub(crate) waited: Duration,
    /// When the answer ended.
    pub(crate) ended: SystemTime,
    /// How it went.
    pub(crate) report: UsageReport,
    /// Whether another AIService was asked afterwards.
    pub(crate) failed_over: bool,
}

/// A trace and a span of it, as a client names them (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// The trace.
    pub(crate) trace: u128,
    /// The span that asked.
    pub(crate) span: u64,
    /// Whether it is recorded.
    pub(crate) sampled: bool,
}

// === impl CallRecord ===

impl CallRecord {
    /// How long its contents are, in bytes; 0 if they are not kept.
    pub(super) fn content_len(&self) -> usize {
        let content = self.report.call.content.as_ref();
        content.map_or(0, |content| content.request.len().saturating_add(content.reply.len()))
    }

    /// `gen_ai.operation.name`.
    pub(super) fn operation_name(&self) -> &'static str {
        match self.operation {
            Some(Operation::Embeddings) => "embeddings",
            Some(Operation::Generate) => "text_completion",
            _ => "chat",
        }
    }

    /// `error.type`, if it failed.
    pub(super) fn error(&self) -> Option<&'static str> {
        match (self.report.call.error, self.report.outcome) {
            (Some(error), _) => Some(error),
            (None, Outcome::NotServed | Outcome::Refused) => Some("upstream_error"),
            (None, _) => None,
        }
    }

    /// The time of each token after the first, where that can be told: what thinks unseen has done so before
    /// its first token.
    pub(super) fn time_per_token(&self) -> Option<Duration> {
        let (call, usage) = (&self.report.call, &self.report.usage);
        let is_told = self.report.outcome == Outcome::Completed && !usage.estimated && usage.reasoning == 0;
        let tokens = u32::try_from(usage.output.saturating_sub(1)).ok().filter(|tokens| *tokens > 0)?;
        let since = call.duration.checked_sub(call.first_token?)?;
        is_told.then(|| since / tokens)
    }
}

// === impl TraceParent ===

impl TraceParent {
    /// Reads a `traceparent` header: any version, as far as version 00 says what it holds.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let mut fields = header.trim().split('-');
        let hex = |text: &str, length: usize| {
            let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            is_hex && text.len() == length
        };
        let version = fields.next().filter(|version| hex(version, 2) && *version != "ff")?;
        let trace = fields.next().filter(|trace| hex(trace, 32))?;
        let span = fields.next().filter(|span| hex(span, 16))?;
        let flags = fields.next().filter(|flags| hex(flags, 2))?;
        if version == "00" && fields.next().is_some() {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_a_client_is_read() {
        let parent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(parent.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span, parent.sampled), (0x00f0_67aa_0ba9_02b7, true));
        let newer = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more";
        assert!(!TraceParent::parse(newer).unwrap().sampled);
    }

    #[test]
    fn what_names_no_trace_names_none() {
        for header in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(header), None, "{header}");
        }
    }
}
