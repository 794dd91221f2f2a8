//! The body of a request, as it comes from the client.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pace::Pace;
use crate::body::BoxError;

/// A body that breaks off or breaks the rules of its framing. Maps to 400.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request cannot be read")]
pub struct BrokenBody(#[source] hyper::Error);

/// A body whose next bytes did not come in time. Maps to 408.
#[derive(Debug, thiserror::Error)]
#[error("the client does not go on with the body of its request")]
pub struct LateBody;

/// The body of a request; it notes when the client keeps it waiting.
#[derive(Debug)]
pub struct ClientBody {
    incoming: Incoming,
    pace: Rc<Pace>,
}

// === impl ClientBody ===

impl ClientBody {
    pub(super) fn new(incoming: Incoming, pace: Rc<Pace>) -> Self {
        Self { incoming, pace }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match &polled {
            Poll::Pending if self.pace.is_late() => return Poll::Ready(Some(Err(LateBody.into()))),
            Poll::Pending => self.pace.upload_waits(cx),
            Poll::Ready(_) => self.pace.upload_goes_on(),
        }
        polled.map_err(|error| BrokenBody(error).into())
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.pace.upload_goes_on();
    }
}
