//! What a request has used, learned from its response.

use std::fmt;

use bytes::{Buf, Bytes};
use http::{request, response};

use crate::reservation::{CachedSettlement, Settlement};

/// Learns from responses what their requests used.
///
/// What it learns settles the reservation when a response ends, however it ends, unless somebody has
/// settled the [`ReservationHandle`](crate::ReservationHandle) before. Under several limiters it settles the
/// reservations of all of them; under one that is [`of_attempt`](crate::RateLimitLayer::of_attempt), those of
/// the attempt.
///
/// ```
/// use http::{request, response};
/// use nantian_ratelimit::{CachedSettlement, ResponseEnd, ResponseMeter, Settlement, UsageMeter};
///
/// /// A byte of an answer is a token.
/// struct Bytes;
///
/// #[derive(Default)]
/// struct BytesSoFar(u64);
///
/// impl UsageMeter for Bytes {
///     fn begin(&self, _: &request::Parts) -> Option<Box<dyn ResponseMeter>> {
///         Some(Box::new(BytesSoFar::default()))
///     }
/// }
///
/// impl ResponseMeter for BytesSoFar {
///     fn data(&mut self, data: &[u8]) {
///         self.0 += data.len() as u64;
///     }
///
///     fn end(self: Box<Self>, end: ResponseEnd) -> Option<CachedSettlement> {
///         Some(match end {
///             ResponseEnd::Complete => Settlement::Used(self.0).into(),
///             // More may have been made than was seen.
///             _ => Settlement::AtLeast(self.0).into(),
///         })
///     }
/// }
/// ```
///
/// The default is [`ReportedTokens`]. The example `hyper_rate_limit` of Nantian reads the answers of models.
pub trait UsageMeter: Send + Sync {
    /// Begins with a request that a limit of tokens has admitted. `None` where nothing is to be learned.
    fn begin(&self, request: &request::Parts) -> Option<Box<dyn ResponseMeter>>;
}

/// Meters one response. It runs on the request's path: count and return.
///
/// Where no response comes, by an error or because the request is given up, it is dropped without a word, and
/// so it is where a limiter further in has refused the request:
/// [`ReservationHandle`](crate::ReservationHandle) says what counts then.
pub trait ResponseMeter: Send + Sync {
    /// The head has come.
    fn head(&mut self, response: &response::Parts) {
        let _ = response;
    }

    /// The next piece of the body has come, of any length, as the wrapped service gave it.
    fn data(&mut self, data: &[u8]) {
        let _ = data;
    }

    /// Nothing more comes: what was used, or `None` if that is not known, which leaves it to
    /// [`if_unsettled`](crate::RateLimitLayer::if_unsettled).
    fn end(self: Box<Self>, end: ResponseEnd) -> Option<CachedSettlement>;
}

/// How a response has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseEnd {
    /// All of it was passed on.
    Complete,
    /// The wrapped service gave an error in the midst of the body.
    Failed,
    /// It was given up before its end was seen, as when the client goes away.
    Dropped,
}

/// A response extension: the tokens that the request has used, prompt plus completion.
///
/// A handler that knows them puts it there, as [`EstimatedTokens`](crate::EstimatedTokens) is put into the
/// request:
///
/// ```
/// use axum::{Extension, Router, routing::{get, post}};
/// use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer, UsedTokens};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let policy = Policy::builder().limit(Limit::tokens_per_minute(1000)).scope("apiKey".parse()?).build()?;
/// let limit = RateLimitLayer::new(Limiter::new(policy));
/// let app: Router = Router::new()
///     // Around this method alone: a layer of the router is around those that nobody serves, too.
///     .route("/answer", post(async || (Extension(UsedTokens(42)), "answer")).route_layer(limit))
///     .route("/models", get(async || "demo"));
/// # use tower::ServiceExt as _;
/// # let asked = [("POST", "/answer"), ("GET", "/answer"), ("GET", "/models"), ("POST", "/nowhere")];
/// # for (method, path) in asked {
/// #     let request = http::Request::builder().method(method).uri(path);
/// #     let request = request.header("authorization", "Bearer alice").body(axum::body::Body::empty())?;
/// #     let response = app.clone().oneshot(request).await?;
/// #     let is_limited = (method, path) == ("POST", "/answer");
/// #     assert_eq!(response.headers().contains_key("ratelimit"), is_limited, "{method} {path}");
/// # }
/// # Ok(())
/// # }
/// ```
///
/// Of a limited request of which nobody tells what it has used, what was [estimated](crate::TypicalCost)
/// counts, a whole typical answer, unless [`if_unsettled`](crate::RateLimitLayer::if_unsettled) says
/// otherwise: leave out what asks no model, and report `UsedTokens(0)` of what is refused before. Take
/// `Result<Json<_>, _>`, so that what does not parse is yours to report, too: it would be refused before the
/// handler is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is one number")]
pub struct UsedTokens(pub u64);

/// Believes the [`UsedTokens`] of the response. The default.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct ReportedTokens;

/// The meter of a response, and how that has ended so far.
pub(crate) struct Metering {
    meter: Box<dyn ResponseMeter>,
    /// `None` as long as there is no response.
    end: Option<ResponseEnd>,
}

/// What the head has said.
struct Reported(Option<UsedTokens>);

/// Learns nothing.
impl UsageMeter for () {
    fn begin(&self, _: &request::Parts) -> Option<Box<dyn ResponseMeter>> {
        None
    }
}

// === impl ReportedTokens ===

impl UsageMeter for ReportedTokens {
    fn begin(&self, _: &request::Parts) -> Option<Box<dyn ResponseMeter>> {
        Some(Box::new(Reported(None)))
    }
}

impl ResponseMeter for Reported {
    fn head(&mut self, response: &response::Parts) {
        self.0 = response.extensions.get().copied();
    }

    fn end(self: Box<Self>, _: ResponseEnd) -> Option<CachedSettlement> {
        self.0.map(|UsedTokens(tokens)| Settlement::Used(tokens).into())
    }
}

// === impl Metering ===

impl Metering {
    pub(crate) fn new(meter: Box<dyn ResponseMeter>) -> Self {
        Self { meter, end: None }
    }

    pub(crate) fn head(&mut self, response: &response::Parts) {
        self.end = Some(ResponseEnd::Dropped);
        self.meter.head(response);
    }

    /// Shows a piece of the body, which is given back.
    pub(crate) fn data<D: Buf + From<Bytes>>(&mut self, mut data: D) -> D {
        if data.chunk().len() < data.remaining() {
            data = D::from(data.copy_to_bytes(data.remaining()));
        }
        self.meter.data(data.chunk());
        data
    }

    pub(crate) fn mark_end(&mut self, end: ResponseEnd) {
        self.end = Some(end);
    }

    pub(crate) fn end(self) -> Option<CachedSettlement> {
        self.meter.end(self.end?)
    }
}

impl fmt::Debug for Metering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metering").field("end", &self.end).finish_non_exhaustive()
    }
}
