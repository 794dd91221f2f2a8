//! Whether a request's body is held on its way to a backend.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
};

use http::Request;

use crate::body::Body;

/// Whether plugins, limits or AIServices hold what came last of a body: nothing has gone on since.
///
/// It is in the extensions of a request until that has passed all of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldUpload(Arc<AtomicBool>);

impl HeldUpload {
    /// A request that only a backend is before: what is taken of its body from now on is held no more.
    pub(crate) fn passed(mut request: Request<Body>) -> Request<Body> {
        let Some(held) = request.extensions_mut().remove::<Self>() else { return request };
        request.map(|body| {
            body.inspect(move |polled, _| {
                if let Poll::Ready(Some(Ok(frame))) = polled
                    && frame.data_ref().is_some_and(|data| !data.is_empty())
                {
                    held.set(false);
                }
            })
        })
    }

    /// Notes whether something is held.
    pub(super) fn set(&self, is_held: bool) {
        self.0.store(is_held, Relaxed);
    }

    /// Whether something is held.
    pub(super) fn is_held(&self) -> bool {
        self.0.load(Relaxed)
    }
}
