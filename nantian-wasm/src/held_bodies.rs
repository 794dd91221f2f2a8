//! What plugins hold of bodies, as far as the embedder counts it.

use std::fmt;

use crate::error::Cause;

/// What one stream holds of its bodies in the memory of the embedder, which has it back when this is dropped.
///
/// Implemented by every `Fn(u64) -> Result<(), Cause>`.
pub trait HeldBodies: Send + Sync + 'static {
    /// Holds at least so many bytes, of all bodies of the stream together, from now on.
    ///
    /// # Errors
    ///
    /// Why the stream fails that wants to hold them: [`Cause::NoMemory`], or [`Cause::BodyTooLarge`] if there never will be room
    /// for them. It goes on to hold what it held.
    fn hold(&self, bytes: u64) -> Result<(), Cause>;
}

impl<F> HeldBodies for F
where
    F: Fn(u64) -> Result<(), Cause> + Send + Sync + 'static,
{
    fn hold(&self, bytes: u64) -> Result<(), Cause> {
        self(bytes)
    }
}

/// The memory of the embedder, in which each stream that holds something has a share.
pub(crate) struct BodyMemory(Box<dyn Fn() -> Box<dyn HeldBodies> + Send + Sync>);

// === impl BodyMemory ===

impl BodyMemory {
    pub(crate) fn new<H: HeldBodies>(begin: impl Fn() -> H + Send + Sync + 'static) -> Self {
        Self(Box::new(move || Box::new(begin())))
    }

    /// The share of a stream, which holds nothing yet.
    pub(crate) fn begin(&self) -> Box<dyn HeldBodies> {
        self.0()
    }
}

impl fmt::Debug for BodyMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyMemory").finish_non_exhaustive()
    }
}
