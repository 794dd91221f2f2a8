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
use crate::call::Call;
use crate::call::attempt::Step;
use crate::call::receive::Receiving;
use crate::credential::stamp::Stamp;
use crate::dialect::{ClientDialect, Surface};
use crate::error::{BoxError, Error};
use crate::layer_parts::LayerParts;
use crate::memory::{BodyMemory, HeldMemory};
use crate::packed::unpack_within;
use crate::read::ReadBody;
use crate::route::Onward;
use crate::token::TokenError;
use crate::usage::UsageObserver;

pin_project! {
    /// The future of an [`AiService`](crate::AiService). It needs a tokio runtime with time.
    ///
    /// # Cancellation
    /// Dropping it drops the attempt that is under way and tells the observer that the request was aborted.
    pub struct ResponseFuture<S, B, B2, O>
    where
        S: Service<Request<RequestBody>>,
        O: UsageObserver,
    {
        inner: S,
        shared: Arc<LayerParts<O>>,
        dialect: ClientDialect,
        onward: Onward,
        // What the request takes of memory while it may be sent again.
        held: Option<HeldMemory>,
        call: Option<Call<O::Sink>>,
        #[pin]
        state: State<B, B2, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B, B2, F> {
        Refused {
            error: Error,
        },
        Reading {
            #[pin]
            body: ReadBody<B>,
            head: Option<(Surface, Parts)>,
        },
        Readying,
        Identifying {
            token: Awaited,
        },
        Calling {
            #[pin]
            response: F,
        },
        Receiving {
            receiving: Option<Receiving<B2>>,
        },
        Waiting {
            #[pin]
            sleep: Sleep,
        },
    }
}

/// A token on its way.
type Awaited = Pin<Box<dyn Future<Output = Result<Arc<Stamp>, TokenError>> + Send>>;

// === impl ResponseFuture ===

impl<S, B, B2, O> ResponseFuture<S, B, B2, O>
where
    S: Service<Request<RequestBody>>,
    O: UsageObserver,
{
    /// `inner` has been found ready.
    pub(crate) fn new(inner: S, shared: Arc<LayerParts<O>>, request: Request<B>) -> Self {
        let (mut head, body) = request.into_parts();
        let held = head.extensions.remove();
        let held = held.or_else(|| shared.memory.as_ref().map(BodyMemory::begin));
        let onward = head.extensions.get::<Onward>().copied().unwrap_or_default();
        let (dialect, state) = match shared.target.admit(&head) {
            Ok(surface) => (
                surface.dialect(),
                State::Reading {
                    body: ReadBody::new(body, shared.target.config().max_body).holding(held.clone()),
                    head: Some((surface, head)),
                },
            ),
            Err(error) => (Surface::guess(head.uri.path(), &head.headers), State::Refused { error }),
        };
        Self { inner, shared, dialect, onward, held, call: None, state }
    }

    /// Starts an attempt on the inner service, which is ready, once there is a token for it.
    fn start(mut self: Pin<&mut Self>) {
        let mut this = self.as_mut().project();
        let Some(call) = this.call.as_mut() else { return };
        match call.awaited(&this.shared.target) {
            Some(source) => this.state.set(State::Identifying { token: Box::pin(source.token()) }),
            None => self.send(),
        }
    }

    fn send(self: Pin<&mut Self>) {
        let mut this = self.project();
        let call = this.call.as_mut();
        if let Some(request) = call.and_then(|call| call.attempt(&this.shared.target)) {
            let response = this.inner.call(request);
            this.state.set(State::Calling { response });
        }
    }
}

impl<S, B, B2, O> ResponseFuture<S, B, B2, O>
where
    S: Service<Request<RequestBody>, Response = Response<B2>>,
    S::Error: Into<BoxError>,
    O: UsageObserver,
    B: Body,
    B::Error: Into<BoxError>,
    B2: Body<Data = Bytes>,
    B2::Error: Into<BoxError>,
{
    /// Reads the request; ready with a response if it ends there.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answered<B2, O>>> {
        let this = self.as_mut().project();
        let onward = *this.onward;
        let unasked = |mut response: Answered<B2, O>| {
            onward.mark(&mut response);
            Poll::Ready(Some(response))
        };
        let (read, head) = match this.state.project() {
            StateProj::Refused { error } => {
                return unasked(this.shared.answer(error.clone(), *this.dialect));
            }
            StateProj::Reading { body, head } => (ready!(body.poll(cx)), head),
            _ => return Poll::Ready(None),
        };
        let Some((surface, mut head)) = head.take() else { return Poll::Pending };
        let most = this.shared.target.config().max_body;
        let held = this.held.as_ref();
        let read = read.and_then(|body| unpack_within(&mut head.headers, body, most, held));
        let begun = read.and_then(|body| match this.shared.counted(&surface, &body) {
            Some(answer) => answer.map(Err),
            None => this.shared.begin(surface, head, body, held).map(Ok),
        });
        match begun {
            Ok(Ok(call)) => *this.call = Some(call),
            Ok(Err(answer)) => return unasked(answer),
            Err(error) => return unasked(this.shared.answer(error, *this.dialect)),
        }
        self.as_mut().project().state.set(State::Readying);
        Poll::Ready(None)
    }

    /// One turn of an attempt; `None` if another one has begun.
    fn poll_step(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Step<B2>>> {
        let mut this = self.as_mut().project();
        let Some(call) = this.call.as_mut() else { return Poll::Pending };
        let target = &this.shared.target;
        Poll::Ready(Some(match this.state.as_mut().project() {
            StateProj::Readying => {
                if let Some(late) = call.out_of_time(target) {
                    return Poll::Ready(Some(Step::Refused(late)));
                }
                match ready!(this.inner.poll_ready(cx)) {
                    Ok(()) => {
                        self.start();
                        return Poll::Ready(None);
                    }
                    Err(error) => Step::Failed(this.shared.unreachable(error)),
                }
            }
            StateProj::Identifying { token } => {
                let token = match token.as_mut().poll(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.send();
                        return Poll::Ready(None);
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(error),
                    Poll::Pending => Poll::Pending,
                };
                Step::Failed(ready!(call.poll_no_token(target, token, cx)))
            }
            StateProj::Calling { response } => match response.poll(cx) {
                Poll::Ready(Ok(response)) => call.arrived(target, response, this.held.as_ref()),
                Poll::Ready(Err(error)) => {
                    let error = error.into();
                    call.broke(error.as_ref());
                    Step::Failed(this.shared.unreachable(error))
                }
                Poll::Pending => Step::Failed(ready!(call.poll_late(target, cx))),
            },
            StateProj::Receiving { receiving } => {
                let Some(reply) = receiving.as_mut() else { return Poll::Pending };
                let Poll::Ready(received) = call.poll_receive(reply, cx) else {
                    let late = ready!(call.poll_late(target, cx));
                    // A refusal has come in time, if not its reasons.
                    return Poll::Ready(Some(match reply.is_refusal() {
                        true => call.unexplained(target, reply),
                        false => Step::Failed(late),
                    }));
                };
                let Some(reply) = receiving.take() else { return Poll::Pending };
                call.received(target, reply, received)
            }
            StateProj::Waiting { sleep } => {
                ready!(sleep.poll(cx));
                this.state.set(State::Readying);
                return Poll::Ready(None);
            }
            StateProj::Refused { .. } | StateProj::Reading { .. } => return Poll::Pending,
        }))
    }
}

type Answered<B, O> = Response<ResponseBody<B, <O as UsageObserver>::Sink>>;

impl<S, B, B2, O> Future for ResponseFuture<S, B, B2, O>
where
    S: Service<Request<RequestBody>, Response = Response<B2>>,
    S::Error: Into<BoxError>,
    O: UsageObserver,
    B: Body,
    B::Error: Into<BoxError>,
    B2: Body<Data = Bytes>,
    B2::Error: Into<BoxError>,
{
    type Output = Result<Answered<B2, O>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(answer) = ready!(self.as_mut().poll_read(cx)) {
                return Poll::Ready(Ok(answer));
            }
            let Some(step) = ready!(self.as_mut().poll_step(cx)) else { continue };
            let mut this = self.as_mut().project();
            let wait = match (&step, this.call.as_mut()) {
                (Step::Again(wait), _) => Some(*wait),
                (Step::Failed(failed), Some(call)) => call.retry(&this.shared.target, failed),
                _ => None,
            };
            if let (Some(wait), Some(call)) = (wait, this.call.as_mut()) {
                call.rest();
                this.state.set(State::Waiting { sleep: sleep(wait) });
                continue;
            }
            if let Step::Receive(receiving) = step {
                this.state.set(State::Receiving { receiving: Some(receiving) });
                continue;
            }
            // An attempt that timed out ends here, not when this future is dropped.
            this.state.set(State::Readying);
            let Some(call) = this.call.take() else { return Poll::Pending };
            return Poll::Ready(Ok(match step {
                Step::Pass(response) => call.pass(this.shared, response),
                Step::Objected(answer, fault) => call.pass_refusal(this.shared, *answer, fault),
                Step::Answer(answer) => call.finish(this.shared, *answer),
                Step::Failed(failed) | Step::Refused(failed) => call.fail(this.shared, failed),
                Step::Again(_) | Step::Receive(_) => return Poll::Pending,
            }));
        }
    }
}

impl<S, B, B2, O> fmt::Debug for ResponseFuture<S, B, B2, O>
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
