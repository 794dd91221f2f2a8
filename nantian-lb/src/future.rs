//! The future of a balanced request.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::blame::{Blame, BlameAll};
use crate::body::ResponseBody;
use crate::exchange::Exchange;

pin_project! {
    /// The response of [`Balance`](crate::Balance): that of the inner service, or at once the refusal if
    /// there was no endpoint.
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner future, and the endpoint no longer counts the request.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, J = BlameAll> {
        #[pin]
        state: State<F, J>,
    }

    impl<F, J> PinnedDrop for ResponseFuture<F, J> {
        fn drop(this: Pin<&mut Self>) {
            if let StateProj::Sent { exchange: Some(exchange), .. } = this.project().state.project() {
                exchange.give_up();
            }
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, J> {
        Sent {
            #[pin]
            response: F,
            exchange: Option<Exchange<J>>,
        },
        Refused {
            response: Option<Response<Bytes>>,
        },
    }
}

// === impl ResponseFuture ===

impl<F, J> ResponseFuture<F, J> {
    pub(crate) fn new(response: F, exchange: Exchange<J>) -> Self {
        Self { state: State::Sent { response, exchange: Some(exchange) } }
    }

    pub(crate) fn refused(response: Response<Bytes>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }
}

impl<F, J, B, E> Future for ResponseFuture<F, J>
where
    F: Future<Output = Result<Response<B>, E>>,
    J: Blame<E>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Sent { response, exchange } => {
                let response = ready!(response.poll(cx));
                match exchange.take() {
                    Some(exchange) => Poll::Ready(exchange.end(response)),
                    None => Poll::Pending,
                }
            }
            StateProj::Refused { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response.map(ResponseBody::refused))),
                None => Poll::Pending,
            },
        }
    }
}

impl<F: fmt::Debug, J> fmt::Debug for ResponseFuture<F, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ResponseFuture");
        match &self.state {
            State::Sent { response, exchange } => {
                debug.field("response", response).field("exchange", exchange)
            }
            State::Refused { response } => debug.field("refused", response),
        };
        debug.finish()
    }
}
