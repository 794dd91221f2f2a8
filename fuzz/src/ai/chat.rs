//! Chats, from each dialect into each other.

use std::collections::VecDeque;

use nantian_ai::{
    ClientDialect, Dialect,
    codec::{StreamDecoder, StreamEncoder},
    ir::{Event, ToolNames},
};
use serde::de::IgnoredAny;

use super::{CLIENTS, PROVIDERS, SIZES, defaults, wire::framed};
use crate::draw::Draw;

/// Whatever is a request of one dialect becomes one of each other, or is refused; what is written is an
/// object, and can be judged again: Ollama's tells no type of a picture, so one that is none is found out
/// only there.
pub fn ai_request(input: &[u8]) {
    let Some((mut draw, body)) = Draw::split(input) else { return };
    let (from, to) = (draw.of(&CLIENTS), draw.of(&PROVIDERS));
    let Ok((mut request, _)) = from.decode_request(body) else { return };
    ToolNames::adapt(&mut request);
    let Ok((written, _)) = to.encode_request(&request, "any") else { return };
    // Schemas are passed on as they are, lone surrogates in their strings included.
    serde_json::from_slice::<IgnoredAny>(&written).expect("what is written is JSON");
    assert!(written.starts_with(b"{"), "what is written is an object");
    let _ = ClientDialect::try_from(to).map(|to| to.decode_request(&written));
}

/// Whatever is an answer in one dialect becomes one in each other; what is written can be read.
pub fn ai_reply(input: &[u8]) {
    let Some((mut draw, body)) = Draw::split(input) else { return };
    let (from, to) = (draw.of(&PROVIDERS), draw.of(&CLIENTS));
    let Ok((reply, _)) = from.decode_reply(body, 7) else { return };
    let (written, _) = to.encode_reply(reply, &defaults());
    Dialect::from(to).decode_reply(&written, 7).expect("an answer that was written can be read");
}

/// Every way to cut a stream gives the same events, with one last one; in each other dialect it ends the same
/// way.
pub fn ai_stream(input: &[u8]) {
    let Some((mut draw, stream)) = Draw::split(input) else { return };
    let (from, to, size) = (draw.of(&PROVIDERS), draw.of(&CLIENTS), draw.of(&SIZES));
    let framed = (from == Dialect::Bedrock).then(|| framed(stream));
    let stream = framed.as_deref().unwrap_or(stream);
    let whole = decoded(from, [stream]);
    assert_eq!(decoded(from, stream.chunks(size)), whole, "chunks of {size}");
    assert_eq!(whole.iter().filter(|event| event.is_last()).count(), 1);

    let mut encoder = StreamEncoder::new(to, defaults(), ToolNames::default());
    let mut written = Vec::new();
    let ends_well = whole.back() == Some(&Event::End);
    whole.into_iter().for_each(|event| encoder.push(event, &mut written));
    let again = decoded(to.into(), [&written[..]]);
    assert_eq!(again.back() == Some(&Event::End), ends_well, "{from} to {to}");
}

fn decoded<'a>(dialect: Dialect, chunks: impl IntoIterator<Item = &'a [u8]>) -> VecDeque<Event> {
    let mut decoder = StreamDecoder::new(dialect, 7);
    let mut events = VecDeque::new();
    chunks.into_iter().for_each(|chunk| decoder.push(chunk, &mut events));
    decoder.finish(&mut events);
    events
}
