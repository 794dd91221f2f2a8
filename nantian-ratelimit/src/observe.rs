//! What a limiter tells whoever counts.

use std::sync::Arc;

use crate::error::{Denied, MissingPart};
use crate::levels::Levels;
use crate::reservation::Settled;

/// Is told of every decision and settlement of a layer. It runs on the request's path: count and return.
///
/// Nothing it is given shows a key.
pub trait Observer: Send + Sync {
    /// A request was decided on.
    fn decided(&self, decision: &Decision<'_>) {
        let _ = decision;
    }

    /// A request's tokens were settled; never if the policy counts none.
    fn settled(&self, settled: &Settled) {
        let _ = settled;
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Decision<'a> {
    /// It was charged and passed on.
    Admitted(&'a Levels),
    /// It was refused.
    Denied(&'a Denied),
    /// It was passed on without a charge because the policy only warns.
    Warned(&'a Denied),
    /// It was passed on without a look at its limits: one that is exempt, such as a CORS preflight, or that
    /// lacks a part of the scope.
    Exempt,
    /// It lacks a part of the scope: it was refused, or passed on without a charge if the policy only warns.
    Missing(&'a MissingPart),
    /// It was passed on without a charge because the store of the limits is away, or because its policy is
    /// gone and nobody waits for it any more: [`Limiter::lift`](crate::Limiter::lift).
    Unchecked,
    /// It was refused because the store of the limits is away.
    Unavailable,
}

/// Counts nothing.
impl Observer for () {}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn decided(&self, decision: &Decision<'_>) {
        (**self).decided(decision);
    }

    fn settled(&self, settled: &Settled) {
        (**self).settled(settled);
    }
}
