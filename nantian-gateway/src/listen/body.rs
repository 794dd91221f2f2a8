//! The body of a request, as it comes from the client.

use std::{
    fmt,
    io::{self, ErrorKind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    connection::MAX_HEADERS,
    hop_by_hop::{Sender, clean_trailers, whole},
    stall_timer::StallTimer,
    unread::{UnreadBody, discard},
};
use crate::{body::BoxError, respond::find, runtime::spawn_local};

/// A body that breaks off or breaks the rules of its framing. Maps to 400.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request cannot be read")]
pub(crate) struct BrokenBody(#[source] BoxError);

// === impl BrokenBody ===

impl BrokenBody {
    /// Whether it broke off because the client is gone, so that nobody gets an answer.
    pub(crate) fn is_of_one_who_left(&self) -> bool {
        let is_gone = |error: &io::Error| {
            matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            )
        };
        let is_reset = |error: &h2::Error| error.is_reset() || error.is_io();
        find(&*self.0).is_some_and(is_gone) || find(&*self.0).is_some_and(is_reset)
    }
}

/// A body whose next bytes did not come in time. Maps to 408.
#[derive(Debug, thiserror::Error)]
#[error("the client does not go on with the body of its request")]
pub(crate) struct LateBody;

/// The body of a request; it notes when the client keeps it waiting.
pub(crate) struct ClientBody {
    /// There until it is dropped.
    incoming: Option<Incoming>,
    timer: Rc<StallTimer>,
    /// The connection that gets what is left when nobody wants more. `None` over HTTP/2, where each stream is
    /// by itself.
    unread: Option<UnreadBody>,
    /// It has not broken off.
    may_go_on: bool,
    /// The client waits for 100, which the first look at the body sends.
    waits_for_100: bool,
}

// === impl ClientBody ===

impl ClientBody {
    pub(super) fn new(
        incoming: Incoming,
        timer: Rc<StallTimer>,
        unread: Option<UnreadBody>,
        waits_for_100: bool,
    ) -> Self {
        Self { incoming: Some(incoming), timer, unread, may_go_on: true, waits_for_100 }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.waits_for_100 = false;
        let is_http2 = self.unread.is_none();
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let polled =
            if is_http2 { few_trailers(whole(polled, incoming)) } else { polled.map_err(Into::into) };
        let polled = clean_trailers(polled, Sender::Client);
        match &polled {
            Poll::Pending if self.timer.is_late() => {
                self.may_go_on = false;
                return Poll::Ready(Some(Err(LateBody.into())));
            }
            Poll::Pending => self.timer.upload_waits(cx),
            Poll::Ready(frame) => {
                let data = frame.as_ref().and_then(|part| part.as_ref().ok()?.data_ref());
                self.timer.upload_came(data.map_or(0, Bytes::len));
                self.may_go_on = matches!(frame, Some(Ok(_)));
            }
        }
        polled.map_err(|error| BrokenBody(error).into())
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.timer.upload_rests();
        let incoming = self.incoming.take().filter(|incoming| self.may_go_on && !incoming.is_end_stream());
        match (incoming, &self.unread) {
            (Some(incoming), Some(unread)) => unread.leave(incoming, self.waits_for_100),
            (Some(incoming), None) if !self.waits_for_100 => {
                spawn_local(discard(incoming, Rc::clone(&self.timer)));
            }
            _ => {}
        }
    }
}

impl fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBody").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

/// What a body over HTTP/2 has to give, whose trailers have no more fields than hyper takes over HTTP/1.1.
fn few_trailers(
    polled: Poll<Option<Result<Frame<Bytes>, BoxError>>>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    let is_too_long = |frame: &Frame<Bytes>| frame.trailers_ref().is_some_and(|it| it.len() > MAX_HEADERS);
    if matches!(&polled, Poll::Ready(Some(Ok(frame))) if is_too_long(frame)) {
        let error = io::Error::new(ErrorKind::InvalidData, "there are too many trailers");
        return Poll::Ready(Some(Err(error.into())));
    }
    polled
}
