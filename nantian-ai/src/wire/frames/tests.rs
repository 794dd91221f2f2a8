use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder, write_message_to};
use aws_smithy_types::DateTime;
use aws_smithy_types::event_stream::{Header as AwsHeader, HeaderValue, Message};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Frames as AWS writes them.
fn written(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| write_message_to(message, &mut bytes).unwrap());
    bytes
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    Frame(Vec<(String, Option<String>)>, Vec<u8>),
    Oversized,
    Malformed,
}

fn seen(item: Item<'_>) -> Seen {
    match item {
        Item::Frame(frame) => {
            let mut headers = Vec::new();
            let mut rest = frame.headers;
            while let Some(header) = Header::read(rest) {
                let name = String::from_utf8(header.name.to_vec()).unwrap();
                headers.push((name, header.text.map(str::to_owned)));
                rest = header.rest;
            }
            Seen::Frame(headers, frame.payload.to_vec())
        }
        Item::Oversized => Seen::Oversized,
        Item::Malformed => Seen::Malformed,
    }
}

fn decode<'c>(limit: usize, chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<Seen> {
    let mut decoder = FrameDecoder::new(limit);
    let mut items = Vec::new();
    chunks.into_iter().for_each(|chunk| decoder.push(chunk, |item| items.push(seen(item))));
    items
}

/// The same by AWS's own decoder.
fn decode_theirs(mut bytes: &[u8]) -> Vec<Seen> {
    let mut decoder = MessageFrameDecoder::new();
    let mut items = Vec::new();
    loop {
        match decoder.decode_frame(&mut bytes) {
            Ok(DecodedFrame::Complete(message)) => {
                let headers = message.headers().iter().map(|header| {
                    let text = header.value().as_string().ok().map(|text| text.as_str().to_owned());
                    (header.name().as_str().to_owned(), text)
                });
                items.push(Seen::Frame(headers.collect(), message.payload().to_vec()));
            }
            Ok(DecodedFrame::Incomplete) => return items,
            Err(_) => {
                items.push(Seen::Malformed);
                return items;
            }
        }
    }
}

fn event(kind: &str, payload: &str) -> Message {
    Message::new(payload.as_bytes().to_vec())
        .add_header(AwsHeader::new(":event-type", HeaderValue::String(kind.to_owned().into())))
        .add_header(AwsHeader::new(":message-type", HeaderValue::String("event".into())))
}

#[test]
fn headers_are_found_by_name_and_the_rest_is_payload() {
    let bytes = written(&[event("metadata", "{}")]);
    let mut found = 0;
    FrameDecoder::new(1024).push(&bytes, |item| {
        let Item::Frame(frame) = item else { panic!("{item:?}") };
        assert_eq!(frame.text(":message-type"), Some("event"));
        assert_eq!(frame.text(":event-type"), Some("metadata"));
        assert_eq!(frame.text(":odd"), None);
        assert_eq!(frame.payload(), b"{}");
        found += 1;
    });
    assert_eq!(found, 1);
}

#[test]
fn a_frame_above_the_limit_is_skipped_and_said() {
    let bytes = written(&[event("a", "1"), event("b", &"2".repeat(200)), event("c", "3")]);
    let expected = decode(128, [&bytes[..]]);
    assert!(matches!(&expected[..], [Seen::Frame(..), Seen::Oversized, Seen::Frame(..)]), "{expected:?}");
    for size in [1, 5, 12, 13, 64] {
        assert_eq!(decode(128, bytes.chunks(size)), expected, "{size}");
    }
}

#[test]
fn a_changed_byte_is_the_end() {
    let bytes = written(&[event("a", "{\"x\":1}"), event("b", "{}")]);
    let first = written(&[event("a", "{\"x\":1}")]).len();
    for at in 0..first {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert_eq!(decode(1024, [&bytes[..]]), [Seen::Malformed], "{at}");
    }
}

fn header() -> impl Strategy<Value = AwsHeader> {
    let value = prop_oneof![
        any::<bool>().prop_map(HeaderValue::Bool),
        any::<i8>().prop_map(HeaderValue::Byte),
        any::<i16>().prop_map(HeaderValue::Int16),
        any::<i32>().prop_map(HeaderValue::Int32),
        any::<i64>().prop_map(HeaderValue::Int64),
        vec(any::<u8>(), 0..9).prop_map(|bytes| HeaderValue::ByteArray(bytes.into())),
        ".{0,9}".prop_map(|text| HeaderValue::String(text.into())),
        (0..9_i64).prop_map(|seconds| HeaderValue::Timestamp(DateTime::from_secs(seconds))),
        any::<u128>().prop_map(HeaderValue::Uuid),
    ];
    ("[:a-zé]{1,9}", value).prop_map(|(name, value)| AwsHeader::new(name, value))
}

fn message() -> impl Strategy<Value = Message> {
    (vec(header(), 0..4), vec(any::<u8>(), 0..40)).prop_map(|(headers, payload)| {
        headers.into_iter().fold(Message::new(payload), |message, header| message.add_header(header))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_aws_writes_is_read_as_aws_reads_it(messages in vec(message(), 0..5), size in 1_usize..40) {
        let bytes = written(&messages);
        let expected = decode_theirs(&bytes);
        prop_assert_eq!(expected.len(), messages.len());
        prop_assert_eq!(decode(1 << 20, bytes.chunks(size)), expected.clone());
        prop_assert_eq!(decode(1 << 20, [&bytes[..]]), expected);
    }

    #[test]
    fn what_is_damaged_is_refused_where_aws_refuses_it(
        messages in vec(message(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        size in 1_usize..40,
    ) {
        let mut bytes = written(&messages);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let (ours, mut theirs) = (decode(1 << 30, bytes.chunks(size)), decode_theirs(&bytes));
        // A wrong length is found out by its own checksum; theirs waits for so many bytes first.
        if ours.len() > theirs.len() {
            theirs.push(Seen::Malformed);
        }
        prop_assert_eq!(ours, theirs);
    }
}
