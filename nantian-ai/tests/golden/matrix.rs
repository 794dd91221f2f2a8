//! The table of all pairs and features, kept in `matrix.md`: what each says whole, what it loses, what it
//! refuses.
//!
//! Of the inputs of a dialect that show a feature the shortest stands for it. A feature that no input shows
//! fails, unless the dialect is known to have no words for it.

use std::fmt::Write as _;

use nantian_ai::codec::{StreamDecoder, StreamEncoder};
use nantian_ai::ir::{
    Block, Collector, Event, Fault, FaultKind, Losses, Output, Reply, Request, Role, Source, Stop, ToolNames,
};
use nantian_ai::{ClientDialect, Dialect};

use crate::files::{check_table, inputs, streams};
use crate::{PROVIDERS, SEED, answered, asked_of_first, defaults, refused};

/// A feature, and how an input is known that shows it.
struct Feature<T> {
    name: &'static str,
    shows: fn(&T) -> bool,
    /// The dialects that have no words for it.
    unknown_to: &'static [Dialect],
}

/// A stream, read.
struct Stream {
    events: Vec<Event>,
    reply: Result<Reply, Fault>,
}

use Dialect::{Bedrock, Gemini, Ollama, Responses};

const REQUESTS: [Feature<Request>; 15] = [
    Feature { name: "text", shows: |it| said(it, |block| matches!(block, Block::Text(_))), unknown_to: &[] },
    Feature {
        name: "system prompt",
        shows: |it| it.messages.iter().any(|message| message.role == Role::System),
        unknown_to: &[],
    },
    Feature {
        name: "image",
        shows: |it| said(it, |block| matches!(block, Block::Image(it) if is_inline(&it.source))),
        unknown_to: &[],
    },
    Feature {
        name: "image at a URL",
        shows: |it| said(it, |block| matches!(block, Block::Image(it) if !is_inline(&it.source))),
        unknown_to: &[Ollama],
    },
    Feature {
        name: "document",
        shows: |it| said(it, |block| matches!(block, Block::Document(it) if is_inline(&it.source))),
        unknown_to: &[Ollama],
    },
    Feature {
        name: "document at a URL",
        shows: |it| said(it, |block| matches!(block, Block::Document(it) if !is_inline(&it.source))),
        unknown_to: &[Ollama],
    },
    Feature {
        name: "parallel tool calls",
        shows: |it| it.messages.iter().any(|message| calls(&message.content) > 1),
        unknown_to: &[],
    },
    Feature {
        name: "tool results",
        shows: |it| said(it, |block| matches!(block, Block::ToolResult(_))),
        unknown_to: &[],
    },
    Feature { name: "tool choice", shows: |it| it.tool_choice.is_some(), unknown_to: &[Ollama] },
    Feature {
        name: "structured output",
        shows: |it| matches!(it.output, Some(Output::Schema { .. })),
        unknown_to: &[],
    },
    Feature {
        name: "reasoning",
        shows: |it| said(it, |block| matches!(block, Block::Reasoning(_))),
        unknown_to: &[],
    },
    Feature { name: "signed reasoning", shows: |it| said(it, is_signed), unknown_to: &[Ollama] },
    Feature { name: "how much to think", shows: |it| it.thinking.is_some(), unknown_to: &[] },
    Feature { name: "stop sequences", shows: |it| !it.stop.is_empty(), unknown_to: &[Responses] },
    Feature {
        name: "cache points",
        shows: |it| it.messages.iter().any(|message| !message.cache_points.is_empty()),
        unknown_to: &[Ollama, Responses],
    },
];

const REPLIES: [Feature<Reply>; 10] = [
    Feature { name: "text", shows: |it| has_text(it), unknown_to: &[] },
    Feature { name: "parallel tool calls", shows: |it| calls(&it.content) > 1, unknown_to: &[] },
    Feature {
        name: "reasoning",
        shows: |it| it.content.iter().any(|block| matches!(block, Block::Reasoning(_))),
        unknown_to: &[],
    },
    Feature { name: "signed reasoning", shows: |it| it.content.iter().any(is_signed), unknown_to: &[Ollama] },
    Feature { name: "end by length", shows: |it| it.stop == Stop::Length, unknown_to: &[] },
    Feature {
        name: "end by a stop sequence",
        shows: |it| matches!(it.stop, Stop::Sequence(_)),
        unknown_to: &[Gemini, Ollama, Responses],
    },
    Feature { name: "refusal", shows: |it| it.stop == Stop::Refused, unknown_to: &[Ollama] },
    Feature { name: "usage", shows: |it| it.tokens.output.is_some(), unknown_to: &[] },
    Feature {
        name: "cached input",
        shows: |it| it.tokens.cache_read.is_some_and(|tokens| tokens > 0),
        unknown_to: &[Ollama],
    },
    Feature {
        name: "tokens of reasoning",
        shows: |it| it.tokens.reasoning.is_some_and(|tokens| tokens > 0),
        unknown_to: &[Bedrock, Ollama],
    },
];

const STREAM_ENDS: [Feature<Stream>; 3] = [
    Feature {
        name: "error before the first token",
        shows: |it| failed(it).is_some_and(|fault| fault.kind != FaultKind::Truncated) && !has_delta(it),
        unknown_to: &[],
    },
    Feature {
        name: "error midway",
        shows: |it| failed(it).is_some_and(|fault| fault.kind != FaultKind::Truncated) && has_delta(it),
        unknown_to: &[],
    },
    Feature {
        name: "broken off",
        shows: |it| failed(it).is_some_and(|fault| fault.kind == FaultKind::Truncated) && has_delta(it),
        unknown_to: &[],
    },
];

fn said(request: &Request, shows: fn(&Block) -> bool) -> bool {
    request.messages.iter().flat_map(|message| &message.content).any(shows)
}

fn calls(blocks: &[Block]) -> usize {
    blocks.iter().filter(|block| matches!(block, Block::ToolCall(_))).count()
}

fn is_inline(source: &Source) -> bool {
    matches!(source, Source::Inline(_))
}

fn is_signed(block: &Block) -> bool {
    matches!(block, Block::Reasoning(reasoning) if reasoning.signature.is_some())
}

fn has_text(reply: &Reply) -> bool {
    reply.content.iter().any(|block| matches!(block, Block::Text(_)))
}

fn has_delta(stream: &Stream) -> bool {
    stream.events.iter().any(|event| matches!(event, Event::Delta(_)))
}

fn failed(stream: &Stream) -> Option<&Fault> {
    match stream.events.last() {
        Some(Event::Failed(fault)) => Some(fault),
        _ => None,
    }
}

fn read(dialect: Dialect, stream: &[u8]) -> Stream {
    let mut decoder = StreamDecoder::new(dialect, SEED);
    let mut events = std::collections::VecDeque::new();
    decoder.push(stream, &mut events);
    decoder.finish(&mut events);
    let mut collector = Collector::default();
    events.iter().cloned().for_each(|event| collector.push(event));
    Stream { events: events.into(), reply: collector.finish() }
}

/// What is lost of a stream on its way to a client.
fn lost(dialect: Dialect, stream: &[u8], client: ClientDialect) -> Losses {
    let mut decoder = StreamDecoder::new(dialect, SEED);
    let mut encoder = StreamEncoder::new(client, defaults(), ToolNames::default());
    let mut events = std::collections::VecDeque::new();
    decoder.push(stream, &mut events);
    decoder.finish(&mut events);
    events.into_iter().for_each(|event| encoder.push(event, &mut Vec::new()));
    let mut losses = decoder.losses().clone();
    losses.extend(encoder.losses().cloned().unwrap_or_default());
    losses
}

/// What the first line says of a translation.
fn verdict(seen: &str) -> String {
    let first = seen.lines().next().unwrap_or_default();
    if let Some(losses) = first.strip_prefix("dropped: ") {
        return format!("without {losses}");
    }
    if first.starts_with("refused: ") { first.to_owned() } else { "whole".to_owned() }
}

/// The rows of one dialect: for each feature the shortest input that shows it, and what becomes of it.
fn rows<T>(
    (out, faults): &mut (String, Vec<String>),
    features: &[Feature<T>],
    from: Dialect,
    inputs: &[(String, Vec<u8>, T)],
    cells: impl Fn(&str, &[u8]) -> Vec<String>,
) {
    for feature in features {
        let shown = inputs.iter().filter(|(_, _, read)| (feature.shows)(read));
        let shortest = shown.min_by_key(|(name, bytes, _)| (bytes.len(), name));
        let is_unknown = feature.unknown_to.contains(&from);
        match shortest {
            Some((name, bytes, _)) => {
                if is_unknown {
                    faults.push(format!("{from} has words for {}: {name}", feature.name));
                }
                let cells = cells(name, bytes).join(" | ");
                writeln!(out, "| {} | {from} | {name} | {cells} |", feature.name).unwrap();
            }
            None => {
                if !is_unknown {
                    faults.push(format!("no input of {from} shows {}", feature.name));
                }
                writeln!(out, "| {} | {from} | no words for it | |", feature.name).unwrap();
            }
        }
    }
}

fn head(out: &mut String, title: &str, columns: impl IntoIterator<Item = Dialect>) {
    let columns: Vec<_> = columns.into_iter().map(Dialect::name).collect();
    let line = "---|".repeat(columns.len() + 3);
    write!(out, "\n## {title}\n\n| what | from | file | {} |\n|{line}\n", columns.join(" | ")).unwrap();
}

fn clients() -> impl Iterator<Item = Dialect> {
    ClientDialect::ALL.into_iter().map(Dialect::from)
}

#[test]
fn every_pair_shows_every_feature_or_is_known_not_to() {
    let title = String::from(
        "# What becomes of what\n\nWritten by `GOLDEN=write cargo test -p nantian-ai --test golden`. \
         Each cell has a section in the `.golden` file beside its input.\n",
    );
    let mut out = (title, Vec::new());
    head(&mut out.0, "Requests", PROVIDERS);
    for from in ClientDialect::ALL {
        let read = |(name, body): (String, Vec<u8>)| {
            let (request, _) = from.decode_request(&body).ok()?;
            Some((name, body, request))
        };
        let inputs: Vec<_> = inputs("request", from.into(), ".json").into_iter().filter_map(read).collect();
        let cells = |name: &str, body: &[u8]| {
            PROVIDERS.map(|to| verdict(&asked_of_first(from, name, body, to))).to_vec()
        };
        rows(&mut out, &REQUESTS, from.into(), &inputs, cells);
    }
    head(&mut out.0, "Answers", clients());
    for from in PROVIDERS {
        let read = |(name, body): (String, Vec<u8>)| {
            let (reply, _) = from.decode_reply(&body, SEED).ok()?;
            Some((name, body, reply))
        };
        let replies: Vec<_> = inputs("reply", from, ".json").into_iter().filter_map(read).collect();
        let cells =
            |_: &str, body: &[u8]| ClientDialect::ALL.map(|to| verdict(&answered(from, body, to))).to_vec();
        rows(&mut out, &REPLIES, from, &replies, cells);
        let errors = inputs("reply", from, ".error").into_iter().map(|(name, body)| (name, body, ()));
        let error = [Feature { name: "error", shows: |()| true, unknown_to: &[] }];
        let cells =
            |_: &str, body: &[u8]| ClientDialect::ALL.map(|to| verdict(&refused(from, body, to))).to_vec();
        rows(&mut out, &error, from, &errors.collect::<Vec<_>>(), cells);
    }
    head(&mut out.0, "Streams", clients());
    for from in PROVIDERS {
        let streams: Vec<_> =
            streams(from).into_iter().map(|(name, bytes)| (read(from, &bytes), name, bytes)).collect();
        let cells = |_: &str, bytes: &[u8]| {
            let cell = |to: ClientDialect| {
                let lost = lost(from, bytes, to);
                if lost.is_empty() { "whole".to_owned() } else { format!("without {lost}") }
            };
            ClientDialect::ALL.map(cell).to_vec()
        };
        let whole: Vec<_> = streams
            .iter()
            .filter_map(|(stream, name, bytes)| {
                Some((name.clone(), bytes.clone(), stream.reply.clone().ok()?))
            })
            .collect();
        rows(&mut out, &REPLIES, from, &whole, cells);
        let all: Vec<_> = streams.into_iter().map(|(stream, name, bytes)| (name, bytes, stream)).collect();
        rows(&mut out, &STREAM_ENDS, from, &all, cells);
    }
    let (table, faults) = out;
    assert!(faults.is_empty(), "{faults:#?}");
    check_table(&table);
}
