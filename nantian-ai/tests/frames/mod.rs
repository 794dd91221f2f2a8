//! Streams of AWS, by its own crate.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};

/// Frames with these events, each its name and its payload; the name of an exception begins with `!`.
pub(crate) fn frames<'e>(events: impl IntoIterator<Item = (&'e str, &'e str)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, payload) in events {
        let (kind, name_header, name) = match name.strip_prefix('!') {
            Some(name) => ("exception", ":exception-type", name),
            None => ("event", ":event-type", name),
        };
        let header =
            |name: &'static str, value: &str| Header::new(name, HeaderValue::String(value.to_owned().into()));
        let message = Message::new(payload.as_bytes().to_vec())
            .add_header(header(name_header, name))
            .add_header(header(":content-type", "application/json"))
            .add_header(header(":message-type", kind));
        write_message_to(&message, &mut bytes).unwrap();
    }
    bytes
}
