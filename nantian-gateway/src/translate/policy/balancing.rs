//! BackendLBPolicy: how requests are spread over the endpoints of a Service.

use http::HeaderName;
use nantian_crd::{BackendLbPolicy, HashKeyType, LoadBalancingType};

use super::{
    PolicySet, TargetKey,
    attach::{self, Claims},
    outcome::PolicyOutcome,
    target::Target,
};
use crate::{
    gates::Feature,
    ir::{ConsistentHash, HashKey, LoadBalancing, Strategy},
    source::ObjectRef,
    translate::{
        cluster_state::{ClusterState, oldest_first},
        conditions::Reason,
        fault::{Fault, Path},
        grants::GroupKind,
        session,
    },
};

/// Attaches every BackendLBPolicy to its Services, the oldest first.
pub(super) fn read(cluster: &ClusterState<'_>, set: &mut PolicySet) {
    let mut claims = Claims::default();
    for (name, policy) in oldest_first(&cluster.objects.backend_lb_policies) {
        let object = ObjectRef { kind: Feature::BackendLBPolicy.name(), name: name.clone() };
        let targets = policy.spec.target_refs.iter();
        let targets: Vec<_> =
            targets.map(|target| Target::resolve_service(cluster, &name.namespace, target)).collect();
        let balancing = attach::validate(policy).and_then(|()| load_balancing(policy));
        let (outcomes, refused) = match balancing {
            Ok(balancing) => {
                let outcomes = claims.claim(&object, targets);
                for place in attach::won(&outcomes) {
                    if let TargetKey::Service(service) = place {
                        set.balancing.insert(service.clone(), balancing.clone());
                    }
                }
                (outcomes, None)
            }
            Err(fault) => (attach::refuse(targets, &fault), Some(fault)),
        };
        let (kind, generation) = (GroupKind::BACKEND_LB_POLICY, policy.metadata.generation);
        set.records.push(PolicyOutcome::new(object, kind, generation, refused, outcomes));
    }
}

fn load_balancing(policy: &BackendLbPolicy) -> Result<LoadBalancing, Fault> {
    let spec = &policy.spec;
    let session = spec.session_persistence.as_ref();
    let session = session.map(|spec| session::of_policy(spec, &Path::SPEC.field("sessionPersistence")));
    let session = session.transpose()?;
    let strategy = match &spec.load_balancing {
        None => Strategy::RoundRobin,
        Some(balancing) => match balancing.effective_type() {
            LoadBalancingType::RoundRobin => Strategy::RoundRobin,
            LoadBalancingType::Random => Strategy::Random,
            LoadBalancingType::LeastRequest => Strategy::LeastRequest,
            LoadBalancingType::ConsistentHash => {
                Strategy::ConsistentHash(consistent_hash(balancing.consistent_hash.as_ref())?)
            }
        },
    };
    let breaker = spec.circuit_breaker.as_ref();
    Ok(LoadBalancing {
        strategy,
        max_inflight_requests: breaker.map(|breaker| breaker.max_inflight_requests),
        session,
    })
}

fn consistent_hash(spec: Option<&nantian_crd::ConsistentHash>) -> Result<ConsistentHash, Fault> {
    let path = Path::SPEC.field("loadBalancing");
    let path = path.field("consistentHash");
    let required = |path: &Path<'_>| Fault::at(Reason::Invalid, path, "required field is missing");
    let spec = spec.ok_or_else(|| required(&path))?;
    let key = match spec.key_type {
        HashKeyType::SourceIp => HashKey::SourceIp,
        HashKeyType::Hostname => HashKey::Hostname,
        HashKeyType::Header => {
            let path = path.field("headerName");
            let name = spec.header_name.as_ref().ok_or_else(|| required(&path))?;
            let name = HeaderName::try_from(name);
            HashKey::Header(name.map_err(|error| Fault::at(Reason::Invalid, path, error))?)
        }
    };
    Ok(ConsistentHash { key })
}
