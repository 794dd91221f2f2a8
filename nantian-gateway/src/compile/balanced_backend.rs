//! A backend with its endpoints.

use std::sync::{Arc, Weak};

use nantian_lb::Balancer;

use crate::{
    ir::{self, BackendTransport},
    policy::{balance_config, endpoints},
    upstream::{Destination, Roots, Security, UpstreamTls},
};

/// The balancer of a backend, and what it was made of.
#[derive(Debug)]
pub(super) struct BalancedBackend {
    endpoints: Vec<ir::Endpoint>,
    protocol: ir::Protocol,
    transport: BackendTransport,
    load_balancing: ir::LoadBalancing,
    security: Security,
    balancer: Balancer<Destination>,
    registration: Arc<()>,
}

// === impl BalancedBackend ===

impl BalancedBackend {
    pub(super) fn new(backend: &ir::Backend, of_backend: &[ir::Endpoint], roots: &Roots) -> Self {
        let security = security(&backend.transport, roots);
        let targets = endpoints(of_backend, backend.protocol, &security);
        let balancer = Balancer::new(targets, &balance_config(&backend.load_balancing));
        Self {
            endpoints: of_backend.to_vec(),
            protocol: backend.protocol,
            transport: backend.transport.clone(),
            load_balancing: backend.load_balancing.clone(),
            security,
            balancer,
            registration: Arc::default(),
        }
    }

    /// Brings it up to date; the state of endpoints that stay is kept, and so are connections while TLS stays
    /// the same.
    pub(super) fn update(&mut self, backend: &ir::Backend, of_backend: &[ir::Endpoint], roots: &Roots) {
        let is_same_transport = self.transport == backend.transport;
        if is_same_transport
            && self.endpoints == of_backend
            && self.protocol == backend.protocol
            && self.load_balancing == backend.load_balancing
        {
            return;
        }
        if !is_same_transport {
            self.security = security(&backend.transport, roots);
        }
        let targets = endpoints(of_backend, backend.protocol, &self.security);
        self.balancer.update(targets, &balance_config(&backend.load_balancing));
        self.endpoints = of_backend.to_vec();
        self.protocol = backend.protocol;
        self.transport.clone_from(&backend.transport);
        self.load_balancing.clone_from(&backend.load_balancing);
    }

    pub(super) fn balancer(&self) -> &Balancer<Destination> {
        &self.balancer
    }

    /// The balancer, if something may be sent to what it picks.
    pub(super) fn usable(&self) -> Option<Balancer<Destination>> {
        (self.security != Security::Refused).then(|| self.balancer.clone())
    }

    /// Whether it is reached by nothing but TLS of clients that is passed on.
    pub(super) fn is_passthrough(&self) -> bool {
        self.transport == BackendTransport::Passthrough
    }

    /// Gone when the backend is none any more: nobody brings its balancer up to date from then on.
    pub(super) fn registration(&self) -> Weak<()> {
        Arc::downgrade(&self.registration)
    }

    /// How the backend is verified, if it is.
    pub(super) fn tls(&self) -> Option<&UpstreamTls> {
        self.security.tls()
    }
}

/// How connections are opened.
pub(super) fn security(transport: &BackendTransport, roots: &Roots) -> Security {
    match transport {
        BackendTransport::Plain => Security::Plain,
        BackendTransport::Tls(policy) => match UpstreamTls::of_backend(policy, roots) {
            Ok(tls) => Security::Tls(tls),
            // The translator accepts only what can be set up.
            Err(error) => {
                tracing::error!(error = %crate::respond::ErrorChain(&error), "a backend is not served");
                Security::Refused
            }
        },
        BackendTransport::Passthrough | BackendTransport::Refused => Security::Refused,
    }
}
