//! The limits at one place on a request's way.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use http::{Request, Response, request::Parts};
use nantian_ai::BodyMemory;
use nantian_ratelimit::{
    Decision, Denied, KeyExtractor, Limit, Observer, OnLimit, Policy, RateLimitLayer, ScopePart, ScopeValues,
    Settled, Settlement, Unit, client_network, is_preflight,
};
use tower::{Layer, Service, ServiceBuilder};

use super::{
    PolicyLimiter,
    before::BeforeBody,
    body_facts::{BodyFacts, BodyFactsLayer},
    costs::{Costs, Others},
    expected::{Expected, Upstream},
    limit_source::LimitResponder,
};
use crate::{
    body::{Body, BoxError},
    compile::{BackendService, LocalService, RulePosition},
    listen::RequestInfo,
    metrics::{LimitMetrics, Limited, counted},
};

/// The limits at one place, the outermost first: every one must admit the request.
#[derive(Debug, Clone)]
pub(crate) struct RateLimits {
    /// Reads the body for scopes that ask for it.
    facts: Option<BodyFactsLayer>,
    /// Asks what can be asked before a body is read.
    before_body: Option<BeforeBody>,
    is_read: bool,
    layers: Arc<[RateLimitLayer]>,
    counts_tokens: bool,
}

/// What the limits at a place have to know of what follows them.
#[derive(Debug, Clone)]
pub(crate) struct Downstream {
    /// Which models there are.
    pub(crate) models: Models,
    /// It is one of several attempts at a request, of which another one may serve it.
    pub(crate) is_attempt: bool,
    /// The body has been read by whoever chose what follows.
    pub(crate) is_read: bool,
    /// An AIService is chosen by the model that the body names, so that the body is read in any case.
    pub(crate) is_routed_by_model: bool,
    /// The AIServices.
    pub(crate) upstreams: Vec<Upstream>,
    /// What may use tokens though it does not by its path.
    pub(crate) others: Others,
}

/// Which models there are at a place: whoever could invent models would invent buckets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub(crate) enum Models {
    /// Whatever the body says: the backend knows which there are.
    Asked,
    /// Those of the AIServices, by every name that the body may call them; all other names count as none.
    Known(Arc<BTreeMap<String, Arc<str>>>),
    /// The one that is asked whatever the body says.
    Only(Arc<str>),
}

impl RateLimits {
    /// The layer for `limiters`, or `None` if there are none.
    pub(crate) fn new(
        limiters: Vec<PolicyLimiter>,
        place: &RulePosition,
        downstream: &Downstream,
    ) -> Option<Self> {
        if limiters.is_empty() {
            return None;
        }
        let counts_tokens = limiters.iter().any(|limiter| limiter.policy().counts(Unit::Tokens));
        let counts_by = |wanted: &ScopePart| {
            limiters.iter().any(|limiter| limiter.policy().scope().parts().contains(wanted))
        };
        let models = &downstream.models;
        let is_model_asked = !matches!(models, Models::Only(_));
        let expected = expected(&limiters, downstream);
        let facts = BodyFactsLayer {
            is_routed_by_model: downstream.is_routed_by_model || downstream.is_attempt,
            tokens: expected.clone(),
            model: is_model_asked && counts_by(&ScopePart::Model),
            user: counts_by(&ScopePart::User),
            memory: None,
        };
        let facts = Some(facts).filter(|facts| facts.model || facts.user || facts.tokens.is_some());
        let is_known = |limiter: &PolicyLimiter| {
            let mut parts = limiter.policy().scope().parts().iter();
            !parts
                .any(|part| matches!(part, ScopePart::User) || (is_model_asked && *part == ScopePart::Model))
        };
        let known: Vec<bool> = limiters.iter().map(is_known).collect();
        let values =
            ScopeValues::new().with_gateway(Arc::clone(&place.gateway)).with_route(Arc::clone(&place.route));
        let layer = |limiter: PolicyLimiter| {
            let responder = LimitResponder { policy: limiter.object() };
            let counted = Counted { object: limiter.object(), metrics: limiter.metrics() };
            let expected = expected.clone().filter(|_| limiter.policy().counts(Unit::Tokens));
            let costs =
                expected.and_then(|expected| Costs::of(limiter.policy(), downstream.others, expected));
            let ipv6_prefix = limiter.ipv6_prefix();
            let keys = Keys { values: values.clone(), models: models.clone(), ipv6_prefix };
            let exempt = exempt(limiter.policy(), keys.clone());
            let layer = limiter
                .layer()
                .responder(responder)
                .exempt(exempt)
                // What is sent to a backend is settled there: a redirect has used nothing.
                .if_unsettled(Settlement::NotServed)
                .of_attempt(downstream.is_attempt)
                .key_extractor(keys)
                .observer(counted);
            match costs {
                Some(costs) => layer.cost_estimator(costs),
                None => layer,
            }
        };
        let layers: Arc<[_]> = limiters.into_iter().map(layer).collect();
        let known = layers
            .iter()
            .zip(known)
            .filter(|(_, is_known)| *is_known)
            .map(|(layer, _)| layer.clone())
            .collect();
        let reader = if downstream.is_attempt { Some(BodyFactsLayer::ROUTED) } else { facts.clone() };
        let before_body = reader.and_then(|reader| BeforeBody::new(reader, known));
        Some(Self { facts, before_body, is_read: downstream.is_read, layers, counts_tokens })
    }

    /// These, reading bodies within `memory`.
    pub(crate) fn within(&self, memory: &BodyMemory) -> Self {
        let facts = self.facts.clone().map(|facts| BodyFactsLayer { memory: Some(memory.clone()), ..facts });
        Self { facts, ..self.clone() }
    }

    /// What limits of an AIService say before its rule reads the body, for a rule that has no other one.
    pub(crate) fn before_route(&self) -> Option<BeforeBody> {
        self.before_body.clone().filter(|_| self.is_read)
    }

    /// Whether they look at bodies before they let them pass.
    pub(crate) fn read_bodies(&self) -> bool {
        self.facts.is_some()
    }

    /// Whether the usage of replies must be metered.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.counts_tokens
    }
}

impl<S> Layer<S> for RateLimits
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + 'static,
    S::Future: 'static,
{
    type Service = BackendService;

    fn layer(&self, inner: S) -> Self::Service {
        let limited = self.layers.iter().rev().fold(LocalService::new(inner), |inner, layer| {
            let limited = ServiceBuilder::new()
                .map_response(|response: Response<_>| response.map(Body::boxed))
                .layer(layer.clone())
                .service(inner);
            LocalService::new(limited)
        });
        let facts = match &self.facts {
            Some(facts) => LocalService::new(facts.layer(limited)),
            None => limited,
        };
        match &self.before_body {
            Some(before_body) if !self.is_read => LocalService::new(before_body.layer(facts)),
            _ => facts,
        }
    }
}

/// Which requests pass uncounted: preflights that lack what the policy counts by and clients choose, such as
/// the key that no browser sends with one. All browsers, or those of one address, would share the bucket of
/// those that have none, which bounds nobody: whoever floods sends some key. Another preflight that no CORS
/// filter has answered costs what it costs. A limit of 0 denies them, too.
fn exempt(policy: &Policy, keys: Keys) -> impl Fn(&Parts) -> bool + use<> {
    let is_closed = policy.limits().iter().any(|limit| limit.max() == 0);
    let is_chosen =
        |part: &&ScopePart| matches!(part, ScopePart::ApiKey | ScopePart::User | ScopePart::Header(_));
    let parts = policy.scope().parts().iter().filter(is_chosen).filter(|_| !is_closed);
    let parts: Vec<ScopePart> = parts.cloned().collect();
    move |request| is_preflight(request) && parts.iter().any(|part| keys.value(part, request).is_none())
}

/// What requests are expected to use, if some limit counts tokens: by the smallest bucket of those in force,
/// where all only warn by that of all, until one further in is in force.
fn expected(limiters: &[PolicyLimiter], downstream: &Downstream) -> Option<Arc<Expected>> {
    let warns = |limiter: &PolicyLimiter| limiter.policy().on_limit() == OnLimit::Warn;
    let counting = || limiters.iter().filter(|limiter| limiter.policy().counts(Unit::Tokens));
    let is_rehearsal = counting().all(warns);
    let decisive = || counting().filter(|limiter| is_rehearsal || !warns(limiter));
    let first = decisive().next()?;
    let limits = decisive().flat_map(|limiter| limiter.policy().limits());
    let buckets = limits.filter(|limit| limit.unit() == Unit::Tokens).map(Limit::capacity);
    let smallest = buckets.min().unwrap_or(u64::MAX);
    let expected = Expected::new(downstream.upstreams.clone(), first.lengths(), smallest);
    Some(Arc::new(expected.of_rehearsal(is_rehearsal)))
}

/// What a scope's parts mean in the gateway.
#[derive(Clone)]
struct Keys {
    values: ScopeValues,
    models: Models,
    ipv6_prefix: u8,
}

impl KeyExtractor for Keys {
    fn value<'a>(&'a self, part: &ScopePart, request: &'a Parts) -> Option<Cow<'a, [u8]>> {
        let facts = || request.extensions.get::<BodyFacts>();
        match part {
            ScopePart::Ip => {
                let info = request.extensions.get::<RequestInfo>()?;
                Some(Cow::Owned(client_network(info.client, self.ipv6_prefix)))
            }
            ScopePart::Model => {
                let model = match &self.models {
                    Models::Only(model) => &**model,
                    // Of a Service nobody knows which of them it reads.
                    Models::Asked if facts()?.is_model_shadowed => return None,
                    Models::Asked => facts()?.model.as_deref()?,
                    Models::Known(models) => models.get(facts()?.model.as_deref()?)?,
                };
                Some(Cow::Borrowed(model.as_bytes()))
            }
            ScopePart::User => {
                let user = facts()?.user.as_deref()?;
                Some(Cow::Borrowed(user.as_bytes()))
            }
            _ => self.values.value(part, request),
        }
    }
}

/// Counts what was decided and what was used. Nothing that it writes shows a key.
struct Counted {
    object: Arc<str>,
    metrics: Arc<LimitMetrics>,
}

impl Observer for Counted {
    fn decided(&self, decision: &Decision<'_>) {
        let limited = match decision {
            Decision::Admitted(_) => Limited::Admitted,
            Decision::Denied(denied) => {
                tracing::debug!(policy = &*self.object, %denied, "over the limit");
                Limited::Refused(limit(denied))
            }
            Decision::Warned(denied) => {
                tracing::debug!(policy = &*self.object, %denied, "over the limit, passed all the same");
                Limited::Warned(limit(denied))
            }
            Decision::Unavailable => Limited::Refused(""),
            _ => Limited::Unchecked,
        };
        self.metrics.decided(limited);
    }

    fn settled(&self, settled: &Settled) {
        self.metrics.settled(settled.reserved, settled.used, settled.forgiven);
    }
}

/// What the limit counts that denies the request.
fn limit(denied: &Denied) -> &str {
    counted(denied.limit().name().as_str())
}
