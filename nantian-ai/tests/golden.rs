//! What each dialect becomes in each other one, kept in `tests/golden` to be read and reviewed.
//!
//! `GOLDEN=write cargo test -p nantian-ai --test golden` writes the files anew.
#![cfg(test)]

mod frames;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use nantian_ai::Dialect;
use nantian_ai::codec::{Defaults, Echo, StreamDecoder, StreamEncoder};
use nantian_ai::ir::{Losses, ToolNames};
use serde_json::Value;

const CLIENTS: [Dialect; 4] = [Dialect::Anthropic, Dialect::Ollama, Dialect::OpenAi, Dialect::Responses];
const PROVIDERS: [Dialect; 6] = [
    Dialect::Anthropic,
    Dialect::Bedrock,
    Dialect::Gemini,
    Dialect::Ollama,
    Dialect::OpenAi,
    Dialect::Responses,
];
const SEED: u64 = 0x1234_5678;

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

/// The model that requests are sent to. Of OpenAI's, those that think can be told little of what parameters say.
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

fn folder(kind: &str, dialect: Dialect) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind).join(dialect.name())
}

/// The inputs of a folder: name and bytes.
fn inputs(kind: &str, dialect: Dialect, end: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<_> = fs::read_dir(folder(kind, dialect))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(end)?.to_owned();
            Some((name, fs::read(&path).unwrap()))
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{kind} of {dialect}");
    inputs
}

/// Compares with the file, or writes it.
fn check(kind: &str, from: Dialect, name: &str, to: Dialect, seen: &str) {
    let path = folder(kind, from).join(format!("{name}.to-{to}.txt"));
    if std::env::var("GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::write(path, seen).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(seen, expected, "{}", path.display());
}

fn show(losses: &Losses, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    let mut shown = String::new();
    if !losses.is_empty() {
        writeln!(shown, "dropped: {losses}").unwrap();
    }
    writeln!(shown, "{body:#}").unwrap();
    shown
}

#[test]
fn requests() {
    for from in CLIENTS {
        for (name, body) in inputs("request", from, ".json") {
            for to in PROVIDERS {
                let translated = from.decode_request(&body).and_then(|(mut request, mut losses)| {
                    request.model = model(to, &name).to_owned();
                    ToolNames::adapt(&mut request);
                    let (body, more) = to.encode_request(&request, to.name())?;
                    losses.extend(more);
                    Ok((body, losses))
                });
                let seen = match translated {
                    Ok((body, losses)) => show(&losses, &body),
                    Err(invalid) => format!("refused: {invalid}\n"),
                };
                check("request", from, &name, to, &seen);
            }
        }
    }
}

#[test]
fn replies() {
    for from in PROVIDERS {
        for (name, body) in inputs("reply", from, ".json") {
            for to in CLIENTS {
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
                check("reply", from, &name, to, &seen);
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
            for to in CLIENTS {
                let (status, body) = to.encode_fault(&from.decode_fault(status, &body[1..]));
                let seen = format!("status: {}\n{}", status.as_u16(), show(&Losses::default(), &body));
                check("reply", from, &name, to, &seen);
            }
        }
    }
}

fn translate(stream: &[u8], chunk: usize, from: Dialect, to: Dialect) -> String {
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

/// Frames of lines, each the name of an event and its payload.
fn framed(lines: &[u8]) -> Vec<u8> {
    let lines = std::str::from_utf8(lines).unwrap().lines();
    frames::frames(lines.map(|line| line.split_once(' ').unwrap()))
}

#[test]
fn streams() {
    for from in PROVIDERS {
        for (name, stream) in inputs("stream", from, ".stream") {
            let stream = if from == Dialect::Bedrock { framed(&stream) } else { stream };
            for to in CLIENTS {
                let seen = translate(&stream, stream.len(), from, to);
                for chunk in [1, 2, 3, 7, 64] {
                    assert_eq!(translate(&stream, chunk, from, to), seen, "{name}, chunks of {chunk}");
                }
                check("stream", from, &name, to, &seen);
            }
        }
    }
}
