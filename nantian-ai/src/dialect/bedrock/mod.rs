//! AWS Bedrock: Converse, one form for the models of many families, and embeddings by `InvokeModel`. Only
//! providers speak it.

mod content;
pub(crate) mod count;
pub(crate) mod embeddings;
mod extra;
mod family;
mod read_reply;
mod read_stream;
mod write_request;

pub(crate) use self::read_reply::decode as decode_reply;
pub(crate) use self::read_stream::StreamReader;
pub(crate) use self::write_request::{encode as encode_request, names_features};

use http::StatusCode;
use http::header::HeaderValue;
use serde::Deserialize;

use super::lenient::{Count, Text};
use super::segment;
use super::signal::{Reported, Signal};
use crate::codec::{Fields, Value, fault};
use crate::ir::{Fault, FaultKind, Stop};
use crate::wire::frames::{self, Frame};

/// What reasoning begins with in the common form that Bedrock has encrypted. No other family can read it.
pub(super) const OF_BEDROCK: &str = "aws.";

/// Where a model is told what is its maker's own.
pub(crate) const OWN: &str = "additionalModelRequestFields";

/// With which 403 is of the model: that it keeps no beginnings of conversations.
pub(crate) const KEEPS_NOTHING: &str =
    "You invoked an unsupported model or your request did not allow prompt caching";

/// The event of a stream that a frame holds.
const EVENT_TYPE: &str = ":event-type";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    delta: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    usage: Option<Usage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Usage {
    input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_write_input_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
}

/// Reads one frame of a stream.
pub(crate) fn frame(frame: &Frame<'_>) -> Signal {
    let Some(kind) = frame.text(EVENT_TYPE) else {
        return Signal { failed: true, ..Signal::default() };
    };
    match kind {
        "contentBlockDelta" => match serde_json::from_slice::<Delta>(frame.payload()) {
            Ok(Delta { delta: Text(text) }) => Signal { text, token: true, ..Signal::default() },
            Err(_) => Signal::unreadable(),
        },
        "contentBlockStart" => Signal { token: true, ..Signal::default() },
        "messageStop" => Signal { complete: true, ..Signal::default() },
        "metadata" => {
            let metadata = serde_json::from_slice::<Metadata>(frame.payload()).unwrap_or_default();
            let reported = metadata.usage.map_or_else(Reported::default, |usage| usage.reported());
            Signal { reported, settled: true, ..Signal::default() }
        }
        _ => Signal::default(),
    }
}

/// The header in which `InvokeModel` tells how many tokens went in.
pub(crate) const INPUT_TOKENS: &str = "x-amzn-bedrock-input-token-count";

/// Where Titan tells it of its vectors.
pub(crate) const INPUT_TEXT_TOKENS: &str = "inputTextTokenCount";

/// Reads one of the members of a buffered reply that tell counts.
pub(crate) fn usage(name: &str, data: &[u8]) -> Reported {
    if name == INPUT_TEXT_TOKENS {
        let input = serde_json::from_slice::<Count>(data).map_or(None, |count| count.0);
        return Reported { input, ..Reported::default() };
    }
    serde_json::from_slice::<Option<Usage>>(data)
        .ok()
        .flatten()
        .map_or_else(Reported::default, |usage| usage.reported())
}

/// Reads what Bedrock says with a status that is no success.
pub(crate) fn fault(status: StatusCode, body: &[u8]) -> Fault {
    match status.as_u16() {
        // Else about what the configured credential may do, and with the names of its account.
        401 | 403 => message(body)
            .filter(|said| said.starts_with(KEEPS_NOTHING))
            .map_or_else(fault::refused_credential, |said| Fault::new(FaultKind::Unsupported, said)),
        // The model has failed, not the request.
        424 => {
            Fault::new(FaultKind::Upstream, message(body).unwrap_or_else(|| "the model failed".to_owned()))
        }
        _ => message(body)
            .map_or_else(|| fault::read(status, body), |said| Fault::of_status(status, Some(said))),
    }
}

/// Reads an exception inside a stream, which has a name instead of a status.
fn exception(frame: &Frame<'_>) -> Fault {
    let name = frame.text(":exception-type").or_else(|| frame.text(":error-code")).unwrap_or_default();
    let said = message(frame.payload()).or_else(|| frame.text(":error-message").map(str::to_owned));
    let kind = match name.to_ascii_lowercase().strip_suffix("exception").unwrap_or_default() {
        "accessdenied" | "unrecognizedclient" | "expiredtoken" => return fault::refused_credential(),
        "throttling" | "servicequotaexceeded" => FaultKind::RateLimit,
        "serviceunavailable" | "modelnotready" => FaultKind::Overloaded,
        "modeltimeout" => FaultKind::Timeout,
        "validation" => FaultKind::Invalid,
        "resourcenotfound" => FaultKind::NotFound,
        _ => FaultKind::Upstream,
    };
    Fault::said(kind, said.unwrap_or_else(|| "the provider reports an error".to_owned()))
}

fn message(body: &[u8]) -> Option<String> {
    let mut fields = Fields::lenient(serde_json::from_slice::<Value>(body).ok()?);
    fields.some_text("message").or_else(|| fields.some_text("Message"))
}

/// Why an answer ends.
fn read_stop(reason: Option<&str>) -> Stop {
    match reason {
        Some("tool_use") => Stop::ToolCalls,
        Some("max_tokens" | "model_context_window_exceeded") => Stop::Length,
        Some("stop_sequence") => Stop::Sequence(None),
        Some("guardrail_intervened" | "content_filtered") => Stop::Refused,
        _ => Stop::End,
    }
}

/// Whether the model has ended with what nobody can read.
fn is_malformed(reason: Option<&str>) -> bool {
    matches!(reason, Some("malformed_model_output" | "malformed_tool_use"))
}

/// The path of a chat below the base URL. A model is a name or an ARN, and one segment of the path whatever
/// is in it.
pub(crate) fn chat_path(model: &str, stream: bool) -> String {
    let operation = if stream { "converse-stream" } else { "converse" };
    format!("/model/{}/{operation}", segment(model))
}

/// What is accepted of it.
pub(crate) fn accept(stream: bool) -> HeaderValue {
    HeaderValue::from_static(if stream { frames::MEDIA_TYPE } else { "application/json" })
}

/// Whether reasoning is encrypted by Bedrock.
pub(crate) fn is_of_bedrock(data: &str) -> bool {
    data.starts_with(OF_BEDROCK)
}

/// The region that an AWS host is in: after the service, of a public host, of one of a VPC and of one for
/// FIPS.
pub(crate) fn region_of(host: &str) -> Option<&str> {
    let mut labels = host.split('.');
    labels.find(|label| matches!(*label, "bedrock-runtime" | "bedrock-runtime-fips"))?;
    let region = labels.next()?;
    (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn") || host.ends_with(".api.aws"))
        .then_some(region)
}

// === impl Usage ===

impl Usage {
    fn reported(&self) -> Reported {
        Reported {
            input: self.input_tokens.0,
            cache_read: self.cache_read_input_tokens.0,
            cache_written: self.cache_write_input_tokens.0,
            output: self.output_tokens.0,
            reasoning: None,
            total: self.total_tokens.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_one_segment_of_the_path() {
        for (model, path) in [
            ("amazon.nova-lite-v1:0", "/model/amazon.nova-lite-v1%3A0/converse"),
            (
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.x",
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse",
            ),
            ("../é?", "/model/..%2F%C3%A9%3F/converse"),
        ] {
            assert_eq!(chat_path(model, false), path);
            assert_eq!(chat_path(model, true), format!("{path}-stream"));
        }
    }

    #[test]
    fn the_region_is_told_by_hosts_of_aws_alone() {
        for (host, region) in [
            ("bedrock-runtime.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("bedrock-runtime-fips.us-east-1.amazonaws.com", Some("us-east-1")),
            ("bedrock-runtime.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("vpce-1-x.bedrock-runtime.us-west-2.vpce.amazonaws.com", Some("us-west-2")),
            ("bedrock-runtime.us-west-2.api.aws", Some("us-west-2")),
            ("bedrock-runtime.example.com", None),
            ("localhost", None),
        ] {
            assert_eq!(region_of(host), region, "{host}");
        }
    }

    #[test]
    fn what_bedrock_says_of_the_credential_stays_here() {
        let body = br#"{"message":"User: arn:aws:iam::123456789012:user/x is not authorized"}"#;
        let refused = fault(StatusCode::FORBIDDEN, body);
        assert_eq!(refused.kind, FaultKind::Upstream);
        assert!(!refused.message.contains("arn"));
    }

    #[test]
    fn each_status_says_whose_fault_it_is() {
        for (status, kind) in [
            (400, FaultKind::Invalid),
            (404, FaultKind::NotFound),
            (408, FaultKind::Timeout),
            (424, FaultKind::Upstream),
            (429, FaultKind::RateLimit),
            (500, FaultKind::Upstream),
            (503, FaultKind::Overloaded),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            for body in [r#"{"message":"m"}"#, r#"{"Message":"m"}"#] {
                let fault = fault(status, body.as_bytes());
                assert_eq!((fault.kind, fault.message.as_str()), (kind, "m"), "{status}");
            }
        }
    }
}
