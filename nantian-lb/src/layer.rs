//! Making balanced clients.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::balancer::Balancer;
use crate::key::ClientIp;
use crate::respond::DefaultResponder;
use crate::service::Balance;

/// Puts a [`Balance`] in front of a service that sends a request to a given target.
#[derive(Clone)]
pub struct BalanceLayer<T, R = DefaultResponder> {
    balancer: Balancer<T>,
    client_ip: Option<Arc<dyn ClientIp>>,
    responder: R,
}

// === impl BalanceLayer ===

impl<T> BalanceLayer<T> {
    /// Picks from this balancer; without an endpoint, answers as [`DefaultResponder`] does.
    #[must_use]
    pub fn new(balancer: Balancer<T>) -> Self {
        Self { balancer, client_ip: None, responder: DefaultResponder }
    }
}

impl<T, R> BalanceLayer<T, R> {
    /// Finds the client's address in another place than the extension [`ClientAddr`](crate::ClientAddr).
    #[must_use]
    pub fn client_ip(mut self, client_ip: impl ClientIp + 'static) -> Self {
        self.client_ip = Some(Arc::new(client_ip));
        self
    }

    /// Answers with this [`Responder`](crate::Responder) when there is no endpoint.
    #[must_use]
    pub fn responder<R2>(self, responder: R2) -> BalanceLayer<T, R2> {
        BalanceLayer { balancer: self.balancer, client_ip: self.client_ip, responder }
    }
}

impl<S, T, R: Clone> Layer<S> for BalanceLayer<T, R> {
    type Service = Balance<T, S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Balance::new(self.balancer.clone(), inner, self.client_ip.clone(), self.responder.clone())
    }
}

impl<T, R: fmt::Debug> fmt::Debug for BalanceLayer<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceLayer")
            .field("balancer", &self.balancer)
            .field("client_ip", &self.client_ip.is_some())
            .field("responder", &self.responder)
            .finish()
    }
}
