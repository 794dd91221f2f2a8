//! One request from its first byte to the head of its response: read, try, wait, try again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use crate::body::{RequestBody, ResponseBody};
use crate::call::{Call, Shared};
use crate::dialect::{Dialect, Surface};
use crate::error::{BoxError, Error};
use crate::read::ReadBody;
use crate::usage::UsageObserver;

pin_project! {
    /// The future of an [`AiService`](crate::AiService). It needs a tokio runtime with time.
    ///
    /// # Cancellation
    /// Dropping it drops the attempt that is under way and tells the observer that the request was aborted.
    pub struct ResponseFuture<S, B, O>
    where
        S: Service<Request<RequestBody>>,
        O: UsageObserver,
    {
        inner: S,
        shared: Arc<Shared<O>>,
        dialect: Dialect,
        call: Option<Call<O::Sink>>,
        #[pin]
        state: State<B, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B, F> {
        Refused {
            error: Error,
        },
        Reading {
            #[pin]
            body: ReadBody<B>,
            head: Option<(Surface, Parts)>,
        },
        Readying,
        Calling {
            #[pin]
            response: F,
        },
        Waiting {
            #[pin]
            sleep: Sleep,
        },
    }
}

// === impl ResponseFuture ===

impl<S, B, O> ResponseFuture<S, B, O>
where
    S: Service<Request<RequestBody>>,
    O: UsageObserver,
{
    /// `inner` has been found ready.
    pub(crate) fn new(inner: S, shared: Arc<Shared<O>>, request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        let (dialect, state) = match shared.target.admit(&head) {
            Ok(surface) => (
                surface.dialect(),
                State::Reading {
                    body: ReadBody::new(body, shared.target.config().max_body),
                    head: Some((surface, head)),
                },
            ),
            Err(error) => (Surface::guess(head.uri.path(), &head.headers), State::Refused { error }),
        };
        Self { inner, shared, dialect, call: None, state }
    }

    /// Starts an attempt on the inner service, which is ready.
    fn start(self: Pin<&mut Self>) {
        let mut this = self.project();
        let call = this.call.as_mut();
        if let Some(request) = call.and_then(|call| call.attempt(&this.shared.target)) {
            let response = this.inner.call(request);
            this.state.set(State::Calling { response });
        }
    }
}

impl<S, B, O, B2> Future for ResponseFuture<S, B, O>
where
    S: Service<Request<RequestBody>, Response = Response<B2>>,
    S::Error: Into<BoxError>,
    O: UsageObserver,
    B: Body,
    B::Error: Into<BoxError>,
    B2: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<B2, O::Sink>>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let attempt = match this.state.as_mut().project() {
                StateProj::Refused { error } => {
                    return Poll::Ready(Ok(this.shared.answer(error.clone(), *this.dialect)));
                }
                StateProj::Reading { body, head } => {
                    let read = ready!(body.poll(cx));
                    let Some((surface, head)) = head.take() else {
                        return Poll::Pending;
                    };
                    match read.and_then(|body| this.shared.begin(surface, head, body)) {
                        Ok(call) => *this.call = Some(call),
                        Err(error) => {
                            return Poll::Ready(Ok(this.shared.answer(error, *this.dialect)));
                        }
                    }
                    self.as_mut().start();
                    continue;
                }
                StateProj::Readying => match ready!(this.inner.poll_ready(cx)) {
                    Ok(()) => {
                        self.as_mut().start();
                        continue;
                    }
                    Err(error) => Err(this.shared.unreachable(error)),
                },
                StateProj::Calling { response } => match response.poll(cx) {
                    Poll::Ready(Ok(response)) => Ok(response),
                    Poll::Ready(Err(error)) => Err(this.shared.unreachable(error)),
                    Poll::Pending => match this.call.as_mut() {
                        Some(call) => Err(ready!(call.poll_late(&this.shared.target, cx))),
                        None => return Poll::Pending,
                    },
                },
                StateProj::Waiting { sleep } => {
                    ready!(sleep.poll(cx));
                    this.state.set(State::Readying);
                    continue;
                }
            };
            let Some(mut call) = this.call.take() else {
                return Poll::Pending;
            };
            let Some(wait) = call.wait(&this.shared.target, attempt.as_ref()) else {
                // An attempt that timed out ends here, not when this future is dropped.
                this.state.set(State::Readying);
                return Poll::Ready(Ok(call.finish(this.shared, attempt)));
            };
            *this.call = Some(call);
            this.state.set(State::Waiting { sleep: sleep(wait) });
        }
    }
}

impl<S, B, O> fmt::Debug for ResponseFuture<S, B, O>
where
    S: Service<Request<RequestBody>>,
    O: UsageObserver,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("target", &self.shared.target)
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}
