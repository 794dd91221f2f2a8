//! What is decided of a request before its body is read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, Response};
use tokio::time::Instant;

use crate::cost::Cost;
use crate::decide::{Decided, Outcome};
use crate::decision_request::{DecisionRequest, Part};
use crate::handle::ReservationHandle;
use crate::layer::{KeyLookup, RateLimitLayer, Settings};
use crate::limit::Unit;
use crate::policy::OnLimit;

/// In the extensions of a request: what layers took of their limits before its body was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct EarlyCharges(Vec<EarlyCharge>);

/// What one layer took.
#[derive(Debug, Clone)]
pub(crate) struct EarlyCharge {
    settings: Arc<Settings>,
    /// Nothing, if nobody knew what was left.
    pub(crate) taken: Option<ReservationHandle>,
    /// How long it took to get it.
    pub(crate) waited: Duration,
}

// === impl RateLimitLayer ===

impl RateLimitLayer {
    /// Decides on what can be decided before the body of a request is read, for whoever reads bodies to tell
    /// how many tokens they will use: else a caller over its limits could have any number of them read.
    ///
    /// The request is taken from the limits of requests, after its turn if it has to wait for it; where it
    /// will use tokens ([`CostEstimator`](crate::CostEstimator)), some must be left. The service that the
    /// layer makes then takes the tokens; if these are denied, or another layer denies the request, what was
    /// taken comes back. Call it for each of several layers, from the outermost on, where nothing but the
    /// body has still to be read that their keys are made of.
    ///
    /// A policy that only warns is left to the service.
    ///
    /// # Errors
    ///
    /// The response to a request that is refused: it has cost nothing. It tells when all that the request is
    /// expected to use fits, but no more than what most requests used: what a body costs is not told by its
    /// length before it is read.
    ///
    /// # Cancellation
    ///
    /// Dropping the future costs nothing. Who gives up a request after it was taken has made one.
    pub async fn begin(&self, request: &mut Parts) -> Result<(), Response<Bytes>> {
        let settings = &self.settings;
        if (settings.exempt)(request) || settings.decider.policy().on_limit() == OnLimit::Warn {
            return Ok(());
        }
        let key = match settings.key(request) {
            KeyLookup::By(key) => key,
            KeyLookup::Nobody => return Ok(()),
            KeyLookup::Lacks(missing) => return Err(settings.refuse_missing(missing, request)),
        };
        let cost = settings.cost(request);
        let part = Part::Opening { spends: cost.tokens > 0 };
        let asked = DecisionRequest::new(key, settings.opening(cost), part, &mut request.extensions);
        let (outcome, waited) = match settings.decider.decide(asked) {
            Decided::Now(outcome) => (outcome, Duration::ZERO),
            Decided::Later(decision) => {
                let begun = Instant::now();
                (decision.await, begun.elapsed())
            }
        };
        let taken = match outcome {
            Outcome::Admitted(charge) => Some(ReservationHandle::new(charge, Arc::clone(settings))),
            Outcome::Unchecked => None,
            Outcome::Denied(denied) => {
                // What a body that nobody has read costs is not told by its length: pictures are long.
                let typical = settings.decider.typical_tokens();
                let tokens = if typical == 0 { cost.tokens } else { cost.tokens.min(typical) };
                return Err(settings.refuse(denied.until_fits(Cost { tokens, ..cost }), request));
            }
            #[cfg(feature = "redis")]
            Outcome::Unavailable => return Err(settings.refuse_unavailable(request)),
        };
        let early_charge = EarlyCharge { settings: Arc::clone(settings), taken, waited };
        request.extensions.get_or_insert_default::<EarlyCharges>().0.push(early_charge);
        Ok(())
    }
}

// === impl Settings ===

impl Settings {
    /// What is taken of `cost` before the body is read. A limit of no tokens needs none to be known.
    fn opening(&self, cost: Cost) -> Cost {
        let mut limits = self.decider.policy().limits().iter();
        let is_closed = limits.any(|limit| limit.unit() == Unit::Tokens && limit.max() == 0);
        Cost { tokens: if is_closed { cost.tokens } else { 0 }, ..cost }
    }
}

// === impl EarlyCharges ===

impl EarlyCharges {
    /// What the layer with these settings took.
    pub(crate) fn take(extensions: &mut Extensions, settings: &Arc<Settings>) -> Option<EarlyCharge> {
        let Self(charges) = extensions.get_mut()?;
        let position = charges.iter().position(|charge| Arc::ptr_eq(&charge.settings, settings))?;
        Some(charges.remove(position))
    }
}

/// Gives back what was taken for a request that is refused.
pub(crate) fn cancel(extensions: &mut Extensions) {
    if let Some(EarlyCharges(charges)) = extensions.remove() {
        charges.iter().filter_map(|charge| charge.taken.as_ref()).for_each(ReservationHandle::cancel_own);
    }
}
