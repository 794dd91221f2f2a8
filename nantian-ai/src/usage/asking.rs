//! The question of what a stream used, which OpenAI's dialect has its clients ask.

use bytes::Bytes;
use http::StatusCode;

use crate::body::RequestBody;
use crate::dialect::Surface;
use crate::edit::Object;
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
}

/// Asks a stream for its usage where the client does not, whose answer is to go through a
/// [`HideUsage`](super::HideUsage). `None` if it asks, or nobody has to, or its body is no JSON object.
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
    let streams = surface.may_hold_usage_back() && RequestFacts::streams(surface, &object);
    let options = streams.then(|| options_that_ask(&object)).flatten()?;
    let body = object.set(body, &[(OPTIONS, &options)]).into();
    Some(AsksForUsage { body, is_added: is_added(&object) })
}

/// Whether `stream_options` are only this side's.
pub(crate) fn is_added(object: &Object<'_>) -> bool {
    object.value(OPTIONS).is_none_or(|given| given == b"null")
}

/// Whether a refusal is one of [being asked](ask_for_usage).
pub fn refuses_to_tell_usage(status: StatusCode, said: &[u8]) -> bool {
    Wish::Usage.is_refused(status, said)
}

/// The `stream_options` that let a stream tell its usage, where the client's do not.
pub(crate) fn options_that_ask(object: &Object<'_>) -> Option<String> {
    let given = object.value(OPTIONS).and_then(|given| Some((given, Object::parse(given).ok()?)));
    let Some((text, options)) = given else { return Some(r#"{"include_usage":true}"#.to_owned()) };
    if options.flag(INCLUDED.0) == Some(true) {
        return None;
    }
    let pieces = options.set(&Bytes::copy_from_slice(text), &[INCLUDED]);
    String::from_utf8(pieces.concat()).ok()
}
