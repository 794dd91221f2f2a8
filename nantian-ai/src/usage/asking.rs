//! The question of what a stream used, which OpenAI's dialect has its clients ask.

use bytes::Bytes;
use http::StatusCode;

use crate::body::RequestBody;
use crate::dialect::Surface;
use crate::edit::{Object, lookalike};
use crate::facts::RequestFacts;
use crate::wish::Wish;

const OPTIONS: &str = "stream_options";
const INCLUDED: (&str, &str) = ("include_usage", "true");

/// The body of a request whose stream is asked for its usage.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AsksForUsage {
    /// What the client has said, but for `stream_options`.
    pub body: RequestBody,
    /// The client has said no `stream_options`: a refusal of them is of what only this side has said.
    pub is_added: bool,
    /// The model that the client names.
    pub model: Option<String>,
    /// Only a name that some readers take for `stream` asks for a stream: others give none, and may refuse to
    /// be asked about it.
    pub is_resembling: bool,
}

/// Asks a stream for its usage where the client does not, whose answer is to go through a
/// [`HideUsage`](super::HideUsage). `None` if it asks, or nobody has to, or its body is no JSON object.
///
/// A name that some readers [take for](Object::is_shadowed) `stream` counts as it; those that they take for
/// `stream_options` are cut out.
///
/// ```
/// use nantian_ai::Surface;
/// use nantian_ai::usage::ask_for_usage;
///
/// let request = http::Request::post("/v1/chat/completions").body(()).unwrap();
/// let surface = Surface::detect(request.method(), request.uri().path(), request.headers()).unwrap();
/// let asks = |body: &'static str| ask_for_usage(&surface, &body.into()).is_some();
/// assert!(asks(r#"{"stream":true,"messages":[]}"#));
/// assert!(!asks(r#"{"stream":true,"messages":[],"stream_options":{"include_usage":true}}"#));
/// assert!(!asks(r#"{"messages":[]}"#));
/// ```
pub fn ask_for_usage(surface: &Surface, body: &Bytes) -> Option<AsksForUsage> {
    let object = Object::parse(body).ok()?;
    let streams = RequestFacts::streams(surface, &object);
    let resembles = || object.resembling("stream").any(|said| said == b"true");
    let streams_to_some = surface.may_hold_usage_back() && (streams || resembles());
    let options = streams_to_some.then(|| options_that_ask(&object)).flatten()?;
    let cuts = lookalike::cuts(&object, OPTIONS);
    let is_cut = !cuts.is_empty();
    let pieces = object.set_and(body, &[(OPTIONS, &options)], cuts);
    Some(AsksForUsage {
        // Each cut has left pieces of the body, and nobody means to write many such names.
        body: if is_cut { vec![Bytes::from(pieces.concat())] } else { pieces }.into(),
        is_added: is_added(&object),
        model: object.text("model").map(Into::into),
        is_resembling: !streams,
    })
}

/// Whether `stream_options` are only this side's.
pub(crate) fn is_added(object: &Object<'_>) -> bool {
    object.value(OPTIONS).is_none_or(|given| given == b"null")
}

/// Whether a refusal is one of [being asked](ask_for_usage).
pub fn refuses_to_tell_usage(status: StatusCode, said: &[u8]) -> bool {
    Wish::Usage.is_refused(status, said)
}

/// The `stream_options` that let a stream tell its usage, where the client's do not, or where some readers
/// find others.
pub(crate) fn options_that_ask(object: &Object<'_>) -> Option<String> {
    let given = object.value(OPTIONS).and_then(|given| Some((given, Object::parse(given).ok()?)));
    let Some((text, options)) = given else { return Some(r#"{"include_usage":true}"#.to_owned()) };
    let (name, _) = INCLUDED;
    if options.flag(name) == Some(true) && !options.is_shadowed(name) && !object.is_shadowed(OPTIONS) {
        return None;
    }
    let cuts = lookalike::cuts(&options, name);
    String::from_utf8(options.set_and(&Bytes::copy_from_slice(text), &[INCLUDED], cuts).concat()).ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http::{HeaderMap, Method};
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn no_reader_finds_a_stream_that_is_not_asked() {
        const ASKS: &str = r#""stream_options":{"include_usage":true}"#;
        let surface = Surface::detect(&Method::POST, "/v1/chat/completions", &HeaderMap::new()).unwrap();
        let many = format!(r#"{{{}"stream":true}}"#, r#""Stream_options":{},"#.repeat(1000));
        for (body, expected, is_resembling) in [
            (r#"{"stream":true,"Stream_options":{"include_usage":false}}"#, r#"{@,"stream":true}"#, false),
            (r#"{"STREAM":true}"#, r#"{@,"STREAM":true}"#, true),
            (r#"{"stream":true,"\u017ftream_options":1,@}"#, r#"{"stream":true,@}"#, false),
            (
                r#"{"stream":true,"stream_options":{"include_usage":true,"x":1,"Include_Usage":false}}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
                false,
            ),
            (&many, r#"{@,"stream":true}"#, false),
        ] {
            let asks = ask_for_usage(&surface, &body.replace('@', ASKS).into()).unwrap();
            let sent = asks.body.collect().now_or_never().unwrap().unwrap().to_bytes();
            assert_eq!(String::from_utf8(sent.to_vec()).unwrap(), expected.replace('@', ASKS), "{body}");
            assert_eq!(asks.is_resembling, is_resembling, "{body}");
        }
        assert!(ask_for_usage(&surface, &r#"{"STREAM":false}"#.into()).is_none());
    }
}
