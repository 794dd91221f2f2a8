//! The Layer: a limiter and all that connects it to requests.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Extensions, HeaderMap};
use tower_layer::Layer;

use crate::cost::{Cost, CostEstimator, TypicalCost, is_preflight};
use crate::decide::{BucketKey, Decider};
use crate::error::MissingPart;
use crate::key_extractor::{IPV6_PREFIX, KeyExtractor, ScopeValues, client_network};
use crate::limit::Unit;
use crate::limiter::Limiter;
use crate::observe::Observer;
#[cfg(feature = "redis")]
use crate::redis::SharedLimiter;
use crate::reservation::Settlement;
use crate::respond::{DialectResponder, Responder};
use crate::scope::ScopePart;
use crate::service::RateLimit;
use crate::usage_meter::{Metering, ReportedTokens, UsageMeter};

/// Limits the requests to the services it is applied to; all of them share the limiter's levels.
///
/// The decision is made when a service is called, never in `poll_ready`. CORS preflight requests pass
/// uncounted unless [`exempt`](Self::exempt) says otherwise.
#[derive(Debug, Clone)]
pub struct RateLimitLayer {
    pub(crate) settings: Arc<Settings>,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) decider: Decider,
    pub(crate) key_extractor: Arc<dyn KeyExtractor>,
    client_ip: Option<Arc<ClientIp>>,
    pub(crate) cost_estimator: Arc<dyn CostEstimator>,
    usage_meter: Arc<dyn UsageMeter>,
    pub(crate) responder: Arc<dyn Responder>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) report_levels: bool,
    pub(crate) exempt: Arc<Exempt>,
    pub(crate) of_attempt: bool,
    pub(crate) if_unsettled: Settlement,
}

type Exempt = dyn Fn(&Parts) -> bool + Send + Sync;
type ClientIp = dyn Fn(&HeaderMap, &Extensions) -> Option<IpAddr> + Send + Sync;

/// A key extractor whose clients' addresses somebody else finds.
struct WithClientIp<'a> {
    keys: &'a dyn KeyExtractor,
    client_ip: &'a ClientIp,
}

/// Who a request is counted for.
pub(crate) enum KeyLookup {
    By(BucketKey),
    /// Nobody: it passes uncounted.
    Nobody,
    /// It lacks a part and is refused.
    Lacks(MissingPart),
}

// === impl RateLimitLayer ===

impl RateLimitLayer {
    /// A layer that asks `limiter`, with [`ScopeValues`], [`TypicalCost`], [`ReportedTokens`] and
    /// [`DialectResponder`].
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
                client_ip: None,
                cost_estimator: Arc::new(TypicalCost),
                usage_meter: Arc::new(ReportedTokens),
                responder: Arc::new(DialectResponder),
                observer: Arc::new(()),
                report_levels: true,
                exempt: Arc::new(is_preflight),
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

    /// Finds the client's address, for the part `ip` of a scope, by the headers and extensions of the
    /// request, and not by the key extractor. `None` is an address that is unknown.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer, ScopePart, client_address};
    ///
    /// let policy = Policy::builder().limit(Limit::requests_per_minute(60)).scope(ScopePart::Ip.into()).build()?;
    /// let layer = RateLimitLayer::new(Limiter::new(policy)).client_ip(|headers, extensions| {
    ///     // Of `Router::into_make_service_with_connect_info`.
    ///     let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    ///     // A proxy on this machine says who its client is; without one, `Some(peer.ip())` is all.
    ///     Some(client_address(peer.ip(), headers, |address| address.is_loopback()))
    /// });
    /// # Ok::<_, nantian_ratelimit::InvalidPolicy>(())
    /// ```
    #[must_use]
    pub fn client_ip(
        self,
        client_ip: impl Fn(&HeaderMap, &Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.client_ip = Some(Arc::new(client_ip)))
    }

    /// Sets who guesses what a request costs.
    #[must_use]
    pub fn cost_estimator(self, estimator: impl CostEstimator + 'static) -> Self {
        self.with(|settings| settings.cost_estimator = Arc::new(estimator))
    }

    /// Sets who learns what requests have used.
    #[must_use]
    pub fn usage_meter(self, meter: impl UsageMeter + 'static) -> Self {
        self.with(|settings| settings.usage_meter = Arc::new(meter))
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

    /// Sets whether responses say where the limits stand: `RateLimit`, `RateLimit-Policy`, `x-ratelimit-*`,
    /// and `anthropic-ratelimit-*` to clients of Anthropic.
    ///
    /// Without them nobody learns how much there is of what, and those of an upstream stay as they are. When
    /// to come back is told in any case, and which limit was exhausted by the [`Responder`]. Of a policy that
    /// only warns ([`OnLimit::Warn`](crate::OnLimit::Warn)) nothing is told, nor with a request that no limit
    /// counts where processes share them, for nobody is asked then; an upstream's are removed as elsewhere.
    ///
    /// Default: true.
    #[must_use]
    pub fn report_levels(self, report: bool) -> Self {
        self.with(|settings| settings.report_levels = report)
    }

    /// Sets which requests pass uncounted.
    ///
    /// A browser sends CORS preflights without credentials and cannot act on a refusal. But anybody can write
    /// such a request: exempt none where nothing inside answers preflights by itself, or they reach the
    /// backend beside all limits.
    ///
    /// ```
    /// use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer, is_preflight};
    ///
    /// let policy = Policy::builder().limit(Limit::requests_per_minute(60)).build()?;
    /// let layer = RateLimitLayer::new(Limiter::new(policy))
    ///     .exempt(|request| is_preflight(request) || request.uri.path() == "/healthz");
    /// # Ok::<_, nantian_ratelimit::InvalidPolicy>(())
    /// ```
    ///
    /// Default: [`is_preflight`](crate::is_preflight).
    #[must_use]
    pub fn exempt(self, exempt: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.exempt = Arc::new(exempt))
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
    /// get there, as a redirect, has used none. Among those are requests whose clients leave before a
    /// response has begun, of which no meter hears.
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
        let with_client_ip;
        let keys: &dyn KeyExtractor = match &self.client_ip {
            Some(client_ip) => {
                with_client_ip = WithClientIp { keys: &*self.key_extractor, client_ip: &**client_ip };
                &with_client_ip
            }
            None => &*self.key_extractor,
        };
        match policy.counts_request(keys, request) {
            Ok(true) => KeyLookup::By(self.decider.key(|hasher| policy.write_key(keys, request, hasher))),
            Ok(false) => KeyLookup::Nobody,
            Err(missing) => KeyLookup::Lacks(missing),
        }
    }

    /// The estimated cost of a request.
    pub(crate) fn cost(&self, request: &Parts) -> Cost {
        let cost = self.cost_estimator.estimate(request, self.decider.typical_tokens());
        if self.counts_tokens() { cost } else { Cost { tokens: 0, ..cost } }
    }

    /// The meter of the response to a request, if there is something to settle.
    pub(crate) fn metering(&self, request: &Parts) -> Option<Metering> {
        let meter = if self.counts_tokens() { self.usage_meter.begin(request) } else { None };
        meter.map(Metering::new)
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

// === impl WithClientIp ===

impl KeyExtractor for WithClientIp<'_> {
    fn value<'a>(&'a self, part: &ScopePart, request: &'a Parts) -> Option<Cow<'a, [u8]>> {
        match part {
            ScopePart::Ip => {
                let client = (self.client_ip)(&request.headers, &request.extensions)?;
                Some(Cow::Owned(client_network(client, IPV6_PREFIX)))
            }
            part => self.keys.value(part, request),
        }
    }
}
