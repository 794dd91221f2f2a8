//! What each dialect becomes in each other one, kept in `tests/golden` to be read and reviewed.
//!
//! An input is a file, and `<name>.golden` beside it has a section for each of those that it is told to.
//! `GOLDEN=write cargo test -p nantian-ai --test golden` writes the files anew.
#![cfg(test)]

#[path = "golden/files.rs"]
mod files;
mod frames;
#[path = "golden/matrix.rs"]
mod matrix;
#[path = "golden/unread.rs"]
mod unread;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use nantian_ai::codec::{Defaults, Echo, StreamDecoder, StreamEncoder};
use nantian_ai::ir::{Losses, ToolNames};
use nantian_ai::translate::Translation;
use nantian_ai::{ClientDialect, Dialect, Surface, Target, TargetConfig};

use self::files::{check, inputs, show};

const PROVIDERS: [Dialect; 6] = Dialect::ALL;
const SEED: u64 = 0x1234_5678;

/// Models and providers of a dialect that differ from its first.
const OTHERS: [(Dialect, &str, &str, &str); 12] = [
    (Dialect::Anthropic, "claude-opus-5-5", "anthropic", "claude-opus-5-5"),
    (Dialect::Anthropic, "claude-sonnet-5-5", "anthropic", "claude-sonnet-5-5"),
    (Dialect::Bedrock, "bedrock-gpt-oss", "bedrock", "openai.gpt-oss-120b-1:0"),
    (Dialect::Bedrock, "bedrock-llama", "bedrock", "us.meta.llama3-3-70b-instruct-v1:0"),
    (Dialect::Bedrock, "bedrock-nova", "bedrock", "amazon.nova-pro-v1:0"),
    (Dialect::Bedrock, "bedrock-nova-2", "bedrock", "us.amazon.nova-2-lite-v1:0"),
    (Dialect::OpenAi, "deepseek", "deepseek", "deepseek-v4-pro"),
    (Dialect::OpenAi, "gemini-by-openai", "gemini", "gemini-3-pro"),
    (Dialect::OpenAi, "groq", "groq", "openai/gpt-oss-120b"),
    (Dialect::OpenAi, "mistral", "mistral", "mistral-large-latest"),
    (Dialect::OpenAi, "vllm", "vllm", "Qwen/Qwen3-8B"),
    (Dialect::OpenAi, "xai", "xai", "grok-4.5"),
];

/// The requests that show in what they differ.
const TELLING: [&str; 11] = [
    "cache",
    "json-object",
    "parameters",
    "reasoning",
    "schema",
    "signed-calls",
    "system",
    "system-later",
    "thinking-adaptive",
    "tool-choice",
    "tools",
];

fn defaults() -> Defaults {
    Defaults {
        id: "msg_made_here".to_owned(),
        model: "model-of-the-target".to_owned(),
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600),
        took: Duration::from_secs(2),
        stream_usage: true,
        input_estimate: 17,
        echo: Echo::default(),
    }
}

/// The model that requests are sent to. Of OpenAI's, those that think can be told little of what parameters
/// say.
fn model(dialect: Dialect, name: &str) -> &'static str {
    match dialect {
        Dialect::Anthropic => "claude-sonnet-4-5",
        Dialect::Bedrock => "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        Dialect::Gemini => "gemini-3-pro",
        Dialect::Ollama => "qwen3",
        _ if matches!(name, "parameters" | "logprobs") => "gpt-4.1",
        _ => "gpt-5",
    }
}

/// What a request becomes.
fn asked(from: ClientDialect, body: &[u8], to: Dialect, provider: &str, model: &str) -> String {
    let translated = from.decode_request(body).and_then(|(mut request, mut losses)| {
        model.clone_into(&mut request.model);
        ToolNames::adapt(&mut request);
        let (body, more) = to.encode_request(&request, provider)?;
        losses.extend(more);
        Ok((body, losses))
    });
    match translated {
        Ok((body, losses)) => show(&losses, &body),
        Err(invalid) => format!("refused: {invalid}\n"),
    }
}

/// What a request becomes that is sent to the first model of a dialect.
fn asked_of_first(from: ClientDialect, name: &str, body: &[u8], to: Dialect) -> String {
    asked(from, body, to, to.name(), model(to, name))
}

/// What an answer becomes.
fn answered(from: Dialect, body: &[u8], to: ClientDialect) -> String {
    match from.decode_reply(body, SEED) {
        Ok((reply, mut losses)) => {
            let (body, more) = to.encode_reply(reply, &defaults());
            losses.extend(more);
            show(&losses, &body)
        }
        Err(fault) => show_fault(to.encode_fault(&fault)),
    }
}

/// What a refusal becomes, whose first line is its status.
fn refused(from: Dialect, refusal: &[u8], to: ClientDialect) -> String {
    let (status, body) = refusal.split_at(refusal.iter().position(|&byte| byte == b'\n').unwrap());
    let status = StatusCode::from_bytes(status).unwrap();
    show_fault(to.encode_fault(&from.decode_fault(status, &body[1..])))
}

fn show_fault((status, body): (StatusCode, Bytes)) -> String {
    format!("status: {}\n{}", status.as_u16(), show(&Losses::default(), &body))
}

/// What clients are told, each with its name.
fn told(tell: impl Fn(ClientDialect) -> String) -> [(&'static str, String); ClientDialect::ALL.len()] {
    ClientDialect::ALL.map(|to| (Dialect::from(to).name(), tell(to)))
}

#[test]
fn requests() {
    for from in ClientDialect::ALL {
        for (name, body) in inputs("request", from.into(), ".json") {
            let mut seen = PROVIDERS.map(|to| (to.name(), asked_of_first(from, &name, &body, to))).to_vec();
            let is_telling = TELLING.contains(&name.as_str());
            if is_telling && matches!(from, ClientDialect::Anthropic | ClientDialect::OpenAi) {
                seen.extend(
                    OTHERS
                        .map(|(to, label, provider, model)| (label, asked(from, &body, to, provider, model))),
                );
            }
            check("request", from.into(), &name, &seen);
        }
    }
}

/// What a request for a count becomes that is sent to the first model of a dialect.
fn counted(surface: &Surface, body: &[u8], to: Dialect) -> String {
    let provider = if to == Dialect::Responses { "openai" } else { to.name() };
    let mut config = TargetConfig::new("golden", provider, model(to, "")).with_format(to);
    if to == Dialect::Bedrock {
        config = config.with_region("eu-central-1");
    }
    let target = Target::new(config).unwrap();
    match Translation::begin(&target, surface, body, false) {
        Ok((translation, body)) => show(translation.losses(), &body),
        Err(error) => format!("refused: {error}\n"),
    }
}

#[test]
fn counts() {
    for (from, path) in [
        (Dialect::Anthropic, "/v1/messages/count_tokens"),
        (Dialect::Responses, "/v1/responses/input_tokens"),
    ] {
        let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).unwrap();
        for (name, body) in inputs("count", from, ".json") {
            let seen = PROVIDERS.map(|to| (to.name(), counted(&surface, &body, to)));
            check("count", from, &name, &seen);
        }
    }
}

#[test]
fn replies() {
    for from in PROVIDERS {
        for (name, body) in inputs("reply", from, ".json") {
            check("reply", from, &name, &told(|to| answered(from, &body, to)));
        }
    }
}

#[test]
fn refusals() {
    for from in PROVIDERS {
        for (name, refusal) in inputs("reply", from, ".error") {
            check("reply", from, &name, &told(|to| refused(from, &refusal, to)));
        }
    }
}

fn translate(stream: &[u8], chunk: usize, from: Dialect, to: ClientDialect) -> String {
    let mut decoder = StreamDecoder::new(from, SEED);
    let mut encoder = StreamEncoder::new(to, defaults(), ToolNames::default());
    let mut events = VecDeque::new();
    let mut out = Vec::new();
    for chunk in stream.chunks(chunk) {
        decoder.push(chunk, &mut events);
    }
    decoder.finish(&mut events);
    assert_eq!(events.iter().filter(|event| event.is_last()).count(), 1);
    assert!(events.back().unwrap().is_last());
    events.into_iter().for_each(|event| encoder.push(event, &mut out));
    String::from_utf8(out).unwrap()
}

#[test]
fn streams() {
    for from in PROVIDERS {
        for (name, stream) in files::streams(from) {
            let seen = told(|to| translate(&stream, stream.len(), from, to));
            for chunk in [1, 2, 3, 7, 64] {
                assert_eq!(
                    told(|to| translate(&stream, chunk, from, to)),
                    seen,
                    "{name} of {from}, chunks of {chunk}"
                );
            }
            check("stream", from, &name, &seen);
        }
    }
}
