//! What streams are wrapped in.

use aws_smithy_eventstream::frame::{read_message_from, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use nantian_ai::wire::{
    frames::{FrameDecoder, Item as Framed},
    sse::{Item, SseDecoder},
};

use super::SIZES;
use crate::draw::Draw;

/// Every way to cut a stream gives the same events.
pub fn ai_sse(input: &[u8]) {
    let Some((mut draw, stream)) = Draw::split(input) else { return };
    let (limit, size) = (draw.of(&[8, 4096]), draw.of(&SIZES));
    assert_eq!(
        events(limit, stream.chunks(size)),
        events(limit, [stream]),
        "chunks of {size}, limit {limit}"
    );
}

/// Every way to cut a stream of frames gives the same ones. With checksums that are right, frames are read as
/// AWS's own crate reads them.
pub fn ai_frames(input: &[u8]) {
    let Some((mut draw, bytes)) = Draw::split(input) else { return };
    let (limit, size) = (draw.of(&[64, 4096]), draw.of(&SIZES));
    assert_eq!(frames(limit, bytes.chunks(size)), frames(limit, [bytes]), "chunks of {size}, limit {limit}");
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
    let ours = frames(frame.len(), [&frame[..]]);
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
pub(super) fn framed(stream: &[u8]) -> Vec<u8> {
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

/// The event names and data of a stream; `None` for an event above the limit.
fn events<'a>(limit: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Option<(Vec<u8>, Vec<u8>)>> {
    let mut decoder = SseDecoder::new(limit);
    let mut events = Vec::new();
    let mut keep = |item: Item<'_>| {
        events.push(match item {
            Item::Event { event, data } => Some((event.to_owned(), data.to_owned())),
            Item::Comment => return,
            _ => None,
        });
    };
    for chunk in chunks {
        decoder.push(chunk, &mut keep);
    }
    decoder.finish(&mut keep);
    events
}
