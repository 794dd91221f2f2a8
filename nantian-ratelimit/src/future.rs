//! The response future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode};
use pin_project_lite::pin_project;

use crate::body::ResponseBody;
use crate::error::Denied;
use crate::handle::Ticket;
use crate::headers;

pin_project! {
    /// The future of [`RateLimit`](crate::RateLimit).
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner call; its request stays charged, its tokens as they were reserved, unless somebody
    /// settled them.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Passed {
            // Before the ticket, so that a usage observer inside may settle when both are dropped.
            #[pin]
            inner: F,
            ticket: Option<Ticket>,
        },
        Refused {
            response: Option<Response<Bytes>>,
        },
    }
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    pub(crate) fn admitted(inner: F, ticket: Ticket) -> Self {
        let ticket = Some(ticket);
        Self { state: State::Passed { inner, ticket } }
    }

    pub(crate) fn exempt(inner: F) -> Self {
        let ticket = None;
        Self { state: State::Passed { inner, ticket } }
    }

    pub(crate) fn refused(response: Response<Bytes>) -> Self {
        let response = Some(response);
        Self { state: State::Refused { response } }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response.map(ResponseBody::refused))),
                None => Poll::Pending,
            },
            StateProj::Passed { inner, ticket } => {
                let result = ready!(inner.poll(cx));
                Poll::Ready(finish(result, ticket.take()))
            }
        }
    }
}

/// Hands the ticket on to the body of the response; an error ends it here. [`ReservationHandle`] says what is refunded.
///
/// [`ReservationHandle`]: crate::ReservationHandle
fn finish<B, E>(
    result: Result<Response<B>, E>,
    mut ticket: Option<Ticket>,
) -> Result<Response<ResponseBody<B>>, E> {
    let mut response = result?;
    if response.extensions().get::<Denied>().is_some() {
        if let Some(ticket) = ticket.take() {
            ticket.cancel();
        }
    } else if let Some(ticket) = &mut ticket {
        headers::admitted(&mut response, ticket.levels());
        if response.status().is_server_error() && response.status() != StatusCode::GATEWAY_TIMEOUT {
            ticket.fail();
        }
    }
    Ok(response.map(|body| ResponseBody::passed(body, ticket)))
}
