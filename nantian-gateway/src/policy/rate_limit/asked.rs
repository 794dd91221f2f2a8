//! What the body of a request says of its model and its user, for scopes that count by them.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, Request,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body::{Body as _, Frame, SizeHint};
use tower::{Layer, Service};

use super::fields::Fields;
use crate::body::{Body, BoxError};

/// The most bytes of a body that are read before the limits are asked; a longer one says nothing.
const MOST: usize = 1 << 20;

/// What a request says of itself; whoever can send it can say anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The model.
    pub(super) model: Option<Arc<str>>,
    /// The user's name of Basic credentials, else what the body says: `user`, `safety_identifier` or `metadata.user_id`.
    pub(super) user: Option<Arc<str>>,
}

/// Leaves an [`Asked`] in the extensions of every request.
///
/// It waits for the end of a body of at most [`MOST`] bytes that is JSON by its type, or whose length is known from the
/// beginning: clients forget the type, and some providers do not mind. Every other body passes on at once, and says nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedLayer {
    /// Somebody counts by the model that the body names.
    pub(super) model: bool,
    /// Somebody counts by the user.
    pub(super) user: bool,
}

#[derive(Debug, Clone)]
pub(super) struct AskedService<S> {
    inner: S,
    layer: AskedLayer,
}

/// What was read of a body, then the rest of it.
struct Replay {
    data: Bytes,
    /// Trailers, or what broke it off.
    end: Option<Result<Frame<Bytes>, BoxError>>,
    rest: Option<Body>,
}

impl<S> Layer<S> for AskedLayer {
    type Service = AskedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AskedService { inner, layer: *self }
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
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer;
        Box::pin(async move {
            let (mut parts, mut body) = request.into_parts();
            let user = basic_user(&parts.headers);
            let asks = layer.model || (layer.user && user.is_none());
            let asked = if asks && may_be_json(&parts.headers, &body.size_hint()) {
                let replay = Replay::read(&mut body).await;
                let asked = Asked::of(user, replay.whole());
                body = replay.then(body);
                asked
            } else {
                Asked { model: None, user }
            };
            parts.extensions.insert(asked);
            inner.call(Request::from_parts(parts, body)).await
        })
    }
}

impl Asked {
    /// What `body` says, unless the credentials have named the user.
    fn of(user: Option<Arc<str>>, body: &[u8]) -> Self {
        let fields: Fields<'_> = serde_json::from_slice(body).unwrap_or_default();
        let user = user.or_else(|| fields.user().map(Arc::from));
        Self { model: fields.model().map(Arc::from), user }
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

/// Whether the body may be one JSON text; gRPC's messages of JSON are many.
fn may_be_json(headers: &HeaderMap, size: &SizeHint) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = media_type == "application/json" || media_type.ends_with("+json");
    size.lower() <= MOST as u64
        && !media_type.starts_with("application/grpc")
        && (is_json || size.exact().is_some())
}

// === impl Replay ===

impl Replay {
    /// Reads `body` to its end, or as far as anybody looks.
    async fn read(body: &mut Body) -> Self {
        let (mut first, mut more) = (Bytes::new(), BytesMut::new());
        let mut end = None;
        while first.len() + more.len() <= MOST && !body.is_end_stream() {
            match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if first.is_empty() => first = data,
                    Ok(data) => more.extend_from_slice(&data),
                    Err(trailers) => end = Some(Ok(trailers)),
                },
                Some(Err(error)) => end = Some(Err(error)),
                None => break,
            }
            if end.is_some() {
                break;
            }
        }
        let data = if more.is_empty() { first } else { [&first[..], &more].concat().into() };
        Self { data, end, rest: None }
    }

    /// What was read, if that is the whole.
    fn whole(&self) -> &[u8] {
        if self.data.len() > MOST || matches!(self.end, Some(Err(_))) { &[] } else { &self.data }
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
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))));
        }
        if let Some(end) = self.end.take() {
            return Poll::Ready(Some(end));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty()
            && self.end.is_none()
            && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.data.len() as u64;
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
    use std::convert::Infallible;

    use http::HeaderValue;
    use http_body_util::{BodyExt, StreamBody};
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn asked(body: &str) -> (Option<String>, Option<String>) {
        let asked = Asked::of(None, body.as_bytes());
        (asked.model.map(|model| model.to_string()), asked.user.map(|user| user.to_string()))
    }

    /// What the inner service sees of a request with these chunks.
    async fn seen(layer: AskedLayer, content_type: &str, chunks: Vec<Bytes>) -> (Asked, Bytes) {
        let frames = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
        let body = Body::boxed(StreamBody::new(futures_util::stream::iter(frames)));
        let request = Request::builder().header(CONTENT_TYPE, content_type).body(body).unwrap();
        let inner = service_fn(async |request: Request<Body>| {
            let asked = request.extensions().get::<Asked>().unwrap().clone();
            Ok::<_, BoxError>((asked, request.into_body().collect().await?.to_bytes()))
        });
        layer.layer(inner).oneshot(request).await.unwrap()
    }

    const BOTH: AskedLayer = AskedLayer { model: true, user: true };

    #[test]
    fn a_body_says_model_and_user_in_every_dialect() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(asked(r#"{"model":"m","messages":[],"user":"u"}"#), (some("m"), some("u")));
        assert_eq!(asked(r#"{"metadata":{"user_id":"u"},"model":"m"}"#), (some("m"), some("u")));
        assert_eq!(asked(r#"{"model":"m","safety_identifier":"s"}"#), (some("m"), some("s")));
        assert_eq!(asked(r#"{"model":7,"user":["u"],"metadata":{"user_id":"u"}}"#), (None, some("u")));
        let odd =
            r#"{"model":{"user_id":"m"},"user":null,"metadata":{"a":[1,{}],"user_id":"\u0075","b":-1.5}}"#;
        assert_eq!(asked(odd), (None, some("u")));
        assert_eq!(asked(r#"{"mod\u0065l":"m","user":true,"metadata":"u"}"#), (some("m"), None));
        for nothing in ["", "[]", "{", "text", r#"{"model":"a","model":"b"}"#] {
            assert_eq!(asked(nothing), (None, None), "{nothing}");
        }
    }

    #[test]
    fn basic_credentials_name_the_user() {
        let mut headers = HeaderMap::new();
        let encoded = format!("Basic {}", BASE64_STANDARD.encode("alice:secret:more"));
        headers.insert(AUTHORIZATION, HeaderValue::try_from(encoded).unwrap());
        let asked = Asked::of(basic_user(&headers), br#"{"user":"somebody else"}"#);
        assert_eq!(asked.user.as_deref(), Some("alice"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic ???"));
        assert_eq!(basic_user(&headers), None);
    }

    #[tokio::test]
    async fn a_json_body_is_read_however_it_comes_and_passes_on_whole() {
        let text = r#"{"model":"m","user":"u"}"#;
        for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/x+json"] {
            for size in [1, 7, text.len()] {
                let chunks = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
                let (asked, body) = seen(BOTH, content_type, chunks).await;
                assert_eq!((asked.model.as_deref(), asked.user.as_deref()), (Some("m"), Some("u")));
                assert_eq!(body, text);
            }
        }
    }

    #[tokio::test]
    async fn the_type_may_be_missing_where_the_length_is_known() {
        let inner = service_fn(async |request: Request<Body>| {
            Ok::<_, BoxError>(request.extensions().get::<Asked>().unwrap().clone())
        });
        let ask = async |content_type| {
            let request = Request::builder().header(CONTENT_TYPE, content_type);
            let request = request.body(Body::full(r#"{"model":"m"}"#)).unwrap();
            BOTH.layer(inner).oneshot(request).await.unwrap().model
        };
        assert_eq!(ask("application/x-www-form-urlencoded").await.as_deref(), Some("m"));
        assert_eq!(ask("application/grpc+json").await, None);
    }

    #[tokio::test]
    async fn a_body_beyond_the_most_says_nothing_and_passes_on_whole() {
        let mut text = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(MOST));
        text.push_str(&" ".repeat(MOST));
        let chunks = text.as_bytes().chunks(50_000).map(Bytes::copy_from_slice).collect();
        let (asked, body) = seen(BOTH, "application/json", chunks).await;
        assert_eq!(asked, Asked::default());
        assert!(body == text);
    }

    #[tokio::test]
    async fn what_is_no_json_or_need_not_be_read_is_decided_on_before_it_ends() {
        let endless = || {
            let first =
                futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")))]);
            Body::boxed(StreamBody::new(futures_util::StreamExt::chain(
                first,
                futures_util::stream::pending(),
            )))
        };
        let decided = service_fn(async |request: Request<Body>| {
            Ok::<_, BoxError>(request.extensions().get::<Asked>().unwrap().clone())
        });
        for content_type in ["application/grpc", "application/grpc+json", "text/plain", "application/ndjson"]
        {
            let request = Request::builder().header(CONTENT_TYPE, content_type).body(endless()).unwrap();
            assert_eq!(BOTH.layer(decided).oneshot(request).await.unwrap(), Asked::default());
        }
        let request = Request::builder()
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode("alice:secret")))
            .body(endless())
            .unwrap();
        let by_user = AskedLayer { model: false, user: true };
        let asked = by_user.layer(decided).oneshot(request).await.unwrap();
        assert_eq!(asked.user.as_deref(), Some("alice"));
    }
}
