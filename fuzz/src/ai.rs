//! What is read of LLM traffic.

use std::{collections::VecDeque, time::SystemTime};

use aws_smithy_eventstream::frame::{read_message_from, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, header::HeaderMap, method::Method};
use http_body_util::BodyExt as _;
use nantian_ai::{
    ClientDialect, Dialect, Surface, Target, TargetConfig,
    codec::{Defaults, Echo, StreamDecoder, StreamEncoder},
    ir::{Event, ToolNames, VectorForm},
    model_of,
    usage::HideUsage,
    wire::{
        frames::{FrameDecoder, Item as Framed},
        json::{Mark, Scanner},
        sse::{Item, SseDecoder},
    },
};
use serde_json::{Map, Value};

const PATH: &str = "/v1/chat/completions";
const CLIENTS: [ClientDialect; 4] = ClientDialect::ALL;
const PROVIDERS: [Dialect; 6] = [
    Dialect::Anthropic,
    Dialect::Bedrock,
    Dialect::Gemini,
    Dialect::Ollama,
    Dialect::OpenAi,
    Dialect::Responses,
];
const MODEL: &str = "operator's \"model\"";

/// Every way to cut a stream gives the same events.
pub fn ai_sse(stream: &[u8]) {
    for limit in [8, 4096] {
        let whole = events(limit, [stream]);
        for size in [1, 2, 3, 7] {
            assert_eq!(events(limit, stream.chunks(size)), whole, "chunks of {size}, limit {limit}");
        }
    }
}

/// A body that a JSON parser takes is taken, and setting its model changes what setting it in the parsed object would.
/// Every way to cut the body gives the same members.
pub fn ai_edit(body: &[u8]) {
    assert_eq!(marks(body.chunks(1)), marks([body]), "bytewise");

    let Ok(mut expected) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
    assert_eq!(model_of(body).as_deref(), expected.get("model").and_then(Value::as_str));
    expected.insert("model".to_owned(), MODEL.into());
    let edited = |provider| -> Map<String, Value> {
        serde_json::from_slice(&edit(body, provider)).expect("the edited body is JSON")
    };
    // A provider that knows only older names is told them, however the newer ones are spelt.
    assert_eq!(with_older_names(edited("mistral")), with_older_names(expected.clone()));
    // Others are asked for the usage of a stream, too.
    let mut edited = edited("openai");
    expected.remove("stream_options");
    edited.remove("stream_options");
    assert_eq!(edited, expected);
}

fn with_older_names(mut body: Map<String, Value>) -> Map<String, Value> {
    if !body.contains_key("max_tokens")
        && let Some(limit) = body.remove("max_completion_tokens")
    {
        body.insert("max_tokens".to_owned(), limit);
    }
    body.get_mut("messages").map(without_developers);
    body
}

fn without_developers(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(without_developers),
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(role) if name == "role" && role == "developer" => {
                        *role = "system".to_owned()
                    }
                    value => without_developers(value),
                }
            }
        }
        _ => {}
    }
}

/// Whatever is a request of one dialect becomes one of each other, or is refused; what is written is an object, and can be
/// judged again: Ollama's tells no type of a picture, so one that is none is found out only there.
pub fn ai_request(body: &[u8]) {
    for from in CLIENTS {
        let Ok((mut request, _)) = Dialect::from(from).decode_request(body) else { continue };
        ToolNames::adapt(&mut request);
        for to in PROVIDERS {
            if let Ok((written, _)) = to.encode_request(&request, "any") {
                serde_json::from_slice::<Map<String, Value>>(&written).expect("what is written is an object");
                let _ = to.decode_request(&written);
            }
        }
    }
}

/// Whatever is an answer in one dialect becomes one in each other; what is written can be read.
pub fn ai_reply(body: &[u8]) {
    for from in PROVIDERS {
        let Ok((reply, _)) = from.decode_reply(body, 7) else { continue };
        for to in CLIENTS {
            let (written, _) = to.encode_reply(reply.clone(), &defaults());
            Dialect::from(to).decode_reply(&written, 7).expect("an answer that was written can be read");
        }
    }
}

/// Every way to cut a stream gives the same events, with one last one; in each other dialect it ends the same way.
pub fn ai_stream(stream: &[u8]) {
    for from in PROVIDERS {
        let framed = (from == Dialect::Bedrock).then(|| framed(stream));
        let stream = framed.as_deref().unwrap_or(stream);
        let whole = decoded(from, [stream]);
        for size in [1, 2, 7] {
            assert_eq!(decoded(from, stream.chunks(size)), whole, "chunks of {size}");
        }
        assert_eq!(whole.iter().filter(|event| event.is_last()).count(), 1);
        for to in CLIENTS {
            let mut encoder = StreamEncoder::new(to, defaults(), ToolNames::default());
            let mut written = Vec::new();
            whole.iter().for_each(|event| encoder.push(event.clone(), &mut written));
            let again = decoded(to.into(), [&written[..]]);
            assert_eq!(
                again.back() == Some(&Event::End),
                whole.back() == Some(&Event::End),
                "{from} to {to}"
            );
        }
    }
}

/// Whatever is a request for vectors in one dialect becomes one in each other; vectors that are written can be read, and are the
/// same.
pub fn ai_embed(body: &[u8]) {
    for from in PROVIDERS {
        if let Ok((request, _)) = from.decode_embed_request(body) {
            for to in PROVIDERS.into_iter().filter(|to| to.embeds()) {
                let (written, _) = to.encode_embed_request(&request).expect("it has embeddings");
                serde_json::from_slice::<Map<String, Value>>(&written).expect("what is written is an object");
            }
        }
        let Ok(reply) = from.decode_embeddings(body) else { continue };
        for (to, form) in [
            (ClientDialect::OpenAi, VectorForm::Numbers),
            (ClientDialect::OpenAi, VectorForm::Base64),
            (ClientDialect::Ollama, VectorForm::Numbers),
        ] {
            let written = to.encode_embeddings(&reply, form, &defaults());
            let again =
                Dialect::from(to).decode_embeddings(&written).expect("vectors that were written can be read");
            assert_eq!(again.vectors, reply.vectors, "{from} to {to}");
        }
    }
}

/// Every way to cut a stream leaves the same of it without its usage, and what does not speak of usage stays as it is.
pub fn ai_hide(stream: &[u8]) {
    let hide = |size: usize| {
        let mut hide = HideUsage::new();
        let mut left = Vec::new();
        stream.chunks(size).for_each(|chunk| left.extend(hide.push(Bytes::copy_from_slice(chunk))));
        left.extend(hide.finish());
        left
    };
    let whole = hide(stream.len().max(1));
    for size in [1, 2, 3, 7] {
        assert_eq!(hide(size), whole, "chunks of {size}");
    }
    if !stream.windows(7).any(|window| window == b"\"usage\"") {
        assert_eq!(whole, stream);
    }
}

/// Every way to cut a stream of frames gives the same ones. With checksums that are right, frames are read as AWS's own crate
/// reads them.
pub fn ai_frames(bytes: &[u8]) {
    for limit in [64, 4096] {
        let whole = frames(limit, [bytes]);
        for size in [1, 3, 13] {
            assert_eq!(frames(limit, bytes.chunks(size)), whole, "chunks of {size}, limit {limit}");
        }
    }
    let Some((&length, content)) = bytes.split_first() else { return };
    let headers = usize::from(length).min(content.len());
    let mut frame = Vec::new();
    for number in [content.len() + 16, headers] {
        frame.extend(u32::try_from(number).expect("inputs are small").to_be_bytes());
    }
    frame.extend(sum(&frame));
    frame.extend(content);
    frame.extend(sum(&frame));
    let theirs = read_message_from(&mut &frame[..]).ok().map(|message| {
        let text = |name| {
            let header = message.headers().iter().find(|header| header.name().as_str() == name)?;
            Some(header.value().as_string().ok()?.as_str().to_owned())
        };
        Some((text("a"), message.payload().to_vec()))
    });
    let ours = frames(4096, [&frame[..]]);
    assert_eq!(ours, [theirs.unwrap_or(None)]);
}

/// The header `a` and the payload of each frame; `None` for one above the limit, or for what is none.
fn frames<'a>(
    limit: usize,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<Option<(Option<String>, Vec<u8>)>> {
    let mut decoder = FrameDecoder::new(limit);
    let mut frames = Vec::new();
    let mut keep = |item: Framed<'_>| {
        frames.push(match item {
            Framed::Frame(frame) => Some((frame.text("a").map(str::to_owned), frame.payload().to_vec())),
            _ => None,
        });
    };
    chunks.into_iter().for_each(|chunk| decoder.push(chunk, &mut keep));
    frames
}

fn sum(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_be_bytes()
}

/// Frames of the lines of a stream, each the name of an event and its payload.
fn framed(stream: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    for line in String::from_utf8_lossy(stream).lines() {
        let (name, payload) = line.split_once(' ').unwrap_or((line, "{}"));
        let Some(name) = name.get(..name.len().min(255)) else { continue };
        let header = match name.strip_prefix('!') {
            Some(name) => Header::new(":exception-type", HeaderValue::String(name.to_owned().into())),
            None => Header::new(":event-type", HeaderValue::String(name.to_owned().into())),
        };
        let message = Message::new(payload.as_bytes().to_vec()).add_header(header);
        write_message_to(&message, &mut frames).expect("the header is short");
    }
    frames
}

fn decoded<'a>(dialect: Dialect, chunks: impl IntoIterator<Item = &'a [u8]>) -> VecDeque<Event> {
    let mut decoder = StreamDecoder::new(dialect, 7);
    let mut events = VecDeque::new();
    chunks.into_iter().for_each(|chunk| decoder.push(chunk, &mut events));
    decoder.finish(&mut events);
    events
}

fn defaults() -> Defaults {
    Defaults {
        id: "id".to_owned(),
        model: MODEL.to_owned(),
        created: SystemTime::UNIX_EPOCH,
        stream_usage: true,
        input_estimate: 1,
        echo: Echo::default(),
    }
}

/// The event names and data of a stream; `None` for an event above the limit.
fn events<'a>(limit: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Option<(Vec<u8>, Vec<u8>)>> {
    let mut decoder = SseDecoder::new(limit);
    let mut events = Vec::new();
    let mut keep = |item: Item<'_>| {
        events.push(match item {
            Item::Event { event, data } => Some((event.to_owned(), data.to_owned())),
            _ => None,
        });
    };
    for chunk in chunks {
        decoder.push(chunk, &mut keep);
    }
    decoder.finish(&mut keep);
    events
}

/// The members' boundaries in a body, and where it stops being JSON.
fn marks<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<(Mark, usize)>, Option<u64>) {
    let mut scanner = Scanner::new();
    let mut marks = Vec::new();
    let mut before = 0;
    for chunk in chunks {
        if let Err(malformed) = scanner.push(chunk, |mark, at| marks.push((mark, before + at))) {
            return (marks, Some(malformed.offset));
        }
        before += chunk.len();
    }
    (marks, scanner.finish().err().map(|malformed| malformed.offset))
}

/// The body as the upstream would get it.
fn edit(body: &[u8], provider: &str) -> Bytes {
    let target = Target::new(TargetConfig::new("fuzz", provider, MODEL)).expect("the target is valid");
    let surface = Surface::detect(&Method::POST, PATH, &HeaderMap::new()).expect("the path is known");
    let (head, ()) = Request::post(PATH).body(()).expect("the request is valid").into_parts();
    let prepared =
        target.prepare(&surface, head, Bytes::copy_from_slice(body)).expect("the body is an object");
    let body = prepared.into_request().into_body().collect();
    body.now_or_never().expect("the body is in memory").unwrap_or_else(|never| match never {}).to_bytes()
}
