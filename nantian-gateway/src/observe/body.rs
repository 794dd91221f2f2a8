//! The body that ends an exchange.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::layer::Exchange;
use crate::body::{Body, BoxError};

/// The body of a response to the client; the exchange is over when it ends or is dropped.
#[derive(Debug)]
pub(crate) struct ObservedBody {
    body: Body,
    exchange: Option<Exchange>,
}

impl ObservedBody {
    pub(super) fn new(body: Body, exchange: Option<Exchange>) -> Self {
        Self { body, exchange }
    }

    /// The body of a response that no exchange ends with.
    pub(crate) fn unobserved(body: Body) -> Self {
        Self::new(body, None)
    }

    /// Without its bytes: they are not sent.
    pub(crate) fn emptied(mut self) -> Self {
        if let Some(exchange) = &mut self.exchange {
            exchange.is_over = true;
        }
        Self { body: Body::empty(), ..self }
    }
}

// === impl ObservedBody ===

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let this = &mut *self;
                if let Some(exchange) = &mut this.exchange {
                    exchange.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    exchange.is_over = frame.is_trailers() || this.body.is_end_stream();
                }
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(mut exchange) = self.exchange.take() {
                    exchange.broke_off(error);
                }
            }
            Poll::Ready(None) => {
                if let Some(mut exchange) = self.exchange.take() {
                    exchange.is_over = true;
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
