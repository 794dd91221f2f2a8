//! What the beginning of a reply tells that passes as it is: whether it is an answer, whatever its status
//! says.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

use super::Call;
use crate::call::attempt::{Answer, Failed, Step};
use crate::call::chunk_path::ChunkPath;
use crate::call::receive::Receiving;
use crate::codec::fault;
use crate::edit::Object;
use crate::error::BoxError;
use crate::ir::Fault;
use crate::target::Target;
use crate::usage::UsageSink;
use crate::wire::BYTE_ORDER_MARK;

/// What a reply is that is to be one JSON object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Begun {
    /// An answer, as far as can be seen.
    Answer,
    /// An error, which those tell so who have sent the head before they had an answer.
    Error,
    /// Something else, such as a page of a proxy.
    Other,
}

/// How errors begin, but for space.
const ERRORS: [&[u8]; 2] = [br#"{"error":"#, br#"{"type":"error""#];

/// How a stream begins, which some tell under another content type.
const EVENTS: [&[u8]; 4] = [b"data:", b"event:", b"id:", b":"];

/// How one begins, but for space, that ends before anything is said.
const ENDED: [&[u8]; 1] = [b"data:[DONE]"];

/// The longest of them, in bytes.
const LONGEST: usize = 15;

// === impl Begun ===

impl Begun {
    /// `None` where more must come.
    pub(crate) fn of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let bytes = pieces.flat_map(|piece| piece.iter().copied());
        let bytes = bytes.filter(|byte| !byte.is_ascii_whitespace());
        let begun: Vec<u8> = bytes.take(BYTE_ORDER_MARK.len() + LONGEST).collect();
        let begun = begun.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&begun);
        let is_one = |known: &[&[u8]]| known.iter().any(|known| begun.starts_with(known));
        let may_be = |known: &[&[u8]]| known.iter().any(|known| known.starts_with(begun));
        match begun.first() {
            _ if is_one(&ERRORS) => Some(Self::Error),
            _ if is_one(&ENDED) => Some(Self::Other),
            _ if may_be(&ENDED) || may_be(&[BYTE_ORDER_MARK]) => None,
            _ if is_one(&EVENTS) => Some(Self::Answer),
            _ if may_be(&ERRORS) || may_be(&EVENTS) => None,
            Some(b'{') => Some(Self::Answer),
            _ => Some(Self::Other),
        }
    }
}

// === impl Call ===

impl<K: UsageSink> Call<K> {
    /// Judges a reply by its beginning; of an error all has come.
    pub(super) fn begun<B>(&mut self, target: &Target, receiving: Receiving<B>) -> Step<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let begun = receiving.begun();
        let is_cut = receiving.has_all_data() && (begun.is_none() || self.metering.meter().lacks_end());
        let fault = match begun {
            Some(Begun::Error) => error_in(&receiving.joined()),
            Some(Begun::Other) => Some(Fault::unreadable()),
            Some(Begun::Answer) | None => None,
        };
        if let Some(fault) = fault.or_else(|| is_cut.then(Fault::truncated)) {
            return self.no_answer(target, fault, &receiving.head.headers);
        }
        let (head, held, rest) = receiving.into_parts();
        Step::Answer(Box::new(Answer { head, held, rest: Some((rest, ChunkPath::Pass)) }))
    }

    /// What a reply comes to that is no answer, whatever its status says.
    pub(super) fn no_answer<B>(&mut self, target: &Target, fault: Fault, headers: &HeaderMap) -> Step<B> {
        self.discard(fault.kind);
        Step::Failed(Failed::of(target, fault, headers))
    }
}

/// What a whole reply is instead of an answer.
pub(super) fn fault_of(body: &Bytes) -> Option<Fault> {
    match Begun::of(std::iter::once(&**body)) {
        None => Some(Fault::truncated()),
        Some(Begun::Other) => Some(Fault::unreadable()),
        Some(Begun::Answer | Begun::Error) => error_in(body),
    }
}

/// The error that a whole reply is instead of an answer.
fn error_in(body: &[u8]) -> Option<Fault> {
    let object = Object::parse(body).ok()?;
    let error = object.value("error").filter(|error| *error != b"null")?;
    let answers = ["choices", "content", "data", "output"].iter().any(|name| object.value(name).is_some());
    (!answers).then(|| serde_json::from_slice(error).map_or_else(|_| Fault::unreadable(), fault::of_error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::FaultKind;

    #[test]
    fn a_reply_is_known_by_its_beginning_however_it_comes() {
        for (reply, expected) in [
            ("", None),
            (" \n ", None),
            ("{", None),
            (r#"{"err"#, None),
            (r#"{"id":"a","error":null}"#, Some(Begun::Answer)),
            (r#"{"errors":[]}"#, Some(Begun::Answer)),
            (r#"{"type":"message"}"#, Some(Begun::Answer)),
            ("\n\n{ }", Some(Begun::Answer)),
            ("\u{feff}", None),
            ("\u{feff}{}", Some(Begun::Answer)),
            ("\u{feff} {\"error\": {", Some(Begun::Error)),
            ("\u{feff}<html>", Some(Begun::Other)),
            ("{\n  \"error\" : {", Some(Begun::Error)),
            (r#"{"type": "error", "error": {}}"#, Some(Begun::Error)),
            (": ping\n\n", Some(Begun::Answer)),
            ("data: {}\n\n", Some(Begun::Answer)),
            ("data:", None),
            ("data: [DONE]\n\n", Some(Begun::Other)),
            ("data: [{}]\n\n", Some(Begun::Answer)),
            ("default backend - 404", Some(Begun::Other)),
            ("<html>", Some(Begun::Other)),
            ("[]", Some(Begun::Other)),
        ] {
            assert_eq!(Begun::of(std::iter::once(reply.as_bytes())), expected, "{reply}");
            assert_eq!(Begun::of(reply.as_bytes().chunks(1)), expected, "{reply}");
        }
    }

    #[test]
    fn an_error_is_one_only_where_there_is_no_answer_beside_it() {
        let kind = |body: &str| error_in(body.as_bytes()).map(|fault| fault.kind);
        let overloaded = Some(FaultKind::Overloaded);
        assert_eq!(kind(r#" {"error":{"message":"m","code":503},"user_id":"u"}"#), overloaded);
        assert_eq!(kind(r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#), overloaded);
        assert_eq!(kind(r#"{"error":"m"}"#), Some(FaultKind::Upstream));
        assert_eq!(kind(r#"{"error":null,"choices":[]}"#), None);
        assert_eq!(kind(r#"{"error":{"code":503},"choices":[{}]}"#), None);
        assert_eq!(kind(r#"{"choices":[],"error":{"code":503}}"#), None);
    }
}
