//! The body of a response, which polls the connection that it comes from.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{client::Client, http1::Http1, http2::Stream};
use crate::{
    body::BoxError,
    listen::{Sender, clean_trailers, whole},
};

/// The body of a response from an endpoint, or of a refusal in its place.
///
/// Over HTTP/1.1 it holds the connection and polls it. At the end of the body the connection goes back to the
/// pool; when the body is dropped before its end, the connection is closed.
pub(crate) struct UpstreamBody(Kind);

enum Kind {
    Http1 { incoming: Incoming, lease: Option<Lease> },
    Http2 { incoming: Incoming, _stream: Stream },
    Full(Full<Bytes>),
}

/// A connection and the way back to its pool.
pub(super) struct Lease {
    pub(super) connection: Box<Http1>,
    pub(super) client: Client,
}

// === impl Lease ===

impl Lease {
    fn give_back(self) {
        self.client.give_back(self.connection);
    }
}

// === impl UpstreamBody ===

impl UpstreamBody {
    pub(super) fn http1(incoming: Incoming, lease: Lease) -> Self {
        if incoming.is_end_stream() {
            lease.give_back();
            return Self::default();
        }
        Self(Kind::Http1 { incoming, lease: Some(lease) })
    }

    pub(super) fn http2(incoming: Incoming, stream: Stream) -> Self {
        Self(Kind::Http2 { incoming, _stream: stream })
    }
}

fn poll_http1(
    incoming: &mut Incoming,
    lease: &mut Option<Lease>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let Some(Lease { connection, .. }) = lease else {
        return Pin::new(incoming).poll_frame(cx);
    };
    let polled = connection.poll_frame(incoming, cx);
    let ended = match &polled {
        Poll::Pending => false,
        Poll::Ready(None) => true,
        // Nobody asks for more after trailers.
        Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || incoming.is_end_stream(),
        Poll::Ready(Some(Err(_))) => {
            *lease = None;
            false
        }
    };
    if ended && let Some(lease) = lease.take() {
        lease.give_back();
    }
    polled
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match &mut self.0 {
            Kind::Http1 { incoming, lease } => poll_http1(incoming, lease, cx).map_err(Into::into),
            Kind::Http2 { incoming, .. } => {
                let polled = Pin::new(&mut *incoming).poll_frame(cx);
                whole(polled, incoming)
            }
            Kind::Full(body) => return Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        };
        clean_trailers(polled, Sender::Backend)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Http1 { incoming, .. } | Kind::Http2 { incoming, .. } => incoming.is_end_stream(),
            Kind::Full(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Http1 { incoming, .. } | Kind::Http2 { incoming, .. } => incoming.size_hint(),
            Kind::Full(body) => body.size_hint(),
        }
    }
}

impl From<Bytes> for UpstreamBody {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Full(Full::new(bytes)))
    }
}

impl Default for UpstreamBody {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Http1 { .. } => "http1",
            Kind::Http2 { .. } => "http2",
            Kind::Full(_) => "full",
        };
        f.debug_tuple("UpstreamBody").field(&kind).finish()
    }
}
