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
    cutoff: Cutoff,
    /// Awaited once the answer is waited for: most that are no streams are there with their heads.
    cut: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Cutoff {
    /// Breaks off all that are under way.
    pub(crate) fn cut(&self) {
        self.0.send_replace(true);
    }

    /// Whether they are: the process ends.
    pub(crate) fn is_cut(&self) -> bool {
        *self.0.borrow()
    }

    /// An answer that can be broken off.
    pub(super) fn bind(&self, body: Body) -> Body {
        Body::boxed(CutBody { body, cutoff: self.clone(), cut: None })
    }

    /// Until all are broken off.
    fn wait(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let mut is_cut = self.0.subscribe();
        Box::pin(async move { drop(is_cut.wait_for(|is_cut| *is_cut).await) })
    }
}

impl http_body::Body for CutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, cutoff, cut } = &mut *self;
        match Pin::new(body).poll_frame(cx) {
            Poll::Pending => {
                let cut = cut.get_or_insert_with(|| cutoff.wait());
                // Nobody asks for more after an error.
                cut.as_mut().poll(cx).map(|()| Some(Err(Ending.into())))
            }
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
