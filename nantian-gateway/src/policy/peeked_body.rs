//! A body of which the beginning is looked at before it passes on.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use nantian_ai::{Error, HeldMemory};

use crate::body::{Body, BoxError};

/// What was read of a body, then the rest of it.
pub(super) struct PeekedBody {
    pub(super) data: Bytes,
    pub(super) is_whole: bool,
    /// Trailers, or what broke it off.
    end: Option<Result<Frame<Bytes>, BoxError>>,
    rest: Option<Body>,
    /// For as long as this has the data.
    held: Option<HeldMemory>,
}

/// Holds memory for so many bytes, if it is to be held.
fn hold(held: Option<&HeldMemory>, bytes: usize) -> Result<(), Error> {
    held.map_or(Ok(()), |held| held.hold(bytes as u64))
}

// === impl PeekedBody ===

impl PeekedBody {
    /// Reads `body` to its end, or as far as anybody looks.
    ///
    /// # Errors
    /// What [`HeldMemory::hold`] says.
    pub(super) async fn read(body: &mut Body, most: u64, held: Option<HeldMemory>) -> Result<Self, Error> {
        let (mut first, mut more) = (Bytes::new(), BytesMut::new());
        let mut end = None;
        while (first.len() + more.len()) as u64 <= most && !body.is_end_stream() {
            match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if first.is_empty() && more.is_empty() => first = data,
                    Ok(data) => {
                        more.extend_from_slice(&std::mem::take(&mut first));
                        more.extend_from_slice(&data);
                    }
                    Err(trailers) => end = Some(Ok(trailers)),
                },
                Some(Err(error)) => end = Some(Err(error)),
                None => break,
            }
            hold(held.as_ref(), first.len() + more.len())?;
            if end.is_some() {
                break;
            }
        }
        let data = if more.is_empty() { first } else { more.freeze() };
        let is_whole = data.len() as u64 <= most && !matches!(end, Some(Err(_)));
        Ok(Self { data, is_whole, end, rest: None, held })
    }

    /// Holds memory for the data.
    ///
    /// # Errors
    /// What [`HeldMemory::hold`] says.
    pub(super) fn hold(&self) -> Result<(), Error> {
        hold(self.held.as_ref(), self.data.len())
    }

    /// Whether the data is all there is.
    pub(super) fn has_nothing_else(&self) -> bool {
        self.is_whole && self.end.is_none()
    }

    /// What was read, and what comes after it.
    pub(super) fn then(mut self, rest: Body) -> Body {
        self.rest = Some(rest).filter(|rest| !rest.is_end_stream());
        Body::boxed(self)
    }
}

impl http_body::Body for PeekedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.data.is_empty() {
            self.held = None;
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))));
        }
        if let Some(end) = self.end.take() {
            return Poll::Ready(Some(end));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty()
            && self.end.is_none()
            && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.data.len() as u64;
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(read.saturating_add(upper));
        }
        hint.set_lower(read.saturating_add(rest.lower()));
        hint
    }
}
