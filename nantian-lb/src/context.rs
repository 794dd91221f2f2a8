//! What one pick depends on besides the set.

use std::fmt;

use crate::key::KeySource;

/// What one pick depends on besides the set: a random number, and the request for strategies that hash a part of it.
#[derive(Clone, Copy)]
pub struct PickContext<'a> {
    pub(crate) random: u64,
    pub(crate) keys: Option<&'a dyn KeySource>,
}

// === impl PickContext ===

impl<'a> PickContext<'a> {
    /// A pick that knows nothing of the request. The random number comes from the thread's generator.
    #[must_use]
    pub fn new() -> Self {
        Self::seeded(fastrand::u64(..))
    }

    /// A pick with the given random number: the same number and the same state of the balancer give the same endpoint.
    #[must_use]
    pub const fn seeded(random: u64) -> Self {
        Self { random, keys: None }
    }

    /// Lets the pick hash a part of this request.
    #[must_use]
    pub const fn with_keys(mut self, keys: &'a dyn KeySource) -> Self {
        self.keys = Some(keys);
        self
    }
}

impl Default for PickContext<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PickContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickContext")
            .field("random", &self.random)
            .field("keys", &self.keys.is_some())
            .finish()
    }
}
