//! TokenPolicy: limits.

use nantian_crd::{OnLimit, TokenPolicy};

use super::{
    PolicySet,
    attach::{self, Claims},
    outcome::PolicyOutcome,
    target::Target,
};
use crate::{
    gates::Feature,
    ir::{ObjectName, RateLimit},
    policy::rate_limit_policy,
    respond::ErrorChain,
    source::ObjectRef,
    translate::{
        cluster_state::{ClusterState, oldest_first},
        conditions::Reason,
        fault::{Fault, Path},
        gateway::Gateways,
        grants::GroupKind,
    },
};

/// Attaches every TokenPolicy to its targets, the oldest first.
pub(super) fn read(cluster: &ClusterState<'_>, gateways: &Gateways<'_>, set: &mut PolicySet) {
    let mut claims = Claims::default();
    for (name, policy) in oldest_first(&cluster.objects.token_policies) {
        let object = ObjectRef { kind: Feature::TokenPolicy.name(), name: name.clone() };
        let targets = policy.spec.target_refs.iter();
        let targets: Vec<_> =
            targets.map(|target| Target::resolve(cluster, gateways, &name.namespace, target)).collect();
        let limit = attach::validate(policy).and_then(|()| rate_limit(name, policy)).and_then(enforceable);
        let id = attach::id(policy.metadata.uid.as_ref(), name);
        let remark = limit.as_ref().ok().and_then(remark);
        let (outcomes, refused) = match limit {
            Ok(limit) => {
                let outcomes = claims.claim(&object, targets);
                for place in attach::won(&outcomes) {
                    set.places.entry(place.clone()).or_default().rate_limits.push(id.clone());
                }
                set.rate_limits.insert(id.clone(), limit);
                (outcomes, None)
            }
            Err(fault) => (attach::refuse(targets, &fault), Some(fault)),
        };
        set.token_policies.insert(id);
        let (kind, generation) = (GroupKind::TOKEN_POLICY, policy.metadata.generation);
        let outcome = PolicyOutcome::new(object, kind, generation, refused, outcomes);
        set.records.push(PolicyOutcome { remark, ..outcome });
    }
}

fn rate_limit(name: &ObjectName, policy: &TokenPolicy) -> Result<RateLimit, Fault> {
    let spec = &policy.spec;
    if !(spec.burst.is_finite() && spec.burst >= 1.0) {
        return Err(invalid("burst", format_args!("{} is not at least 1", spec.burst)));
    }
    Ok(RateLimit {
        object: name.clone(),
        tokens_per_minute: amount(spec.tokens_per_minute, "tokensPerMinute")?,
        tokens_per_hour: amount(spec.tokens_per_hour, "tokensPerHour")?,
        requests_per_minute: amount(spec.requests_per_minute, "requestsPerMinute")?,
        scope: spec.scope.value().to_string(),
        burst: spec.burst,
        cached_token_weight: spec.cached_token_weight,
        on_limit: spec.on_limit,
    })
}

/// A limit that the data path can enforce as it is written.
fn enforceable(limit: RateLimit) -> Result<RateLimit, Fault> {
    match rate_limit_policy(&limit) {
        Ok(_) => Ok(limit),
        Err(error) => Err(Fault::of_policy(Reason::Invalid, &ErrorChain(&error))),
    }
}

/// What its author may not have meant.
fn remark(limit: &RateLimit) -> Option<&'static str> {
    let limits = [limit.tokens_per_minute, limit.tokens_per_hour, limit.requests_per_minute];
    if limits.contains(&Some(0)) {
        return (limit.on_limit != OnLimit::Warn).then_some("a limit of 0 denies every request");
    }
    // Both have the same burst.
    let (minute, hour) = (limit.tokens_per_minute?, limit.tokens_per_hour?);
    if hour <= minute {
        Some("tokensPerMinute is never reached, since tokensPerHour is no more")
    } else if hour >= minute.saturating_mul(60) {
        Some("tokensPerHour is never reached, since tokensPerMinute admits no more than that in an hour")
    } else {
        None
    }
}

fn amount(limit: Option<i64>, field: &'static str) -> Result<Option<u64>, Fault> {
    let Some(limit) = limit else { return Ok(None) };
    u64::try_from(limit).map(Some).map_err(|_| invalid(field, format_args!("{limit} is negative")))
}

fn invalid(field: &'static str, problem: std::fmt::Arguments<'_>) -> Fault {
    Fault::at(Reason::Invalid, Path::SPEC.field(field), problem)
}
