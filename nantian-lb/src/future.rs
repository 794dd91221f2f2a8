//! The future of a balanced request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use crate::body::ResponseBody;
use crate::in_flight::{InFlight, UpgradeGuard};

pin_project! {
    /// The response of [`Balance`](crate::Balance): that of the inner service, or at once the refusal if there was no endpoint.
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner future, and the endpoint no longer counts the request.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F, B> {
        Sent {
            #[pin]
            response: F,
            in_flight: Option<InFlight>,
            is_connect: bool,
        },
        Refused {
            response: Option<Response<B>>,
        },
    }
}

// === impl ResponseFuture ===

impl<F, B> ResponseFuture<F, B> {
    pub(crate) fn new(response: F, in_flight: InFlight, is_connect: bool) -> Self {
        Self { state: State::Sent { response, in_flight: Some(in_flight), is_connect } }
    }

    pub(crate) fn refused(response: Response<B>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Sent { response, in_flight, is_connect } => {
                let response = ready!(response.poll(cx));
                let in_flight = in_flight.take();
                Poll::Ready(response.map(|response| guarded(response, in_flight, *is_connect)))
            }
            StateProj::Refused { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, None)))),
                None => Poll::Pending,
            },
        }
    }
}

/// Hands the guard to whatever ends last: the upgraded connection or the body.
fn guarded<B: Body>(
    mut response: Response<B>,
    mut in_flight: Option<InFlight>,
    is_connect: bool,
) -> Response<ResponseBody<B>> {
    let status = response.status();
    let upgrades = status == StatusCode::SWITCHING_PROTOCOLS || (is_connect && status.is_success());
    if upgrades && let Some(in_flight) = in_flight.take() {
        response.extensions_mut().insert(UpgradeGuard::new(in_flight));
    }
    response.map(|body| ResponseBody::new(body, in_flight))
}
