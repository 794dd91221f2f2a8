//! Records as OTLP spans, in the JSON encoding of OTLP (opentelemetry-proto 1.x): ids in hexadecimal, 64-bit
//! numbers as text.
//!
//! Attributes are those of the semantic conventions for generative AI (in development there); what they have
//! no name for is below `nantian.`.

use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use nantian_ai::usage::{Outcome, Usage};
use serde_json::{Value, json};
use tokio::task::yield_now;

use super::{
    content::{RedactedContent, Redaction},
    record::CallRecord,
};
use crate::ir;

/// The kind of a span that calls somebody.
const CLIENT: u8 = 3;

/// The status of a span that failed.
const ERROR: u8 = 2;

/// The body of a request to `/v1/traces`.
///
/// Other collectors have their turn after each record: to black out the contents of one may take some ten
/// milliseconds.
pub(super) async fn traces(
    records: &[CallRecord],
    (collector, instance): (&ir::Collector, &str),
    redaction: Option<&Redaction>,
) -> Value {
    let mut spans = Vec::with_capacity(records.len());
    for record in records {
        spans.push(span(record, collector, redaction));
        yield_now().await;
    }
    json!({"resourceSpans": [{
        "resource": resource(collector, instance),
        "scopeSpans": [{"scope": scope(), "spans": spans}],
    }]})
}

/// What is told of whom: measures of several processes under one name would be taken for those of one.
pub(super) fn resource(collector: &ir::Collector, instance: &str) -> Value {
    let name = text("service.name", &collector.service_name);
    let version = text("service.version", env!("CARGO_PKG_VERSION"));
    json!({"attributes": [name, text("service.instance.id", instance), version]})
}

pub(super) fn scope() -> Value {
    json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")})
}

pub(super) fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn texts(key: &str, values: &[impl AsRef<str>]) -> Value {
    let values: Vec<_> = values.iter().map(|value| json!({"stringValue": value.as_ref()})).collect();
    json!({"key": key, "value": {"arrayValue": {"values": values}}})
}

pub(super) fn count(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

/// Nanoseconds of Unix time.
pub(super) fn nanos(time: SystemTime) -> String {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

fn number(key: &str, value: f64) -> Value {
    json!({"key": key, "value": {"doubleValue": value}})
}

fn span(record: &CallRecord, collector: &ir::Collector, redaction: Option<&Redaction>) -> Value {
    let started = record.ended.checked_sub(record.report.call.duration).unwrap_or(record.ended);
    let mut attributes = attributes(record);
    if collector.kind == ir::CollectorKind::Langfuse {
        attributes.extend(of_langfuse(record, collector, started));
    }
    if let (Some(redaction), Some(content)) = (redaction, &record.report.call.content) {
        attributes.extend(contents(redaction.tell(content), collector.kind));
        if content.partial {
            attributes.push(json!({"key": "nantian.content.partial", "value": {"boolValue": true}}));
        }
    }
    let mut span = json!({
        "traceId": format!("{:032x}", record.trace),
        "spanId": format!("{:016x}", fastrand::u64(1..)),
        "name": format!("{} {}", record.operation_name(), record.service.model),
        "kind": CLIENT,
        "startTimeUnixNano": nanos(started),
        "endTimeUnixNano": nanos(record.ended),
        "attributes": attributes,
        "status": match record.error() {
            Some(error) => json!({"code": ERROR, "message": error}),
            None => json!({}),
        },
    });
    if let (Some(parent), Some(span)) = (record.parent, span.as_object_mut()) {
        span.insert("parentSpanId".to_owned(), format!("{:016x}", parent.span).into());
    }
    span
}

fn attributes(record: &CallRecord) -> Vec<Value> {
    let (service, call, usage) = (&record.service, &record.report.call, &record.report.usage);
    let seconds = |key, time: Option<Duration>| time.map(|time| number(key, time.as_secs_f64()));
    let mut attributes = vec![
        text("gen_ai.operation.name", record.operation_name()),
        text("gen_ai.provider.name", &service.provider),
        text("gen_ai.request.model", &service.model),
        text("server.address", &service.host),
        count("server.port", service.port.into()),
        text("nantian.ai_service", &service.name),
        text("nantian.outcome", outcome_name(record.report.outcome)),
        count("nantian.attempts", call.attempts.len() as u64),
    ];
    attributes.extend(asked(record));
    attributes.extend(call.model.as_deref().map(|model| text("gen_ai.response.model", model)));
    attributes.extend(call.id.as_deref().map(|id| text("gen_ai.response.id", id)));
    let reason = call.finish_reason.as_deref();
    attributes.extend(reason.map(|reason| texts("gen_ai.response.finish_reasons", &[reason])));
    if record.report.outcome != Outcome::NotServed {
        attributes.push(count("gen_ai.usage.input_tokens", usage.input));
        attributes.push(count("gen_ai.usage.output_tokens", usage.output));
        attributes.push(json!({"key": "nantian.usage.estimated", "value": {"boolValue": usage.estimated}}));
    }
    let details = [
        ("gen_ai.usage.cache_read.input_tokens", usage.cached),
        ("gen_ai.usage.cache_creation.input_tokens", usage.cache_written),
        ("gen_ai.usage.reasoning.output_tokens", usage.reasoning),
    ];
    let told = details.into_iter().filter(|(_, tokens)| *tokens > 0);
    attributes.extend(told.map(|(key, tokens)| count(key, tokens)));
    attributes.extend(seconds("gen_ai.response.time_to_first_chunk", call.first_token));
    attributes.extend(seconds("nantian.time_between_tokens", call.between_tokens));
    attributes.extend(record.error().map(|error| text("error.type", error)));
    if record.failed_over {
        attributes.push(json!({"key": "nantian.failed_over", "value": {"boolValue": true}}));
    }
    if !call.dropped.is_empty() {
        attributes.push(text("nantian.dropped", &call.dropped.to_string()));
    }
    attributes
}

/// What the client has said of the answer.
fn asked(record: &CallRecord) -> Vec<Value> {
    let settings = &record.settings;
    let numbers = [
        ("gen_ai.request.temperature", settings.temperature),
        ("gen_ai.request.top_p", settings.top_p),
        ("gen_ai.request.frequency_penalty", settings.frequency_penalty),
        ("gen_ai.request.presence_penalty", settings.presence_penalty),
    ];
    let whole = [
        ("gen_ai.request.max_tokens", record.max_tokens.filter(|most| *most > 0)),
        ("gen_ai.request.top_k", settings.top_k),
        ("gen_ai.request.choice.count", Some(record.choices).filter(|choices| *choices > 1)),
    ];
    let stream = record.stream.then(|| json!({"key": "gen_ai.request.stream", "value": {"boolValue": true}}));
    let form = settings.json.map(|json| if json { "json" } else { "text" });
    let mut attributes: Vec<Value> =
        numbers.into_iter().filter_map(|(key, value)| Some(number(key, value?))).collect();
    attributes.extend(whole.into_iter().filter_map(|(key, value)| Some(count(key, value?))));
    attributes.extend(
        settings
            .seed
            .map(|seed| json!({"key": "gen_ai.request.seed", "value": {"intValue": seed.to_string()}})),
    );
    attributes.extend(stream);
    if !settings.stop.is_empty() {
        attributes.push(texts("gen_ai.request.stop_sequences", &settings.stop));
    }
    attributes.extend(form.map(|form| text("gen_ai.output.type", form)));
    attributes.extend(settings.conversation.as_deref().map(|id| text("gen_ai.conversation.id", id)));
    attributes
}

/// Contents, under the names by which the collector knows them.
fn contents(told: RedactedContent, kind: ir::CollectorKind) -> impl Iterator<Item = Value> {
    let [input, output] = match kind {
        ir::CollectorKind::Langfuse => ["langfuse.observation.input", "langfuse.observation.output"],
        ir::CollectorKind::Otlp => ["gen_ai.input.messages", "gen_ai.output.messages"],
    };
    let contents = [
        ("gen_ai.system_instructions", told.instructions),
        ("gen_ai.tool.definitions", told.tools),
        (input, told.input),
        (output, told.output),
    ];
    contents.into_iter().filter_map(|(key, value)| Some(text(key, &value?.to_string())))
}

/// What Langfuse makes a generation of.
fn of_langfuse(record: &CallRecord, collector: &ir::Collector, started: SystemTime) -> Vec<Value> {
    let mut attributes = vec![
        text("langfuse.observation.type", "generation"),
        text("langfuse.trace.name", &record.service.name),
    ];
    let begun = record.report.call.first_token.and_then(|after| started.checked_add(after));
    attributes.extend(begun.map(|begun| {
        let time = Timestamp::try_from(begun).unwrap_or_default();
        text("langfuse.observation.completion_start_time", &time.to_string())
    }));
    if record.error().is_some() {
        attributes.push(text("langfuse.observation.level", "ERROR"));
    }
    if record.report.outcome != Outcome::NotServed {
        attributes.push(text("langfuse.observation.usage_details", &priced(&record.report.usage)));
    }
    let known = [
        ("user.id", &record.settings.user),
        ("session.id", &record.settings.conversation),
        ("langfuse.environment", &collector.environment),
        ("langfuse.release", &collector.release),
    ];
    attributes.extend(known.into_iter().filter_map(|(key, name)| Some(text(key, name.as_deref()?))));
    attributes
}

/// Tokens by what Langfuse has prices for. It adds all kinds up, so that none is a part of another.
fn priced(usage: &Usage) -> String {
    let input = usage.input.saturating_sub(usage.cached.saturating_add(usage.cache_written));
    let kinds = [
        ("input", input),
        ("output", usage.output),
        ("input_cache_read", usage.cached),
        ("input_cache_creation", usage.cache_written),
    ];
    let told = kinds.into_iter().filter(|(_, tokens)| *tokens > 0);
    Value::Object(told.map(|(kind, tokens)| (kind.to_owned(), tokens.into())).collect()).to_string()
}

pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Aborted => "aborted",
        Outcome::Truncated => "truncated",
        _ => "not_served",
    }
}
