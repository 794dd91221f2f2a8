//! The body of a request, as it comes from the client.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connections::State;

/// A body that breaks off or breaks the rules of its framing. Maps to 400.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request cannot be read")]
pub struct BrokenBody(#[source] hyper::Error);

/// The body of a request; it notes when the client keeps it waiting.
#[derive(Debug)]
pub struct ClientBody {
    incoming: Incoming,
    debt: Debt,
}

/// What the client owes: the rest of the body, until it is forgiven.
#[derive(Debug, Clone)]
pub(super) struct Debt {
    state: Arc<State>,
    forgiven: Arc<AtomicBool>,
}

// === impl ClientBody ===

impl ClientBody {
    /// The body, and the debt to forgive when the response begins: from then on both sides speak as they like.
    pub(super) fn new(incoming: Incoming, state: Arc<State>) -> (Self, Debt) {
        let debt = Debt { state, forgiven: Arc::default() };
        (Self { incoming, debt: debt.clone() }, debt)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        self.debt.is_due(polled.is_pending());
        polled.map_err(BrokenBody)
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
        self.debt.is_due(false);
    }
}

// === impl Debt ===

impl Debt {
    /// The next bytes are waited for, or they came.
    fn is_due(&self, due: bool) {
        if !self.forgiven.load(Relaxed) {
            self.state.body_waits(due);
        }
    }

    /// Nobody waits for the body any more.
    pub(super) fn forgive(self) {
        self.is_due(false);
        self.forgiven.store(true, Relaxed);
    }
}
