//! What is held of bodies, as far as the embedder counts it.

use std::fmt;

use crate::error::Cause;

/// A share of the embedder's memory, which has it back when this is dropped.
pub(crate) struct HeldBodies(Box<dyn Fn(u64) -> Result<(), Cause> + Send + Sync>);

/// The memory of the embedder.
pub(crate) struct BodyMemory(Box<dyn Fn() -> HeldBodies + Send + Sync>);

// === impl HeldBodies ===

impl HeldBodies {
    /// Holds at least so many bytes from now on, if there is any room for them; else tells why the stream
    /// fails.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), Cause> {
        (self.0)(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

// === impl BodyMemory ===

impl BodyMemory {
    pub(crate) fn new<H>(begin: impl Fn() -> H + Send + Sync + 'static) -> Self
    where
        H: Fn(u64) -> Result<(), Cause> + Send + Sync + 'static,
    {
        Self(Box::new(move || HeldBodies(Box::new(begin()))))
    }

    /// A share that holds nothing yet.
    pub(crate) fn begin(&self) -> HeldBodies {
        (self.0)()
    }
}

impl fmt::Debug for BodyMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyMemory").finish_non_exhaustive()
    }
}
