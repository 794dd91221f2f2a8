//! What a request was tried at before.

use std::sync::{Arc, Mutex, PoisonError};

use crate::endpoint::EndpointId;

/// The endpoints that a request was tried at, as a request extension: an attempt passes over those of the
/// attempts before, while there is another one.
///
/// Whoever repeats requests puts it into the first attempt and leaves it in its copies; clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    endpoints: Arc<Mutex<Vec<EndpointId>>>,
    is_final: bool,
}

// === impl Tried ===

impl Tried {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same list for an attempt that is to fail rather than go to one of them again.
    #[must_use]
    pub fn without_return(mut self) -> Self {
        self.is_final = true;
        self
    }

    pub(crate) fn may_return(&self) -> bool {
        !self.is_final
    }

    /// The endpoints, the first one first.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointId> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds an endpoint, if it is not in the list.
    pub fn add(&self, endpoint: &EndpointId) {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if !endpoints.contains(endpoint) {
            endpoints.push(endpoint.clone());
        }
    }
}
