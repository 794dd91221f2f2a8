//! TokenPolicy.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use http::{Request, Response, request::Parts};
use nantian_ratelimit::{
    Decision, InvalidPolicy, InvalidScope, KeyExtractor, Limit, Limiter, Observe, OnLimit, Policy,
    RateLimitLayer, ScopePart, ScopeValues, Unit,
};
use tower::{Layer, Service, ServiceBuilder};

use crate::{
    body::{Body, BoxError},
    compile::{LocalService, Place},
    ir::{self, PolicyId},
    listen::RequestInfo,
    metrics::Metrics,
};

/// A TokenPolicy that cannot be enforced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRateLimit {
    /// A scope outside the grammar.
    #[error("spec.scope: {0}")]
    Scope(#[source] InvalidScope),
    /// A part of the scope that nothing in the gateway knows yet.
    #[error("spec.scope: {0} is not served yet")]
    ScopePart(&'static str),
    /// A limit outside its range.
    #[error("spec: {0}")]
    Policy(#[source] InvalidPolicy),
    /// Waiting is not served.
    #[error("spec.onLimit: queue is not served yet; use reject or warn")]
    Queue,
}

/// The policy of the limiter crate.
///
/// # Errors
/// [`InvalidRateLimit`] names the field.
pub fn policy(limit: &ir::RateLimit) -> Result<Policy, InvalidRateLimit> {
    let scope: nantian_ratelimit::Scope = limit.scope.parse().map_err(InvalidRateLimit::Scope)?;
    let unknown = scope.parts().iter().find(|part| matches!(part, ScopePart::Model | ScopePart::User));
    if let Some(part) = unknown {
        return Err(InvalidRateLimit::ScopePart(part.name()));
    }
    let on_limit = match limit.on_limit {
        ir::OnLimit::Reject => OnLimit::Reject,
        ir::OnLimit::Warn => OnLimit::Warn,
        ir::OnLimit::Queue => return Err(InvalidRateLimit::Queue),
    };
    let limits = [
        limit.requests_per_minute.map(Limit::requests_per_minute),
        limit.tokens_per_minute.map(Limit::tokens_per_minute),
        limit.tokens_per_hour.map(Limit::tokens_per_hour),
    ];
    let builder = Policy::builder().scope(scope).on_limit(on_limit);
    let builder =
        limits.into_iter().flatten().fold(builder, |builder, max| builder.limit(max.with_burst(limit.burst)));
    builder.build().map_err(InvalidRateLimit::Policy)
}

/// The levels of every policy, which outlive its edits.
#[derive(Debug, Default)]
pub struct Limiters {
    by_policy: BTreeMap<PolicyId, Limiter>,
}

impl Limiters {
    /// The limiter of a policy: a new amount keeps what was used.
    pub fn get(&mut self, id: &PolicyId, policy: Policy) -> Limiter {
        let limiter = match self.by_policy.get(id) {
            Some(limiter) if *limiter.policy() == policy => return limiter.clone(),
            Some(limiter) => limiter.with_policy(policy),
            None => Limiter::new(policy),
        };
        self.by_policy.insert(id.clone(), limiter.clone());
        limiter
    }

    /// The limiter that a policy had before, if it had one.
    pub fn last(&self, id: &PolicyId) -> Option<Limiter> {
        self.by_policy.get(id).cloned()
    }

    /// Forgets the policies that `keep` does not know.
    pub fn retain(&mut self, keep: impl Fn(&PolicyId) -> bool) {
        self.by_policy.retain(|id, _| keep(id));
    }
}

/// The limits at one place, the outermost first: every one must admit the request.
#[derive(Debug, Clone)]
pub struct RateLimits {
    layers: Arc<[RateLimitLayer]>,
    counts_tokens: bool,
}

impl RateLimits {
    /// The layer for `limiters`, or `None` if there are none.
    pub fn new(limiters: Vec<Limiter>, place: &Place, metrics: &Arc<Metrics>) -> Option<Self> {
        if limiters.is_empty() {
            return None;
        }
        let counts_tokens = limiters.iter().any(|limiter| limiter.policy().counts(Unit::Tokens));
        let values =
            ScopeValues::new().with_gateway(Arc::clone(&place.gateway)).with_route(Arc::clone(&place.route));
        let layer = |limiter| {
            RateLimitLayer::new(limiter)
                // No filter of the gateway answers a preflight: it reaches the backend and costs what it costs.
                .preflight_exempt(false)
                .keys(Keys { values: values.clone() })
                .observe(Counted(Arc::clone(metrics)))
        };
        Some(Self { layers: limiters.into_iter().map(layer).collect(), counts_tokens })
    }

    /// Whether the usage of replies must be metered.
    pub fn counts_tokens(&self) -> bool {
        self.counts_tokens
    }
}

impl<S> Layer<S> for RateLimits
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + 'static,
    S::Future: 'static,
{
    type Service = LocalService<Response<Body>, BoxError>;

    fn layer(&self, inner: S) -> Self::Service {
        self.layers.iter().rev().fold(LocalService::new(inner), |inner, layer| {
            let limited = ServiceBuilder::new()
                .map_response(|response: Response<_>| response.map(Body::boxed))
                .layer(layer.clone())
                .service(inner);
            LocalService::new(limited)
        })
    }
}

/// What a scope's parts mean in the gateway.
struct Keys {
    values: ScopeValues,
}

impl KeyExtractor for Keys {
    fn value<'a>(&'a self, part: &ScopePart, request: &'a Parts) -> Option<Cow<'a, [u8]>> {
        if !matches!(part, ScopePart::Ip) {
            return self.values.value(part, request);
        }
        let info = request.extensions.get::<RequestInfo>()?;
        let client = ScopeValues::new().with_client(info.client);
        let network = client.value(part, request)?.into_owned();
        Some(Cow::Owned(network))
    }
}

/// Counts what is over a limit.
struct Counted(Arc<Metrics>);

impl Observe for Counted {
    fn decided(&self, decision: &Decision<'_>) {
        match decision {
            Decision::Denied(_) => self.0.limited(),
            Decision::Warned(denied) => {
                tracing::debug!(%denied, "over the limit, passed all the same");
                self.0.warned();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u64) -> ir::RateLimit {
        ir::RateLimit {
            object: ir::ObjectName::new("demo", "quota"),
            tokens_per_minute: None,
            tokens_per_hour: None,
            requests_per_minute: Some(requests),
            scope: "route".to_owned(),
            burst: 1.0,
            on_limit: ir::OnLimit::Reject,
        }
    }

    #[test]
    fn a_new_amount_keeps_what_was_used() {
        let id = PolicyId("uid".to_owned());
        let mut limiters = Limiters::default();
        let limiter = limiters.get(&id, policy(&limit(2)).unwrap());
        let key = limiter.key(b"route");
        assert!(limiter.admit(key, nantian_ratelimit::Cost::REQUEST).is_ok());
        assert!(limiter.admit(key, nantian_ratelimit::Cost::REQUEST).is_ok());
        assert!(limiter.admit(key, nantian_ratelimit::Cost::REQUEST).is_err());

        let edited = limiters.get(&id, policy(&limit(3)).unwrap());
        assert!(edited.admit(key, nantian_ratelimit::Cost::REQUEST).is_ok());
        assert!(edited.admit(key, nantian_ratelimit::Cost::REQUEST).is_err());
    }

    #[test]
    fn what_is_not_served_is_refused_by_field() {
        let queue = ir::RateLimit { on_limit: ir::OnLimit::Queue, ..limit(1) };
        assert!(policy(&queue).unwrap_err().to_string().starts_with("spec.onLimit"));
        let user = ir::RateLimit { scope: "user".to_owned(), ..limit(1) };
        assert!(policy(&user).unwrap_err().to_string().starts_with("spec.scope"));
    }
}
