//! Bodies and streams of which a little is changed and the rest stays.

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, header::HeaderMap, method::Method};
use http_body_util::BodyExt as _;
use nantian_ai::{
    Surface, Target, TargetConfig,
    edit::model_of,
    usage::HideUsage,
    wire::json::{Mark, Scanner},
};
use serde_json::{Map, Value};

use super::{MODEL, SIZES};
use crate::draw::Draw;

const PATH: &str = "/v1/chat/completions";

/// A body that a JSON parser takes is taken, and setting its model changes what setting it in the parsed
/// object would. Every way to cut the body gives the same members.
pub fn ai_edit(input: &[u8]) {
    let Some((mut draw, body)) = Draw::split(input) else { return };
    let (provider, size) = (draw.of(&["openai", "mistral"]), draw.of(&SIZES));
    assert_eq!(marks(body.chunks(size)), marks([body]), "chunks of {size}");

    let Ok(mut expected) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
    assert_eq!(model_of(body).as_deref(), expected.get("model").and_then(Value::as_str));
    expected.insert("model".to_owned(), MODEL.into());
    // No other one is to be asked.
    for name in ["fallback_credit_token", "fallbacks", "models", "route"] {
        expected.remove(name);
    }
    let mut edited: Map<String, Value> =
        serde_json::from_slice(&edit(body, provider)).expect("the edited body is JSON");
    // Neither takes reasoning back. It is cut out where it is spelt without escapes.
    without_reasoning(&mut expected);
    without_reasoning(&mut edited);
    if provider == "mistral" {
        // It knows only older names and is told them, however the newer ones are spelt.
        assert_eq!(with_older_names(edited), with_older_names(expected));
    } else {
        // It is asked for the usage of a stream, too.
        expected.remove("stream_options");
        edited.remove("stream_options");
        assert_eq!(edited, expected);
    }
}

/// Every way to cut a stream leaves the same of it without its usage, and what does not speak of usage stays
/// as it is.
pub fn ai_hide(input: &[u8]) {
    let Some((mut draw, stream)) = Draw::split(input) else { return };
    let hide = |size: usize| {
        let mut hide = HideUsage::new();
        let mut left = Vec::new();
        stream.chunks(size).for_each(|chunk| left.extend(hide.push(Bytes::copy_from_slice(chunk))));
        left.extend(hide.finish());
        left
    };
    let whole = hide(stream.len().max(1));
    let size = draw.of(&SIZES);
    assert_eq!(hide(size), whole, "chunks of {size}");
    if !stream.windows(7).any(|window| window == b"\"usage\"") {
        assert_eq!(whole, stream);
    }
}

fn without_reasoning(body: &mut Map<String, Value>) {
    for message in body.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(message) = message.as_object_mut() {
            message.remove("reasoning_content");
            message.remove("thinking_blocks");
        }
    }
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
