//! Which errors speak against an endpoint.

/// Tells which errors of type `E` speak against the endpoint that the request was sent to.
///
/// Implemented for closures: see [`BalanceLayer::blame`](crate::BalanceLayer::blame).
pub trait Blame<E> {
    /// Whether the error speaks against the endpoint.
    fn blames(&self, error: &E) -> bool;
}

/// Holds every error against the endpoint, be it of a body that its client has broken off. The default.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct BlameAll;

// === impl BlameAll ===

impl<E> Blame<E> for BlameAll {
    fn blames(&self, _: &E) -> bool {
        true
    }
}

// === impl Blame ===

impl<E, F: Fn(&E) -> bool> Blame<E> for F {
    fn blames(&self, error: &E) -> bool {
        self(error)
    }
}
