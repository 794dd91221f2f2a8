//! TokenPolicy.

mod before;
mod body_facts;
mod costs;
mod expected;
mod layer;
mod lengths;
mod limit_source;
mod limiters;
mod refusal;

use nantian_ratelimit::{
    InvalidPolicy, InvalidScope, Limit, LimitName, OnLimit, Policy, PolicyBuilder, Queue,
};

use crate::ir::{self, ObjectName};

pub(super) use self::expected::{ExpectedAnswer, Learns, unseen};
pub(crate) use self::{
    before::BeforeBody,
    costs::Others,
    expected::Upstream,
    layer::{Downstream, Models, RateLimits},
    lengths::Lengths,
    limit_source::mark_upstream,
    limiters::{Limiters, PolicyLimiter},
    refusal::keep_refusal,
};

/// A TokenPolicy that cannot be enforced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InvalidRateLimit {
    /// A scope outside the grammar.
    #[error("spec.scope")]
    Scope(#[source] InvalidScope),
    /// A limit outside its range.
    #[error("spec")]
    Policy(#[source] InvalidPolicy),
}

/// The policy of the limiter crate. Clients meet each limit by a name that no limit of another policy has,
/// `<namespace>.<name>.requests-per-minute`.
///
/// # Errors
/// [`InvalidRateLimit`] names the field.
pub(crate) fn policy(limit: &ir::RateLimit) -> Result<Policy, InvalidRateLimit> {
    let scope = limit.scope.parse().map_err(InvalidRateLimit::Scope)?;
    let on_limit = match limit.on_limit {
        nantian_crd::OnLimit::Reject => OnLimit::Reject,
        nantian_crd::OnLimit::Warn => OnLimit::Warn,
        nantian_crd::OnLimit::Queue => OnLimit::Queue(Queue::default()),
    };
    let limits = [
        limit.requests_per_minute.map(Limit::requests_per_minute),
        limit.tokens_per_minute.map(Limit::tokens_per_minute),
        limit.tokens_per_hour.map(Limit::tokens_per_hour),
    ];
    let weight = limit.cached_token_weight;
    let builder = Policy::builder().scope(scope).on_limit(on_limit).cached_token_weight(weight);
    let ObjectName { namespace, name } = &limit.object;
    let builder = limits.into_iter().flatten().try_fold(builder, |builder, max| {
        let name = LimitName::new(format!("{namespace}.{name}.{}", max.name()))?;
        Ok(builder.limit(max.with_burst(limit.burst).with_name(name)))
    });
    builder.and_then(PolicyBuilder::build).map_err(InvalidRateLimit::Policy)
}
