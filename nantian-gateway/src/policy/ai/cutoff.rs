//! The end of answers that a drain does not wait for.

use std::{future::Future, pin::Pin, task::Poll};

use http_body::Body as _;
use nantian_ai::Ending;
use tokio::sync::watch;

use crate::body::Body;

/// Breaks off the answers of AIServices of one worker, so that their clients are told in their own words;
/// clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cutoff(watch::Sender<bool>);

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
        // Awaited once the answer is waited for: most that are no streams are there with their heads.
        let (cutoff, mut cut) = (self.clone(), None);
        body.polled_by(move |body, cx| match Pin::new(body).poll_frame(cx) {
            Poll::Pending => {
                let cut = cut.get_or_insert_with(|| cutoff.wait());
                // Nobody asks for more after an error.
                cut.as_mut().poll(cx).map(|()| Some(Err(Ending.into())))
            }
            ready => ready,
        })
    }

    /// Until all are broken off.
    fn wait(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let mut is_cut = self.0.subscribe();
        Box::pin(async move { drop(is_cut.wait_for(|is_cut| *is_cut).await) })
    }
}
