//! The Layer: a limiter and all that connects it to requests.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use tower_layer::Layer;

use crate::cost::{Cost, CostEstimator, TypicalCost};
use crate::decide::{BucketKey, Decider};
use crate::error::MissingPart;
use crate::key_extractor::{KeyExtractor, ScopeValues};
use crate::limit::Unit;
use crate::limiter::Limiter;
use crate::observe::Observer;
#[cfg(feature = "redis")]
use crate::redis::SharedLimiter;
use crate::reservation::Settlement;
use crate::respond::{DialectResponder, Responder};
use crate::scope::ScopePart;
use crate::service::RateLimit;

/// Limits the requests to the services it is applied to; all of them share the limiter's levels.
///
/// The decision is made when a service is called, never in `poll_ready`. CORS preflight requests pass
/// uncounted unless [`preflight_exempt`](Self::preflight_exempt) says otherwise.
#[derive(Debug, Clone)]
pub struct RateLimitLayer {
    pub(crate) settings: Arc<Settings>,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) decider: Decider,
    pub(crate) key_extractor: Arc<dyn KeyExtractor>,
    pub(crate) cost_estimator: Arc<dyn CostEstimator>,
    pub(crate) responder: Arc<dyn Responder>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) preflight_exempt: bool,
    pub(crate) of_attempt: bool,
    pub(crate) if_unsettled: Settlement,
}

/// Who a request is counted for.
pub(crate) enum KeyLookup {
    By(BucketKey),
    /// Nobody: it passes uncounted.
    Nobody,
    /// It lacks this part and is refused.
    Lacks(ScopePart),
}

// === impl RateLimitLayer ===

impl RateLimitLayer {
    /// A layer that asks `limiter`, with [`ScopeValues`], [`TypicalCost`] and [`DialectResponder`].
    pub fn new(limiter: Limiter) -> Self {
        Self::of(Decider::Process(limiter))
    }

    /// A layer that asks a limiter whose levels several processes share.
    #[cfg(feature = "redis")]
    pub fn shared(limiter: SharedLimiter) -> Self {
        Self::of(Decider::Shared(limiter))
    }

    fn of(decider: Decider) -> Self {
        Self {
            settings: Arc::new(Settings {
                decider,
                key_extractor: Arc::new(ScopeValues::new()),
                cost_estimator: Arc::new(TypicalCost),
                responder: Arc::new(DialectResponder),
                observer: Arc::new(()),
                preflight_exempt: true,
                of_attempt: false,
                if_unsettled: Settlement::AsReserved,
            }),
        }
    }

    /// Sets who tells whose request it is.
    #[must_use]
    pub fn key_extractor(self, extractor: impl KeyExtractor + 'static) -> Self {
        self.with(|settings| settings.key_extractor = Arc::new(extractor))
    }

    /// Sets who guesses what a request costs.
    #[must_use]
    pub fn cost_estimator(self, estimator: impl CostEstimator + 'static) -> Self {
        self.with(|settings| settings.cost_estimator = Arc::new(estimator))
    }

    /// Sets who writes the response to a refused request.
    #[must_use]
    pub fn responder(self, responder: impl Responder + 'static) -> Self {
        self.with(|settings| settings.responder = Arc::new(responder))
    }

    /// Sets who is told of decisions.
    #[must_use]
    pub fn observer(self, observer: impl Observer + 'static) -> Self {
        self.with(|settings| settings.observer = Arc::new(observer))
    }

    /// Sets whether CORS preflight requests pass uncounted: `OPTIONS` with `Access-Control-Request-Method`.
    ///
    /// A browser sends them without credentials and cannot act on a refusal. But anybody can write such a
    /// request: turn it off where nothing inside answers preflights by itself, or they reach the backend
    /// beside all limits.
    ///
    /// Default: true.
    #[must_use]
    pub fn preflight_exempt(self, exempt: bool) -> Self {
        self.with(|settings| settings.preflight_exempt = exempt)
    }

    /// Sets whether the services are asked for one of several attempts at a request, of which another one may
    /// serve it.
    ///
    /// What is reserved for an attempt can be settled apart from what is reserved for the request:
    /// [`ReservationHandle::settle_attempt`](crate::ReservationHandle::settle_attempt).
    ///
    /// Default: false.
    #[must_use]
    pub fn of_attempt(self, of_attempt: bool) -> Self {
        self.with(|settings| settings.of_attempt = of_attempt)
    }

    /// Sets what becomes of the tokens of a request that nobody settles: see
    /// [`ReservationHandle`](crate::ReservationHandle).
    ///
    /// [`Settlement::NotServed`] where whoever sends requests to a model settles each of them: what did not
    /// get there, as a redirect, has used none.
    ///
    /// Default: [`Settlement::AsReserved`].
    #[must_use]
    pub fn if_unsettled(self, settlement: Settlement) -> Self {
        self.with(|settings| settings.if_unsettled = settlement)
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, Arc::clone(&self.settings))
    }
}

// === impl Settings ===

impl Settings {
    /// Who is asked for, by the values of the policy's scope.
    pub(crate) fn key(&self, request: &Parts) -> KeyLookup {
        let policy = self.decider.policy();
        let keys = &*self.key_extractor;
        match policy.counts_request(keys, request) {
            Ok(true) => KeyLookup::By(self.decider.key(|hasher| policy.write_key(keys, request, hasher))),
            Ok(false) => KeyLookup::Nobody,
            Err(MissingPart { part }) => KeyLookup::Lacks(part),
        }
    }

    /// The estimated cost of a request.
    pub(crate) fn cost(&self, request: &Parts) -> Cost {
        let cost = self.cost_estimator.estimate(request, self.decider.typical_tokens());
        if self.counts_tokens() { cost } else { Cost { tokens: 0, ..cost } }
    }

    /// Whether there is something to settle.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.decider.policy().counts(Unit::Tokens)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("decider", &self.decider).finish_non_exhaustive()
    }
}
