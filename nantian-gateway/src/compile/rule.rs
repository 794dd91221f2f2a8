//! A rule whose parts are ready to be stacked.

use std::{sync::Arc, time::Duration};

use nantian_lb::{Balancer, HashKey, Strategy, session::Sessions};

use super::{AiBackend, backends::SessionHome};
use crate::{
    filter::{FilterLayer, RedirectLayer, RetryBudget},
    ir,
    metrics::RouteMetrics,
    policy::{Plugins, RateLimits, ServiceUsage},
    upstream::{Destination, UpstreamTls},
};

/// A rule whose parts are ready to be stacked, shared by all workers.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    /// Where the rule stands in the configuration.
    pub(crate) place: RulePosition,
    pub(crate) metrics: Arc<RouteMetrics>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) filters: Option<FilterLayer>,
    pub(crate) plugins: Option<Plugins>,
    pub(crate) rate_limits: Option<RateLimits>,
    pub(crate) redirect: Option<RedirectLayer>,
    pub(crate) mirrors: Vec<CompiledMirror>,
    pub(crate) backends: Vec<CompiledBackend>,
    /// The model that a request names says which of them it is for.
    pub(crate) is_routed_by_model: bool,
    /// It is for requests that no route is for.
    pub(crate) serves_unmatched: bool,
    /// Some stage asks for a [`RequestInfo`](crate::listen::RequestInfo): what the headers do not say.
    pub(crate) needs_info: bool,
}

/// Where a rule stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RulePosition {
    /// The Gateway, `namespace/name`.
    pub(crate) gateway: Arc<str>,
    /// The route as metrics and logs name it.
    pub(crate) route: Arc<str>,
    /// The route.
    pub(crate) id: ir::RouteId,
}

/// One share of a rule.
#[derive(Debug)]
pub(crate) struct CompiledBackend {
    pub(crate) weight: u32,
    pub(crate) filters: Option<FilterLayer>,
    pub(crate) plugins: Option<Plugins>,
    pub(crate) rate_limits: Option<RateLimits>,
    pub(crate) redirect: Option<RedirectLayer>,
    pub(crate) mirrors: Vec<CompiledMirror>,
    pub(crate) timeout: Option<Duration>,
    /// When it is tried again, and how often that may be.
    pub(crate) retry: Option<(ir::RouteRetry, Arc<RetryBudget>)>,
    /// Some limit counts tokens, and the target does not meter itself.
    pub(crate) meter: Option<ServiceUsage>,
    /// How clients stay with the endpoints of a Service.
    pub(crate) sessions: Option<Sessions>,
    pub(crate) target: CompiledTarget,
}

/// Where copies of requests go.
#[derive(Debug)]
pub(crate) struct CompiledMirror {
    pub(crate) share: ir::Share,
    pub(crate) target: CompiledTarget,
}

/// Where a share goes.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum CompiledTarget {
    /// The endpoints of a Service, and the TLS that takes the place of theirs.
    Service(Balancer<Destination>, Option<UpstreamTls>),
    /// The provider of an AIService.
    AiService(AiBackend),
    /// Nowhere: 500.
    Invalid,
}

// === impl CompiledTarget ===

impl CompiledTarget {
    /// Whether endpoints are placed by the client's address.
    pub(super) fn asks_for_client(&self) -> bool {
        matches!(self, Self::Service(balancer, _)
            if balancer.config().strategy == Strategy::ConsistentHash(HashKey::SourceIp))
    }
}

// === impl CompiledBackend ===

impl CompiledBackend {
    /// Where its sessions are at home.
    pub(super) fn home(&self) -> Option<SessionHome> {
        match (&self.sessions, &self.target) {
            (Some(sessions), CompiledTarget::Service(balancer, _)) => {
                Some(SessionHome { sessions: sessions.clone(), balancer: balancer.clone() })
            }
            _ => None,
        }
    }
}

// === impl RulePosition ===

impl RulePosition {
    /// That of requests that none of the routes of a listener is for; in metrics and logs they have no route.
    pub(super) fn unmatched(listener: &ir::ListenerId) -> Self {
        let id = ir::RouteId { kind: ir::RouteKind::Http, name: listener.gateway.clone() };
        Self { gateway: listener.gateway.to_string().into(), route: Arc::from(""), id }
    }
}

// === impl CompiledRule ===

impl CompiledRule {
    /// The rule of a listener for requests that none of its routes is for.
    pub(super) fn unmatched(place: RulePosition, plugins: Plugins, metrics: Arc<RouteMetrics>) -> Self {
        Self {
            place,
            metrics,
            timeout: None,
            filters: None,
            plugins: Some(plugins),
            rate_limits: None,
            redirect: None,
            mirrors: Vec::new(),
            backends: Vec::new(),
            is_routed_by_model: false,
            serves_unmatched: true,
            needs_info: true,
        }
    }

    /// Whether some request may be for an AIService.
    pub(super) fn asks_models(&self) -> bool {
        let is_model = |share: &CompiledBackend| matches!(share.target, CompiledTarget::AiService(..));
        self.is_routed_by_model || self.backends.iter().any(is_model)
    }

    /// Whether something on the way of a request may hold its body, and with it memory: plugins, AIServices,
    /// limits.
    pub(crate) fn may_hold_bodies(&self) -> bool {
        let read = |limits: Option<&RateLimits>| limits.is_some_and(RateLimits::read_bodies);
        let holds = |share: &CompiledBackend| share.plugins.is_some() || read(share.rate_limits.as_ref());
        self.plugins.is_some()
            || read(self.rate_limits.as_ref())
            || self.asks_models()
            || self.backends.iter().any(holds)
    }

    /// Whether it is one of a GRPCRoute.
    pub(crate) fn is_of_calls(&self) -> bool {
        self.place.id.kind == ir::RouteKind::Grpc
    }
}
