//! What the body of a request says of its model and its user, for scopes that count by them, and of the
//! tokens it will use.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, Request,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE},
    request::Parts,
};
use http_body::{Body as _, SizeHint};
use nantian_ai::{BodyMemory, Error, HeldMemory, Surface, TargetConfig, edit::Object, read::unpack};
use nantian_ratelimit::HeldBytes;
use tower::{Layer, Service};

use super::expected::{Expected, ExpectedAnswer};
use crate::{
    body::{Body, BoxError},
    policy::peeked_body::PeekedBody,
};

/// The most bytes of a body that are read before the limits are asked; a longer one says nothing of its
/// model and its user.
const MOST: u64 = 1 << 20;
/// The same where the body is read in any case, to choose an AIService by it.
const MOST_ROUTED: u64 = TargetConfig::DEFAULT_MAX_BODY;

/// What a request says of itself; whoever can send it can say anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BodyFacts {
    /// The model.
    pub(super) model: Option<Arc<str>>,
    /// Some readers find another one in the body.
    pub(super) is_model_shadowed: bool,
    /// The user's name of Basic credentials, else what the body says: `user`, `safety_identifier` or
    /// `metadata.user_id`.
    pub(super) user: Option<Arc<str>>,
}

/// Leaves a [`BodyFacts`] in the extensions of every request.
///
/// It waits for the end of a body of at most [`MOST`] bytes that is JSON by its type, or whose length is
/// known from the beginning: clients forget the type, and some providers do not mind. Every other body passes
/// on at once, and says nothing.
///
/// Where an AIService is chosen by the body, it is read as it is there: up to [`MOST_ROUTED`] bytes of any
/// type, compressed or not, or a client could be counted for one model and served by another.
///
/// Where tokens are counted, an operation that spends some gets an estimate, by the beginning of its body
/// where that is long: of any type, since whoever serves it takes it for JSON. All else that has a body gets
/// that of an answer, for whoever sees how long the body was.
#[derive(Debug, Clone)]
pub(super) struct BodyFactsLayer {
    /// Somebody counts by the model that the body names.
    pub(super) model: bool,
    /// Somebody counts by the user.
    pub(super) user: bool,
    /// An AIService reads the body in any case.
    pub(super) is_routed_by_model: bool,
    /// Somebody counts tokens.
    pub(super) tokens: Option<Arc<Expected>>,
    /// Where what is read is held; what finds no room there is refused.
    pub(super) memory: Option<BodyMemory>,
}

#[derive(Debug, Clone)]
pub(super) struct BodyFactsService<S> {
    inner: S,
    layer: BodyFactsLayer,
}

/// Whom the credentials of a request name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Authorized {
    /// Nobody: the body may say.
    #[default]
    Nobody,
    /// This user.
    User(Arc<str>),
    /// Somebody: what cannot be read here may be read by whoever checks it, so that nobody chooses a user
    /// beside it.
    Somebody,
}

impl<S> Layer<S> for BodyFactsLayer {
    type Service = BodyFactsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BodyFactsService { inner, layer: self.clone() }
    }
}

impl<S> Service<Request<Body>> for BodyFactsService<S>
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
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut parts, mut body) = request.into_parts();
            let authorized = Authorized::by(&parts.headers);
            let asks = layer.asks(&authorized);
            let spends = layer.spends(&parts);
            if spends.is_none()
                && !body.is_end_stream()
                && let Some(expected) = &layer.tokens
            {
                parts.extensions.insert(ExpectedAnswer(expected.answer()));
            }
            let facts = match layer.most(&parts, &body.size_hint(), asks, spends.is_some()) {
                Some(most) => {
                    let held = parts.extensions.get::<HeldMemory>().cloned();
                    let held = held.or_else(|| layer.memory.as_ref().map(BodyMemory::begin));
                    let mut peeked = PeekedBody::read(&mut body, most, held.clone()).await?;
                    if layer.is_routed_by_model {
                        peeked.unpack(&mut parts.headers)?;
                        // Whoever chooses an AIService goes on to hold it.
                        if let Some(held) = held {
                            parts.extensions.insert(held);
                        }
                    }
                    parts.extensions.insert(HeldBytes(peeked.data.len() as u64));
                    let plain = peeked.plain(&parts.headers);
                    if let (Some((surface, expected)), Some(plain)) = (spends, &plain) {
                        expected.note(&surface, plain, &mut parts.extensions);
                    }
                    let whole = plain.as_deref().filter(|_| asks && peeked.is_whole);
                    let facts = BodyFacts::of(authorized, whole.unwrap_or_default());
                    body = peeked.then(body);
                    facts
                }
                None => BodyFacts::of(authorized, &[]),
            };
            parts.extensions.insert(facts);
            inner.call(Request::from_parts(parts, body)).await
        })
    }
}

impl BodyFactsLayer {
    /// One that stands for the body's being read to choose an AIService.
    pub(super) const ROUTED: Self =
        Self { model: true, user: false, is_routed_by_model: true, tokens: None, memory: None };

    /// The operation, if it spends tokens and somebody counts them.
    fn spends(&self, request: &Parts) -> Option<(Surface, Arc<Expected>)> {
        let expected = self.tokens.as_ref()?;
        let path = request.uri.path();
        let surface = Surface::detect_decoded(&request.method, path, &request.headers).ok()?;
        surface.operation().spends().then(|| (surface, Arc::clone(expected)))
    }

    /// Whether the body is asked for more than the tokens it will use.
    fn asks(&self, authorized: &Authorized) -> bool {
        self.model || (self.user && *authorized == Authorized::Nobody)
    }

    /// Whether anything is read of the body before all limits are asked.
    pub(super) fn reads(&self, request: &Parts, size: &SizeHint) -> bool {
        let asks = self.asks(&Authorized::by(&request.headers));
        self.most(request, size, asks, self.spends(request).is_some()).is_some()
    }

    /// How much of the body is read before the limits are asked, if anything is; of one that spends tokens at
    /// least the beginning.
    fn most(&self, request: &Parts, size: &SizeHint, asks: bool, spends: bool) -> Option<u64> {
        if !(asks || spends) {
            return None;
        }
        if !self.is_routed_by_model {
            let may_say = spends || (size.lower() <= MOST && may_be_json(&request.headers, size));
            return may_say.then_some(MOST);
        }
        // What is no operation is refused before its body is read.
        let surface = Surface::detect(&request.method, request.uri.path(), &request.headers);
        surface.is_ok().then_some(MOST_ROUTED).filter(|most| size.lower() <= *most)
    }
}

impl BodyFacts {
    /// What `body` says, unless the credentials have named the user. Of several members with one name the
    /// last counts, as it does where an AIService is chosen.
    fn of(authorized: Authorized, body: &[u8]) -> Self {
        let body = Object::parse(body).ok();
        let user = match authorized {
            Authorized::User(user) => Some(user),
            Authorized::Somebody => None,
            Authorized::Nobody => body.as_ref().and_then(user_of),
        };
        let is_model_shadowed = body.as_ref().is_some_and(|body| body.is_shadowed("model"));
        let model = body.and_then(|body| body.text("model").map(Arc::from));
        Self { model, is_model_shadowed, user }
    }
}

impl Authorized {
    /// By Basic credentials (RFC 7617), of which the password may be in any encoding.
    fn by(headers: &HeaderMap) -> Self {
        let Some(credentials) = headers.get(AUTHORIZATION) else { return Self::Nobody };
        let credentials = credentials.as_bytes().trim_ascii();
        let scheme = credentials.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Self::Nobody;
        }
        let encoded = credentials.get(scheme.len()..).unwrap_or_default();
        let Ok(decoded) = BASE64_STANDARD.decode(encoded.trim_ascii()) else { return Self::Somebody };
        let mut parts = decoded.splitn(2, |byte| *byte == b':');
        match (parts.next(), parts.next()) {
            (Some(user), Some(_)) => Self::User(String::from_utf8_lossy(user).into()),
            _ => Self::Somebody,
        }
    }
}

/// The user, as the APIs of OpenAI, old and new, and of Anthropic call it.
fn user_of(body: &Object<'_>) -> Option<Arc<str>> {
    if let Some(user) = body.text("user").or_else(|| body.text("safety_identifier")) {
        return Some(Arc::from(user));
    }
    let metadata = Object::parse(body.value("metadata")?).ok()?;
    metadata.text("user_id").map(Arc::from)
}

/// Whether the body may be one JSON text; gRPC's messages of JSON are many.
fn may_be_json(headers: &HeaderMap, size: &SizeHint) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = media_type == "application/json" || media_type.ends_with("+json");
    !media_type.starts_with("application/grpc") && (is_json || size.exact().is_some())
}

// === impl PeekedBody ===

impl PeekedBody {
    /// Unpacks a compressed body; one that cannot be is refused further in.
    ///
    /// # Errors
    /// What [`HeldMemory::hold`] says.
    fn unpack(&mut self, headers: &mut HeaderMap) -> Result<(), Error> {
        if !self.is_whole {
            return Ok(());
        }
        match unpack(headers, self.data.clone(), MOST_ROUTED) {
            Ok(plain) => self.data = plain,
            Err(_) => self.is_whole = false,
        }
        self.hold()
    }

    /// What was read, unpacked if it is compressed; nothing can be told of the beginning of what is.
    fn plain(&self, headers: &HeaderMap) -> Option<Bytes> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        if codings.all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
            return Some(self.data.clone());
        }
        let whole = Some(self.data.clone()).filter(|_| self.is_whole)?;
        unpack(&mut headers.clone(), whole, MOST).ok()
    }
}

#[cfg(test)]
mod tests;
