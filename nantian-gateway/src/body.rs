//! The one body type of the data path.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, Limited};
use nantian_ai::{body::RequestBody as Held, route::RouteBody};
use nantian_lb::body::ResponseBody as Balanced;
use nantian_wasm::body::{RequestBody as Shown, ResponseBody as Watched};

use crate::{listen::ClientBody, upstream::UpstreamBody};

/// Any error that ends a body or a service.
pub(crate) use tower::BoxError;

/// The most bytes that are read of an answer to keep its connection.
const DRAINED: usize = 65_536;

/// The body of every request and response between the listener and the upstream connection.
///
/// What passes through untouched is never boxed; a policy that wraps a body pays for one box.
pub(crate) struct Body(Kind);

enum Kind {
    Full(Full<Bytes>),
    Held(Held),
    Client(ClientBody),
    Upstream(UpstreamBody),
    Balanced(Balanced<UpstreamBody>),
    Watched(Box<Watched<Body>>),
    Boxed(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError>>>),
}

/// A body, and how it is polled.
struct Polled<F> {
    body: Body,
    poll: F,
}

impl Body {
    /// No bytes at all.
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// These bytes.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Full(Full::new(bytes.into())))
    }

    /// Any other body, behind one box.
    pub(crate) fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Boxed(Box::pin(body.map_err(Into::into))))
    }

    /// This body, behind one box, as `poll` polls it; its length and its end are its own.
    pub(crate) fn polled_by<F>(self, poll: F) -> Self
    where
        F: FnMut(&mut Self, &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
            + Unpin
            + 'static,
    {
        Self::boxed(Polled { body: self, poll })
    }

    /// This body, behind one box: `see` is shown what every poll gives, and whether the body says of itself
    /// that it is over.
    pub(crate) fn inspect<F>(self, mut see: F) -> Self
    where
        F: FnMut(&Poll<Option<Result<Frame<Bytes>, BoxError>>>, bool) + Unpin + 'static,
    {
        self.polled_by(move |body, cx| {
            let polled = Pin::new(&mut *body).poll_frame(cx);
            see(&polled, body.is_end_stream());
            polled
        })
    }

    /// Reads an answer that nobody wants, so that its connection is kept: whether it could be read to its end
    /// shows in that.
    pub(crate) async fn drain(self) {
        let _ = Limited::new(self, DRAINED).collect().await;
    }
}

// === impl Body ===

impl From<ClientBody> for Body {
    fn from(body: ClientBody) -> Self {
        Self(Kind::Client(body))
    }
}

impl From<UpstreamBody> for Body {
    fn from(body: UpstreamBody) -> Self {
        Self(Kind::Upstream(body))
    }
}

impl From<Balanced<UpstreamBody>> for Body {
    fn from(body: Balanced<UpstreamBody>) -> Self {
        Self(Kind::Balanced(body))
    }
}

impl From<Shown<Body>> for Body {
    /// A body that no plugin looks at stays what it was.
    fn from(body: Shown<Body>) -> Self {
        body.into_untouched().unwrap_or_else(Self::boxed)
    }
}

impl From<Watched<Body>> for Body {
    fn from(body: Watched<Body>) -> Self {
        Self(Kind::Watched(Box::new(body)))
    }
}

impl From<Held> for Body {
    fn from(body: Held) -> Self {
        Self(Kind::Held(body))
    }
}

impl From<RouteBody<Body>> for Body {
    /// The body of a model stays what it was.
    fn from(body: RouteBody<Body>) -> Self {
        body.into_inner().unwrap_or_else(Self::full)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Kind::Held(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Kind::Client(body) => Pin::new(body).poll_frame(cx),
            Kind::Upstream(body) => Pin::new(body).poll_frame(cx),
            Kind::Balanced(body) => Pin::new(body).poll_frame(cx),
            Kind::Watched(body) => Pin::new(&mut **body).poll_frame(cx),
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(body) => body.is_end_stream(),
            Kind::Held(body) => body.is_end_stream(),
            Kind::Client(body) => body.is_end_stream(),
            Kind::Upstream(body) => body.is_end_stream(),
            Kind::Balanced(body) => body.is_end_stream(),
            Kind::Watched(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(body) => body.size_hint(),
            Kind::Held(body) => body.size_hint(),
            Kind::Client(body) => body.size_hint(),
            Kind::Upstream(body) => body.size_hint(),
            Kind::Balanced(body) => body.size_hint(),
            Kind::Watched(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Full(_) => "full",
            Kind::Held(_) => "held",
            Kind::Client(_) => "client",
            Kind::Upstream(_) => "upstream",
            Kind::Balanced(_) => "balanced",
            Kind::Watched(_) => "watched",
            Kind::Boxed(_) => "boxed",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

// === impl Polled ===

impl<F> http_body::Body for Polled<F>
where
    F: FnMut(&mut Body, &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, poll } = &mut *self;
        poll(body, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
