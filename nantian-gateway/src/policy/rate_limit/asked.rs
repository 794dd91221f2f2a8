//! What the body of a request says of its model and its user, for scopes that count by them.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request, header::AUTHORIZATION};
use http_body::{Body as _, Frame, SizeHint};
use serde::Deserialize;
use tower::{Layer, Service};

use crate::body::{Body, BoxError};

/// The most bytes of a body that are read before the limits are asked; a longer one says nothing.
const MOST: usize = 32 << 20;

/// What a request says of itself; whoever can send it can say anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The model.
    pub(super) model: Option<Arc<str>>,
    /// The user's name of Basic credentials, else what the body says: `user`, `safety_identifier` or `metadata.user_id`.
    pub(super) user: Option<Arc<str>>,
}

/// Leaves an [`Asked`] in the extensions of every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedLayer;

#[derive(Debug, Clone)]
pub(super) struct AskedService<S>(S);

/// What was read of a body, then the rest of it.
struct Replay {
    read: VecDeque<Result<Frame<Bytes>, BoxError>>,
    rest: Option<Body>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    model: serde_json::Value,
    user: serde_json::Value,
    safety_identifier: serde_json::Value,
    metadata: serde_json::Value,
}

impl<S> Layer<S> for AskedLayer {
    type Service = AskedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AskedService(inner)
    }
}

impl<S> Service<Request<Body>> for AskedService<S>
where
    S: Service<Request<Body>, Error = BoxError> + Clone + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let next = self.0.clone();
        let mut inner = std::mem::replace(&mut self.0, next);
        Box::pin(async move {
            let (mut parts, mut body) = request.into_parts();
            let replay = Replay::read(&mut body).await;
            let asked = Asked::of(&parts.headers, &replay.bytes());
            parts.extensions.insert(asked);
            inner.call(Request::from_parts(parts, replay.then(body))).await
        })
    }
}

impl Asked {
    fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let fields: Fields = serde_json::from_slice(body).unwrap_or_default();
        let said = |value: &serde_json::Value| value.as_str().map(Arc::from);
        let user = basic_user(headers)
            .or_else(|| said(&fields.user))
            .or_else(|| said(&fields.safety_identifier))
            .or_else(|| said(fields.metadata.get("user_id")?));
        Self { model: said(&fields.model), user }
    }
}

/// The user's name of Basic credentials (RFC 7617).
fn basic_user(headers: &HeaderMap) -> Option<Arc<str>> {
    let credentials = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = credentials.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let (user, _) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Arc::from(user))
}

// === impl Replay ===

impl Replay {
    /// Reads `body` to its end, or as far as anybody looks.
    async fn read(body: &mut Body) -> Self {
        let (mut read, mut length) = (VecDeque::new(), 0);
        while length <= MOST && !body.is_end_stream() {
            let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else { break };
            length += frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
            let is_broken = frame.is_err();
            read.push_back(frame);
            if is_broken {
                break;
            }
        }
        Self { read, rest: None }
    }

    /// What was read in one piece; nothing if that is not the whole.
    fn bytes(&self) -> Bytes {
        let data = || self.read.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let length: usize = data().map(Bytes::len).sum();
        match (data().next(), data().count()) {
            (None, _) => Bytes::new(),
            _ if length > MOST => Bytes::new(),
            (Some(only), 1) => only.clone(),
            _ => data().flatten().copied().collect(),
        }
    }

    fn then(mut self, rest: Body) -> Body {
        self.rest = Some(rest).filter(|rest| !rest.is_end_stream());
        Body::boxed(self)
    }
}

impl http_body::Body for Replay {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let frames = self.read.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let read: u64 = frames.map(|data| data.len() as u64).sum();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(read.saturating_add(upper));
        }
        hint.set_lower(read.saturating_add(rest.lower()));
        hint
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asked(body: &str) -> (Option<String>, Option<String>) {
        let asked = Asked::of(&HeaderMap::new(), body.as_bytes());
        (asked.model.map(|model| model.to_string()), asked.user.map(|user| user.to_string()))
    }

    #[test]
    fn a_body_says_model_and_user_in_every_dialect() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(asked(r#"{"model":"m","messages":[],"user":"u"}"#), (some("m"), some("u")));
        assert_eq!(asked(r#"{"metadata":{"user_id":"u"},"model":"m"}"#), (some("m"), some("u")));
        assert_eq!(asked(r#"{"model":"m","safety_identifier":"s"}"#), (some("m"), some("s")));
        assert_eq!(asked(r#"{"model":7,"user":["u"],"metadata":{"user_id":"u"}}"#), (None, some("u")));
        for nothing in ["", "[]", "{", "text", r#"{"model":"a","model":"b"}"#] {
            assert_eq!(asked(nothing), (None, None), "{nothing}");
        }
    }

    #[test]
    fn basic_credentials_name_the_user() {
        let mut headers = HeaderMap::new();
        let encoded = format!("Basic {}", BASE64_STANDARD.encode("alice:secret:more"));
        headers.insert(AUTHORIZATION, HeaderValue::try_from(encoded).unwrap());
        let asked = Asked::of(&headers, br#"{"user":"somebody else"}"#);
        assert_eq!(asked.user.as_deref(), Some("alice"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic ???"));
        assert_eq!(Asked::of(&headers, b"").user, None);
    }
}
