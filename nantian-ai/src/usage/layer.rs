//! The layer that meters any service.

use std::sync::Arc;

use tower_layer::Layer;

use super::{UsageObserver, UsageService};
use crate::memory::BodyMemory;

/// Meters the replies of a service that speaks one of the dialects.
///
/// For routes with token limits whose backend is no [`AiService`](crate::AiService). The request passes as
/// it is, but for `accept-encoding`: a compressed reply could not be read. Requests that no operation is
/// known for are not metered. Bodies are not looked at: who holds one can [ask](super::ask_for_usage) for the
/// usage that a stream may else not tell.
///
/// A call that ends in an error is reported as [`Outcome::Truncated`](super::Outcome::Truncated) with the
/// estimate of the input: an error does not tell whether the upstream has the prompt.
#[derive(Debug)]
pub struct UsageLayer<O> {
    observer: Arc<O>,
    memory: Option<BodyMemory>,
}

// === impl UsageLayer ===

impl<O: UsageObserver> UsageLayer<O> {
    /// A layer that tells `observer` about every metered request.
    pub fn new(observer: O) -> Self {
        Self { observer: Arc::new(observer), memory: None }
    }

    /// Sets what may be kept of all streams together, of events whose end has not come. Default: no limit.
    #[must_use]
    pub fn memory(self, memory: BodyMemory) -> Self {
        Self { memory: Some(memory), ..self }
    }
}

impl<O> Clone for UsageLayer<O> {
    fn clone(&self) -> Self {
        Self { observer: Arc::clone(&self.observer), memory: self.memory.clone() }
    }
}

impl<S, O> Layer<S> for UsageLayer<O> {
    type Service = UsageService<S, O>;

    fn layer(&self, inner: S) -> Self::Service {
        UsageService::new(inner, Arc::clone(&self.observer), self.memory.clone())
    }
}
