//! What each dialect becomes in each other one, kept in `tests/golden` to be read and reviewed.
//!
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

use http::StatusCode;
use nantian_ai::codec::{Defaults, Echo, StreamDecoder, StreamEncoder};
use nantian_ai::ir::{Losses, ToolNames};
use nantian_ai::{ClientDialect, Dialect};

use self::files::{check, inputs, output, show};

const PROVIDERS: [Dialect; 6] = Dialect::ALL;
const SEED: u64 = 0x1234_5678;

/// Models and providers of a dialect that differ from its first.
const OTHERS: [(Dialect, &str, &str, &str); 11] = [
    (Dialect::Anthropic, "claude-opus-5-5", "anthropic", "claude-opus-5-5"),
    (Dialect::Anthropic, "claude-sonnet-5-5", "anthropic", "claude-sonnet-5-5"),
    (Dialect::Bedrock, "bedrock-gpt-oss", "bedrock", "openai.gpt-oss-120b-1:0"),
    (Dialect::Bedrock, "bedrock-llama", "bedrock", "us.meta.llama3-3-70b-instruct-v1:0"),
    (Dialect::Bedrock, "bedrock-nova", "bedrock", "amazon.nova-pro-v1:0"),
    (Dialect::Bedrock, "bedrock-nova-2", "bedrock", "us.amazon.nova-2-lite-v1:0"),
    (Dialect::OpenAi, "deepseek", "deepseek", "deepseek-v4-pro"),
    (Dialect::OpenAi, "groq", "groq", "openai/gpt-oss-120b"),
    (Dialect::OpenAi, "mistral", "mistral", "mistral-large-latest"),
    (Dialect::OpenAi, "vllm", "vllm", "Qwen/Qwen3-8B"),
    (Dialect::OpenAi, "xai", "xai", "grok-4.5"),
];

/// The requests that show in what they differ.
const TELLING: [&str; 10] = [
    "cache",
    "json-object",
    "parameters",
    "reasoning",
    "schema",
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
        _ if name == "parameters" => "gpt-4.1",
        _ => "gpt-5",
    }
}

/// What a request becomes.
fn asked(from: Dialect, body: &[u8], to: Dialect, provider: &str, model: &str) -> String {
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

#[test]
fn requests() {
    for from in ClientDialect::ALL.map(Dialect::from) {
        for (name, body) in inputs("request", from, ".json") {
            for to in PROVIDERS {
                let seen = asked(from, &body, to, to.name(), model(to, &name));
                check(&output("request", from, &name, to.name()), &seen);
            }
        }
    }
}

#[test]
fn requests_to_models_that_differ() {
    for from in [Dialect::Anthropic, Dialect::OpenAi] {
        for (name, body) in inputs("request", from, ".json") {
            for (to, label, provider, model) in OTHERS {
                if TELLING.contains(&name.as_str()) {
                    let seen = asked(from, &body, to, provider, model);
                    check(&output("request", from, &name, label), &seen);
                }
            }
        }
    }
}

#[test]
fn replies() {
    for from in PROVIDERS {
        for (name, body) in inputs("reply", from, ".json") {
            for to in ClientDialect::ALL {
                let seen = match from.decode_reply(&body, SEED) {
                    Ok((reply, mut losses)) => {
                        let (body, more) = to.encode_reply(reply, &defaults());
                        losses.extend(more);
                        show(&losses, &body)
                    }
                    Err(fault) => {
                        let (status, body) = to.encode_fault(&fault);
                        format!("status: {}\n{}", status.as_u16(), show(&Losses::default(), &body))
                    }
                };
                check(&output("reply", from, &name, Dialect::from(to).name()), &seen);
            }
        }
    }
}

#[test]
fn refusals() {
    for from in PROVIDERS {
        for (name, body) in inputs("reply", from, ".error") {
            let (status, body) = body.split_at(body.iter().position(|&byte| byte == b'\n').unwrap());
            let status = StatusCode::from_bytes(status).unwrap();
            for to in ClientDialect::ALL {
                let (status, body) = to.encode_fault(&from.decode_fault(status, &body[1..]));
                let seen = format!("status: {}\n{}", status.as_u16(), show(&Losses::default(), &body));
                check(&output("reply", from, &name, Dialect::from(to).name()), &seen);
            }
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
            for to in ClientDialect::ALL {
                let seen = translate(&stream, stream.len(), from, to);
                for chunk in [1, 2, 3, 7, 64] {
                    assert_eq!(translate(&stream, chunk, from, to), seen, "{name}, chunks of {chunk}");
                }
                check(&output("stream", from, &name, Dialect::from(to).name()), &seen);
            }
        }
    }
}
