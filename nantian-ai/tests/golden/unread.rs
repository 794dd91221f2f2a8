//! Whatever a dialect may add, and wherever it adds it: what nobody reads is named.

use std::collections::VecDeque;

use nantian_ai::codec::StreamDecoder;
use nantian_ai::ir::Losses;
use nantian_ai::{ClientDialect, Dialect};
use serde_json::{Value, json};

use crate::files::inputs;
use crate::frames::frames;
use crate::{PROVIDERS, SEED};

const ADDED: &str = "added_later";

/// What is carried whole, and what says nothing of the conversation: numbers, and how an answer came to be.
const CARRIED: [&str; 22] = [
    "annotations",
    "args",
    "arguments",
    "citation",
    "error",
    "guardrailConfig",
    "incomplete_details",
    "input",
    "input_schema",
    "logprobs",
    "metadata",
    "metrics",
    "parameters",
    "part",
    "promptFeedback",
    "properties",
    "reasoning_details",
    "schema",
    "stream_options",
    "usage",
    "usageMetadata",
    "x_groq",
];

/// The objects in a value, by their pointers.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            found.push(at.to_owned());
            members.iter().map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(list) => list.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => return,
    };
    for (name, value) in members {
        // A list of that name is one of items, but of what is carried for OpenRouter, and of tokens.
        let is_carried = matches!(name.as_str(), "logprobs" | "reasoning_details");
        if !CARRIED.contains(&name.as_str()) || (value.is_array() && !is_carried) {
            objects(value, &format!("{at}/{name}"), found);
        }
    }
}

/// Whether an addition is named, by itself or with what it stands in.
fn is_named(losses: &Losses, body: &[u8], place: &str) -> bool {
    let names = losses.to_string();
    let names: Vec<&str> = names.split([',', '.']).filter(|name| !name.is_empty()).collect();
    let body: Value = serde_json::from_slice(body).unwrap();
    let kind = |at: &str| body.pointer(at).and_then(|it| it["type"].as_str());
    let mut ends = place.match_indices('/').map(|(at, _)| at).chain([place.len()]);
    names.contains(&ADDED)
        || place.split('/').any(|segment| names.contains(&segment))
        || ends.any(|end| kind(&place[..end]).is_some_and(|kind| names.contains(&kind)))
}

/// The value with something added to each of its objects in turn.
fn with_more(value: &Value) -> Vec<(String, Vec<u8>)> {
    let mut places = Vec::new();
    objects(value, "", &mut places);
    let add = |place: String| {
        let mut more = value.clone();
        more.pointer_mut(&place).unwrap()[ADDED] = json!("x");
        (place, more.to_string().into_bytes())
    };
    places.into_iter().map(add).collect()
}

/// Whether a place is in what an answer repeats of its request or has told before, or in a schema.
fn is_repeated(dialect: Dialect, place: &str) -> bool {
    match dialect {
        Dialect::Ollama => place.starts_with("/format"),
        Dialect::Responses => {
            let place = place.strip_prefix("/response").unwrap_or(place);
            ["/reasoning", "/text"].iter().any(|repeated| place.starts_with(repeated))
        }
        _ => false,
    }
}

#[test]
fn what_nobody_reads_of_a_request_is_named() {
    let mut silent = Vec::new();
    for from in ClientDialect::ALL {
        for (name, body) in inputs("request", from.into(), ".json") {
            for (place, body) in with_more(&serde_json::from_slice(&body).unwrap()) {
                if let Ok((_, losses)) = from.decode_request(&body)
                    && !is_named(&losses, &body, &place)
                    && !(from == ClientDialect::Ollama && is_repeated(from.into(), &place))
                {
                    silent.push(format!("{from} {name} {place}"));
                }
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn what_nobody_reads_of_a_reply_is_named() {
    let mut silent = Vec::new();
    for from in PROVIDERS {
        for (name, body) in inputs("reply", from, ".json") {
            for (place, body) in with_more(&serde_json::from_slice(&body).unwrap()) {
                if let Ok((_, losses)) = from.decode_reply(&body, SEED)
                    && !is_named(&losses, &body, &place)
                    && !is_repeated(from, &place)
                {
                    silent.push(format!("{from} {name} {place}"));
                }
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn what_nobody_reads_of_a_stream_is_named() {
    let mut silent = Vec::new();
    for from in PROVIDERS {
        for (name, lines) in inputs("stream", from, ".stream") {
            let lines = String::from_utf8(lines).unwrap();
            let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
            for (at, line) in lines.iter().enumerate() {
                let Some((before, json)) = line.find('{').map(|at| line.split_at(at)) else { continue };
                let Ok(json) = serde_json::from_str(json) else { continue };
                if !is_read(from, before, &json) || decoder(from, &lines[..at]).is_ended() {
                    continue;
                }
                for (place, more) in with_more(&json) {
                    let mut lines = lines.clone();
                    lines[at] = format!("{before}{}", str::from_utf8(&more).unwrap());
                    let decoder = decoder(from, &lines);
                    let losses = decoder.losses();
                    // Of Bedrock's events the name stands before them; a piece of a block is named with the
                    // block.
                    let of_a_block =
                        if place == "/delta" { "content.server_tool_use" } else { before.trim() };
                    let is_whole = losses.iter().any(|lost| lost == of_a_block);
                    if !is_named(losses, &more, &place) && !is_whole && !is_told_before(from, &place) {
                        silent.push(format!("{from} {name}, line {at}: {place}"));
                    }
                }
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

/// Whether an event is one that says what is not told by another: Responses tells all again when it is
/// complete.
fn is_read(dialect: Dialect, before: &str, event: &Value) -> bool {
    const COMPLETE: [&str; 3] = ["response.output_item.done", "response.completed", "response.incomplete"];
    let reason = event.pointer("/choices/0/finish_reason").and_then(Value::as_str);
    let gave_up = matches!(reason, Some("error" | "insufficient_system_resource"));
    let has_failed = gave_up || event.get("error").is_some_and(|error| !error.is_null());
    let is_error = before.starts_with('!') || has_failed;
    let is_complete = || event["type"].as_str().is_some_and(|kind| COMPLETE.contains(&kind));
    !is_error && (dialect != Dialect::Responses || is_complete())
}

/// Of Responses the event itself says only where something stands.
fn is_told_before(dialect: Dialect, place: &str) -> bool {
    dialect == Dialect::Responses
        && (place.is_empty() || place.starts_with("/response/output") || is_repeated(dialect, place))
}

/// What has read a stream of these lines.
fn decoder(dialect: Dialect, lines: &[String]) -> StreamDecoder {
    let stream = if dialect == Dialect::Bedrock {
        frames(lines.iter().filter_map(|line| line.split_once(' ')))
    } else {
        let mut stream = lines.join("\n");
        stream.push_str("\n\n");
        stream.into_bytes()
    };
    let mut decoder = StreamDecoder::new(dialect, SEED);
    decoder.push(&stream, &mut VecDeque::new());
    decoder
}
