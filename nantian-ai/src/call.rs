//! The steps of one call, which [`ResponseFuture`](crate::future::ResponseFuture) puts in order.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;

use crate::body::{RequestBody, ResponseBody};
use crate::dialect::{Dialect, Surface};
use crate::error::{BoxError, Error};
use crate::outbound::{Prepared, clean_response};
use crate::respond::Respond;
use crate::retry::{Attempts, Failure};
use crate::target::Target;
use crate::timeout::Watch;
use crate::usage::{End, Meter, MeteredBody, Metering, UsageObserver, UsageSink};

/// What all services and futures of a layer have in common.
pub(crate) struct Shared<O> {
    pub(crate) target: Arc<Target>,
    pub(crate) observer: Arc<O>,
    pub(crate) responder: Arc<dyn Respond + Send + Sync>,
}

/// A request that has been read and is being tried.
pub(crate) struct Call<K: UsageSink> {
    surface: Surface,
    /// Gone once the last attempt is under way.
    prepared: Option<Prepared>,
    streaming: bool,
    metering: Metering<K>,
    watch: Watch,
    retries: u32,
}

// === impl Shared ===

impl<O> Shared<O> {
    /// The response to an error.
    pub(crate) fn answer<B, K: UsageSink>(
        &self,
        error: Error,
        dialect: Dialect,
    ) -> Response<ResponseBody<B, K>> {
        tracing::debug!(target = self.target.name(), %error, "request not served");
        let mut response = self.responder.respond(&error, dialect);
        response.extensions_mut().insert(Arc::new(error));
        response.map(ResponseBody::local)
    }

    /// The inner service has failed.
    pub(crate) fn unreachable(&self, error: impl Into<BoxError>) -> Error {
        Error::Upstream { target: self.target.name().to_owned(), source: Arc::from(error.into()) }
    }
}

impl<O: UsageObserver> Shared<O> {
    /// Takes a request whose body has been read.
    pub(crate) fn begin(&self, surface: Surface, head: Parts, body: Bytes) -> Result<Call<O::Sink>, Error> {
        let prepared = self.target.prepare(&surface, head, body)?;
        let facts = prepared.facts();
        let sink = self.observer.begin(prepared.extensions(), facts);
        Ok(Call {
            streaming: facts.stream,
            metering: Metering::new(Meter::new(surface.clone(), facts), sink),
            watch: Watch::new(self.target.config().timeouts, facts.stream),
            prepared: Some(prepared),
            surface,
            retries: 0,
        })
    }
}

// === impl Call ===

impl<K: UsageSink> Call<K> {
    /// The request of the next attempt, which begins now.
    pub(crate) fn attempt(&mut self, target: &Target) -> Option<Request<RequestBody>> {
        let config = target.config();
        self.watch = Watch::new(config.timeouts, self.streaming);
        if self.retries < config.retry.max_retries {
            Some(self.prepared.as_ref()?.request())
        } else {
            Some(self.prepared.take()?.into_request())
        }
    }

    /// Ready when the head of the reply has not come in time.
    pub(crate) fn poll_late(&mut self, target: &Target, cx: &mut Context<'_>) -> Poll<Error> {
        let late = self.watch.poll_late(cx, false);
        late.map(|(awaited, after)| Error::Timeout { target: target.name().to_owned(), awaited, after })
    }

    /// How long to wait before another attempt; `None` if this one counts.
    ///
    /// An attempt that timed out has been paid for: whatever comes of the others, the request was not free.
    pub(crate) fn wait<B>(
        &mut self,
        target: &Target,
        attempt: Result<&Response<B>, &Error>,
    ) -> Option<Duration> {
        if let Err(Error::Timeout { .. }) = attempt {
            self.metering.mark_sent();
        }
        let failure = match attempt {
            Ok(response) if response.status().is_success() => return None,
            Ok(response) => Failure::Response { status: response.status(), headers: response.headers() },
            Err(_) => Failure::NoResponse,
        };
        let retry = &target.config().retry;
        let wait = retry.next_at(SystemTime::now(), self.retries, failure, fastrand::f64())?;
        self.retries += 1;
        tracing::debug!(target = target.name(), retries = self.retries, ?wait, "trying again");
        Some(wait)
    }

    /// The response of the last attempt, as the client gets it.
    pub(crate) fn finish<B, O>(
        mut self,
        shared: &Shared<O>,
        attempt: Result<Response<B>, Error>,
    ) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        let attempts = Attempts(self.retries + 1);
        let accepted = attempt.and_then(|response| accept(&shared.target, response));
        let mut response = match accepted {
            Ok(response) => self.pass(shared, response),
            Err(error) => {
                self.metering.end(End::Failed);
                shared.answer(error, self.surface.dialect())
            }
        };
        response.extensions_mut().insert(attempts);
        response
    }

    fn pass<B, O>(mut self, shared: &Shared<O>, response: Response<B>) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        let (mut head, body) = response.into_parts();
        clean_response(&mut head.headers);
        self.metering.begin(head.status, &head.headers);
        self.watch.expect_stream(self.metering.meter().is_stream());
        let body = MeteredBody::new(body, Some(self.metering));
        let target = Arc::clone(&shared.target);
        Response::from_parts(head, ResponseBody::upstream(body, self.watch, target, self.surface))
    }
}

/// A refused credential is this side's fault: passed on, a client would blame its own.
fn accept<B>(target: &Target, response: Response<B>) -> Result<Response<B>, Error> {
    match response.status() {
        status @ (StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED) => {
            Err(Error::UpstreamAuth { target: target.name().to_owned(), status })
        }
        _ => Ok(response),
    }
}
