//! The end of answers that a drain does not wait for.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use nantian_ai::Ending;
use tokio::sync::watch;

use crate::body::{Body, BoxError};

/// Breaks off the answers of AIServices of one worker, so that their clients are told in their own words;
/// clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cutoff(watch::Sender<bool>);

/// An answer until it is broken off.
struct CutBody {
    body: Body,
    cut: Pin<Box<dyn Future<Output = ()>>>,
}

impl Cutoff {
    /// Breaks off all that are under way.
    pub(crate) fn cut(&self) {
        self.0.send_replace(true);
    }

    /// An answer that can be broken off.
    pub(super) fn bind(&self, body: Body) -> Body {
        let mut is_cut = self.0.subscribe();
        let cut = Box::pin(async move { drop(is_cut.wait_for(|is_cut| *is_cut).await) });
        Body::boxed(CutBody { body, cut })
    }
}

impl http_body::Body for CutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            // Nobody asks for more after an error.
            Poll::Pending => self.cut.as_mut().poll(cx).map(|()| Some(Err(Ending.into()))),
            ready => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
