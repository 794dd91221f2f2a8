//! The intermediate representation: what the gateway should serve, as plain data.
//!
//! The translator writes it, the compiler reads it, `/config` shows it. Of Kubernetes it knows nothing but
//! the choices that the kinds of nantian-crd offer. It holds no `Arc`, no atomic and no clock, and two equal
//! values mean the same behaviour.

mod backend;
mod controller_name;
mod cors;
mod filter;
mod listener;
mod name;
mod policy;
mod redact;
mod route;
mod session;
mod shown;
mod tls;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use self::{
    backend::{
        Address, Backend, BackendId, ConsistentHash, Endpoint, HashKey, LoadBalancing, Protocol, Strategy,
    },
    controller_name::{ControllerName, InvalidControllerName},
    cors::{Cors, Names, OriginPattern},
    filter::{Filter, HeaderModifier, PathRewrite, Redirect, RedirectScheme, UrlRewrite},
    listener::{
        Attachment, Certificate, Listener, ListenerId, ListenerProtocol, Port, RouteHost, SocketProtocol,
        Transport,
    },
    name::{HostPattern, ObjectName, PolicyId},
    policy::{
        AiAuth, AiService, CallGrants, Collector, CollectorKind, Plugin, PluginSource, RateLimit, Retry,
        RetryBackoff, Sandbox, Secret,
    },
    route::{
        KeyMatch, Mirror, PathMatch, Policies, Route, RouteId, RouteKind, RouteMatch, RouteRetry, Rule,
        Share, Target, Timeouts, ValueMatch, WeightedBackend,
    },
    session::{SessionCarrier, SessionPersistence},
    tls::{Authorities, BackendTls, BackendTransport, ClientValidation, SubjectName},
};
pub(crate) use self::{
    policy::public,
    redact::{REDACTED, is_sensitive},
};

/// Everything that the gateway should serve in one generation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ir {
    /// The sockets to bind, in the order of address and port.
    pub ports: Vec<Port>,
    /// Every attached route, oldest first, then by namespace and name: the order that breaks ties.
    pub routes: Vec<Route>,
    /// The upstream Services that some rule refers to.
    pub backends: BTreeMap<BackendId, Backend>,
    /// The endpoints of each backend, apart from [`Backend`] so that churn never recompiles a route.
    pub endpoints: BTreeMap<BackendId, Vec<Endpoint>>,
    /// The AI services that some rule refers to.
    pub ai_services: BTreeMap<ObjectName, AiService>,
    /// The limits that something refers to.
    pub rate_limits: BTreeMap<PolicyId, RateLimit>,
    /// Every TokenPolicy that there is: one that nothing refers to at present keeps what was used of it.
    #[serde(skip)]
    pub token_policies: BTreeSet<PolicyId>,
    /// The plugins that something refers to.
    pub plugins: BTreeMap<PolicyId, Plugin>,
}

impl Ir {
    /// The limits and plugins of every place.
    pub fn policies(&self) -> impl Iterator<Item = &Policies> {
        let listeners = self.ports.iter().flat_map(|port| &port.listeners).map(|listener| &listener.policies);
        let routes = self.routes.iter().map(|route| &route.policies);
        let rules = self.routes.iter().flat_map(|route| &route.rules);
        let shares = rules.clone().flat_map(|rule| &rule.backends).map(|share| &share.policies);
        let rules = rules.map(|rule| &rule.policies).chain(shares);
        let backends = self.backends.values().map(|backend| &backend.policies);
        let services = self.ai_services.values().map(|service| &service.policies);
        listeners.chain(routes).chain(rules).chain(backends).chain(services)
    }

    /// Whether the two differ in nothing but endpoints, balancing and policies that nothing refers to, which
    /// need no new snapshot.
    pub fn routes_like(&self, other: &Self) -> bool {
        let same_backends = self.backends.len() == other.backends.len()
            && self.backends.iter().zip(&other.backends).all(|((id, this), (other_id, that))| {
                id == other_id
                    && this.protocol == that.protocol
                    && this.transport == that.transport
                    && this.policies == that.policies
                    && this.load_balancing.is_in_place_of(&that.load_balancing)
            });
        same_backends
            && self.ports == other.ports
            && self.routes == other.routes
            && self.ai_services == other.ai_services
            && self.rate_limits == other.rate_limits
            && self.plugins == other.plugins
    }
}
