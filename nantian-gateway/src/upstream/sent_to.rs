//! Where a request was sent.

use std::sync::{Arc, Mutex};

use super::Destination;
use crate::sync::lock;

/// Where a request was sent, of several attempts the last one: in its extensions if somebody wants to know.
/// Its clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct SentTo(Arc<Mutex<Option<String>>>);

// === impl SentTo ===

impl SentTo {
    pub(super) fn set(&self, destination: &Destination) {
        *lock(&self.0) = Some(destination.to_string());
    }

    /// The address, or the name, and the port.
    pub(crate) fn get(&self) -> Option<String> {
        lock(&self.0).clone()
    }
}
