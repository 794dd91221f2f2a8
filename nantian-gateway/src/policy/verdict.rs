//! What becomes of a reservation that somebody on the way knows more of than whoever meters the reply.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use http::{Extensions, Request, Response, StatusCode};
use http_body::Body as _;
use nantian_ai::{Surface, Unasked, Unsent};
use nantian_ratelimit::{ReservationHandle, Settlement, TypicalCost};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::rate_limit::ExpectedAnswer;
use crate::{
    body::{Body, BoxError},
    respond::find,
    upstream::UpstreamError,
};

/// Settles the reservations of requests by how these end, before anybody who knows less does.
#[derive(Debug, Clone, Copy)]
pub(super) struct VerdictLayer {
    /// Whether it is about this request.
    concerns: fn(&Request<Body>) -> bool,
    /// What a request has used that ends like this; `None` leaves it to others to settle.
    verdict: fn(RequestEnd<'_>) -> Option<Settlement>,
    /// Whether what passes of the body counts where the rest is as reserved.
    counts_body: bool,
}

/// How a request ends, as far as this can be told before its reply is read.
#[derive(Debug, Clone, Copy)]
enum RequestEnd<'a> {
    Answered(StatusCode, &'a Extensions),
    Failed(&'a (dyn Error + 'static)),
    /// Nobody waits for it any more.
    GivenUp,
}

/// A body that costs by what passes of it.
#[derive(Debug)]
struct Upload {
    passed: Arc<AtomicU64>,
    /// Tokens that are expected of the answer besides.
    answer: u64,
}

#[derive(Debug, Clone)]
pub(super) struct VerdictService<S> {
    inner: S,
    layer: VerdictLayer,
}

/// A reservation whose request has not ended yet.
#[derive(Debug)]
struct OpenReservation {
    reservation: Option<ReservationHandle>,
    /// Its body, if that counts.
    upload: Option<Upload>,
    verdict: fn(RequestEnd<'_>) -> Option<Settlement>,
}

/// Refunds what was reserved for requests that reached nobody, and for those that are refused or answered
/// before any provider.
pub(super) const UNSENT: VerdictLayer = VerdictLayer {
    concerns: |_| true,
    verdict: |end| {
        let is_unsent = match end {
            RequestEnd::Answered(_, extensions) => extensions.get::<Unasked>().is_some(),
            RequestEnd::Failed(error) => is_unsent(error),
            RequestEnd::GivenUp => false,
        };
        is_unsent.then_some(Settlement::NotServed)
    },
    counts_body: false,
};

/// Keeps what was reserved for a request that a Service serves and nobody can meter: it is no operation of a
/// model by its path, and may use tokens all the same. What passes of its body counts at least, with the
/// answer that limits expect, until that or the response has ended: its length may have been learnt when they
/// had been asked already.
pub(super) const UNMETERED: VerdictLayer = VerdictLayer {
    concerns: |request| {
        Surface::detect_decoded(request.method(), request.uri().path(), request.headers()).is_err()
    },
    verdict: |end| {
        let may_have_asked = match end {
            // Who redirects, refuses or fails has not asked a model; behind a timeout somebody may have.
            RequestEnd::Answered(status, _) => {
                status.is_success()
                    || matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::GATEWAY_TIMEOUT)
            }
            RequestEnd::Failed(_) | RequestEnd::GivenUp => true,
        };
        may_have_asked.then_some(Settlement::AsReserved)
    },
    counts_body: true,
};

/// Tells an AIService of an error before which nothing was sent.
pub(super) fn mark_unsent(error: BoxError) -> BoxError {
    if is_unsent(error.as_ref()) { Box::new(Unsent(error)) } else { error }
}

fn is_unsent(error: &(dyn Error + 'static)) -> bool {
    let error = find::<UpstreamError>(error);
    matches!(
        error,
        Some(
            UpstreamError::Refused { .. }
                | UpstreamError::Connect { .. }
                | UpstreamError::ConnectTimeout { .. }
        )
    )
}

impl<S> Layer<S> for VerdictLayer {
    type Service = VerdictService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        VerdictService { inner, layer: *self }
    }
}

impl<S> Service<Request<Body>> for VerdictService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = VerdictFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let VerdictLayer { concerns, verdict, counts_body } = self.layer;
        let reservation = request.extensions().get::<ReservationHandle>().filter(|_| concerns(&request));
        let reservation = reservation.cloned();
        // What reserves nothing, as a DELETE does, asks no model whatever its body is.
        let may_ask = reservation.as_ref().is_some_and(|reservation| reservation.reserved_tokens() > 0);
        let is_counted = counts_body && may_ask && !request.body().is_end_stream();
        let upload = is_counted.then(|| Upload::of(request.extensions()));
        if let Some(upload) = &upload {
            request = request.map(|body| upload.count(body));
        }
        let open = Some(OpenReservation { reservation, upload, verdict });
        VerdictFuture { answer: self.inner.call(request), open }
    }
}

pin_project! {
    /// The future of [`VerdictService`]; dropping it settles the reservation of a request that nobody waits
    /// for any more.
    #[derive(Debug)]
    pub(super) struct VerdictFuture<F> {
        #[pin]
        answer: F,
        open: Option<OpenReservation>,
    }
}

impl<F> Future for VerdictFuture<F>
where
    F: Future<Output = Result<Response<Body>, BoxError>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.answer.poll(cx));
        let Some(mut open) = this.open.take() else { return Poll::Ready(result) };
        Poll::Ready(match result {
            Ok(response) => Ok(open.answered(response)),
            Err(error) => {
                open.end(RequestEnd::Failed(error.as_ref()));
                Err(error)
            }
        })
    }
}

// === impl Upload ===

impl Upload {
    fn of(request: &Extensions) -> Self {
        let answer = request.get().map_or(0, |ExpectedAnswer(tokens)| *tokens);
        Self { passed: Arc::default(), answer }
    }

    /// `body`, of which is counted what passes.
    fn count(&self, body: Body) -> Body {
        // Let go of once it is over, by which others know.
        let mut counting = Some(Arc::clone(&self.passed));
        body.inspect(move |polled, is_over| {
            let Poll::Ready(frame) = polled else { return };
            if let (Some(Ok(frame)), Some(passed)) = (frame, &counting)
                && let Some(data) = frame.data_ref()
            {
                passed.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            if is_over || !matches!(frame, Some(Ok(_))) {
                counting = None;
            }
        })
    }

    /// Whether more may pass: whoever counts has not let go.
    fn goes_on(&self) -> bool {
        Arc::strong_count(&self.passed) > 1
    }

    /// What it costs, as it would if its length had been told.
    fn tokens(&self) -> u64 {
        (self.passed.load(Ordering::Relaxed) / TypicalCost::BYTES_PER_TOKEN).saturating_add(self.answer)
    }
}

// === impl OpenReservation ===

impl OpenReservation {
    /// Ends with the head of the response; where a body of the request goes on that counts, with that or with
    /// the response.
    fn answered(mut self, response: Response<Body>) -> Response<Body> {
        let end = RequestEnd::Answered(response.status(), response.extensions());
        if self.is_uploading() && (self.verdict)(end) == Some(Settlement::AsReserved) {
            let mut open = Some(self);
            return response.map(|body| {
                body.inspect(move |polled, _| {
                    let has_ended = matches!(polled, Poll::Ready(None | Some(Err(_))));
                    // An answer may last long after all of the request has passed.
                    drop(open.take_if(|open| has_ended || !open.is_uploading()));
                })
            });
        }
        self.end(end);
        response
    }

    /// Whether a body goes on that counts.
    fn is_uploading(&self) -> bool {
        self.upload.as_ref().is_some_and(Upload::goes_on)
    }

    fn end(&mut self, end: RequestEnd<'_>) {
        if let Some(reservation) = self.reservation.take()
            && let Some(settlement) = (self.verdict)(end)
        {
            match (settlement, &self.upload) {
                (Settlement::AsReserved, Some(upload)) => reservation.settle_guess(upload.tokens()),
                _ => reservation.settle(settlement),
            }
        }
    }
}

impl Drop for OpenReservation {
    fn drop(&mut self) {
        self.end(RequestEnd::GivenUp);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::{BodyExt as _, BodyStream, StreamBody};
    use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer, ScopePart};
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    fn limiter() -> Limiter {
        Limiter::new(Policy::builder().limit(Limit::tokens_per_day(10_000)).build().unwrap())
    }

    fn remaining(limiter: &Limiter) -> u64 {
        let mut hasher = limiter.hasher();
        hasher.part(&ScopePart::Route, None);
        limiter.levels(hasher.finish()).tightest().unwrap().remaining
    }

    /// The answer of `backend` to an upload of a thousand tokens, for which a hundred more are expected.
    async fn answer<S>(limiter: &Limiter, backend: S) -> Body
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone,
    {
        let limits = RateLimitLayer::new(limiter.clone()).if_unsettled(Settlement::NotServed);
        // As it is behind a plugin that has seen all of it: no header says so.
        let request = Request::post("/v1/rerank").extension(ExpectedAnswer(100));
        let request = request.body(Body::full("four".repeat(1000))).unwrap();
        let response = limits.layer(UNMETERED.layer(backend)).oneshot(request).await.unwrap();
        Body::boxed(response.into_body())
    }

    #[tokio::test]
    async fn a_body_counts_as_it_passes_though_its_length_is_known_only_behind_the_limits() {
        let limiter = limiter();
        let echo =
            service_fn(async |request: Request<Body>| Ok::<_, BoxError>(Response::new(request.into_body())));
        let answer = answer(&limiter, echo).await;
        assert_eq!(remaining(&limiter), 9999, "nothing has passed");
        answer.collect().await.unwrap();
        assert_eq!(remaining(&limiter), 10_000 - 1100);
    }

    #[tokio::test]
    async fn a_body_counts_once_all_of_it_has_passed_though_its_answer_never_ends() {
        let limiter = limiter();
        let reads = service_fn(async |request: Request<Body>| {
            request.into_body().collect().await?;
            let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BoxError>>());
            Ok::<_, BoxError>(Response::new(Body::boxed(silent)))
        });
        let _answer = answer(&limiter, reads).await;
        assert_eq!(remaining(&limiter), 10_000 - 1100);
    }

    #[tokio::test]
    async fn a_body_that_goes_on_behind_the_head_of_its_answer_counts_when_it_is_over() {
        let limiter = limiter();
        let echo = service_fn(async |request: Request<Body>| {
            let frames = BodyStream::new(request.into_body()).chain(stream::pending());
            Ok::<_, BoxError>(Response::new(Body::boxed(StreamBody::new(frames))))
        });
        let mut answer = answer(&limiter, echo).await;
        assert_eq!(remaining(&limiter), 9999, "nothing has passed");
        assert!(answer.frame().await.unwrap().is_ok());
        assert_eq!(remaining(&limiter), 10_000 - 1100);
    }
}
