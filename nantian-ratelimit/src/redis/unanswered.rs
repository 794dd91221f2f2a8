//! That a server leaves a request unanswered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Extensions;

/// In the extensions of a request: whether a decision about it has waited for a server in vain.
///
/// The other layers of the request, and other attempts at it, have the same one: what an outage costs a
/// request is one wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unanswered(Arc<AtomicBool>);

// === impl Unanswered ===

impl Unanswered {
    /// That of a request.
    pub(crate) fn of(request: &mut Extensions) -> Self {
        request.get_or_insert_default::<Self>().clone()
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
