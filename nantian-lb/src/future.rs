//! The future of a balanced request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::body::ResponseBody;
use crate::exchange::Exchange;

pin_project! {
    /// The response of [`Balance`](crate::Balance): that of the inner service, or at once the refusal if
    /// there was no endpoint.
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner future, and the endpoint no longer counts the request.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if let StateProj::Sent { exchange: Some(exchange), .. } = this.project().state.project() {
                exchange.give_up();
            }
        }
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Sent {
            #[pin]
            response: F,
            exchange: Option<Exchange>,
        },
        Refused {
            response: Option<Response<Bytes>>,
        },
    }
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    pub(crate) fn new(response: F, exchange: Exchange) -> Self {
        Self { state: State::Sent { response, exchange: Some(exchange) } }
    }

    pub(crate) fn refused(response: Response<Bytes>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    E: 'static,
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
