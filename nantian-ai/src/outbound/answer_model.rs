//! The model of an answer that passes, by the name that its client has asked for.
//!
//! Claude Code gives reasoning back only to the model that has thought it, which it tells by the name in the
//! answer. What others than Claude have signed it had better keep: Claude refuses it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;

use crate::dialect::{ClientDialect, Operation, Surface, anthropic};
use crate::edit::Object;
use crate::facts::RequestFacts;

/// How an answer has to name its model, as JSON, if not as its provider does. Where the client asks for a
/// model by the provider's own name it is told what the provider tells everybody.
pub(crate) fn name(surface: &Surface, facts: &RequestFacts, model: &str) -> Option<Arc<str>> {
    let is_compared = (surface.dialect(), surface.operation()) == (ClientDialect::Anthropic, Operation::Chat);
    let asked = facts.model.as_deref().filter(|asked| is_compared && !asked.is_empty() && *asked != model);
    asked.map(|asked| serde_json::Value::from(asked).to_string().into())
}

/// A whole answer under another name.
pub(crate) fn whole(body: Bytes, name: &str) -> Bytes {
    let named = Object::parse(&body).ok().filter(|object| object.value("model").is_some());
    let renamed = named.map(|object| Bytes::from(object.set(&body, &[("model", name)]).concat()));
    renamed.unwrap_or(body)
}

/// The same where the answer passes as it is: what a model of another family says stays under its own name.
pub(super) fn passing(surface: &Surface, facts: &RequestFacts, model: &str) -> Option<Arc<str>> {
    name(surface, facts, model).filter(|_| anthropic::Traits::of(model).is_claude)
}

/// The beginning of a stream under another name.
pub(crate) fn beginning(begun: Bytes, name: &str) -> Bytes {
    let parts = place(&begun).and_then(|place| Some((begun.get(..place.start)?, begun.get(place.end..)?)));
    let renamed = parts.map(|(before, after)| Bytes::from([before, name.as_bytes(), after].concat()));
    renamed.unwrap_or(begun)
}

/// Where the first event names the model.
fn place(stream: &[u8]) -> Option<Range<usize>> {
    const DATA: &[u8] = b"data:";
    // In a text quotes are escaped, so that none looks like it.
    let kind = memmem::find(stream, b"\"message_start\"")?;
    let start = memchr::memrchr(b'\n', stream.get(..kind)?).map_or(0, |before| before + 1);
    let line = stream.get(start..)?.split(|&byte| byte == b'\n').next()?;
    let (message_at, message) = Object::parse(line.strip_prefix(DATA)?).ok()?.place("message")?;
    let (model_at, model) = Object::parse(message).ok()?.place("model")?;
    let at = start + DATA.len() + message_at + model_at;
    Some(at..at + model.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_the_model_changes() {
        for (begun, renamed) in [
            (
                "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"model\" : \"m\",\"content\":[]}}\r\n\r\nevent: ping\r\n",
                "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"model\" : \"n\",\"content\":[]}}\r\n\r\nevent: ping\r\n",
            ),
            (
                "data:{\"message\":{\"id\":\"m\",\"model\":\"m\"},\"type\": \"message_start\"}\n\ndata:{\"model\":\"m\"}",
                "data:{\"message\":{\"id\":\"m\",\"model\":\"n\"},\"type\": \"message_start\"}\n\ndata:{\"model\":\"m\"}",
            ),
            ("data: {\"type\":\"message_start\",\"message\":{}}\n\n", ""),
            ("data: {\"type\":\"message_start\",\"message\":{\"mod", ""),
            ("data: {\"type\":\"error\"}\n\n", ""),
        ] {
            let expected = if renamed.is_empty() { begun } else { renamed };
            assert_eq!(beginning(Bytes::from(begun), "\"n\""), expected);
        }
        let reply = r#"{"model": "m","content":[{"input":{"model":"m"}}]}"#;
        assert_eq!(whole(Bytes::from(reply), "\"n\""), reply.replacen("\"m\"", "\"n\"", 1));
        assert_eq!(whole(Bytes::from("<html>"), "\"n\""), "<html>");
    }
}
