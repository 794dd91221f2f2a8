//! Making balanced clients.

use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{Extensions, HeaderMap};
use tower_layer::Layer;

use crate::balancer::Balancer;
use crate::respond::DefaultResponder;
use crate::service::{Balance, Options};
use crate::session::Sessions;

/// Puts a [`Balance`] in front of a service that sends a request to a given target.
#[derive(Clone)]
pub struct BalanceLayer<T: Send + Sync, R = DefaultResponder> {
    balancer: Balancer<T>,
    options: Options,
    responder: R,
}

// === impl BalanceLayer ===

impl<T: Send + Sync> BalanceLayer<T> {
    /// Picks from this balancer; without an endpoint, answers as [`DefaultResponder`] does.
    #[must_use]
    pub fn new(balancer: Balancer<T>) -> Self {
        Self { balancer, options: Options::default(), responder: DefaultResponder }
    }
}

impl<T: Send + Sync, R> BalanceLayer<T, R> {
    /// Finds the client's address by the headers and extensions of the request, and not in the extension
    /// [`ClientAddr`](crate::ClientAddr). It is asked only if the strategy needs it; `None` is an address
    /// that is unknown.
    #[must_use]
    pub fn client_ip(
        mut self,
        client_ip: impl Fn(&HeaderMap, &Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.options.client_ip = Some(Arc::new(client_ip));
        self
    }

    /// Keeps clients with their endpoints.
    ///
    /// A session that is found in the extensions of the request, as [`Session`](crate::session::Session),
    /// counts as if the request carried its token.
    #[must_use]
    pub fn sessions(mut self, sessions: Sessions) -> Self {
        self.options.sessions = Some(sessions);
        self
    }

    /// Tells which errors of the inner service speak against the endpoint; without it all do. What went wrong
    /// with the client's own body, say, does not.
    #[must_use]
    pub fn blame<E: 'static>(mut self, blame: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        let blame = move |error: &dyn Any| error.downcast_ref().is_none_or(&blame);
        self.options.blame = Some(Arc::new(blame));
        self
    }

    /// Sets who writes the response to a request for which there is no endpoint.
    #[must_use]
    pub fn responder<R2>(self, responder: R2) -> BalanceLayer<T, R2> {
        BalanceLayer { balancer: self.balancer, options: self.options, responder }
    }
}

impl<S, T: Send + Sync, R: Clone> Layer<S> for BalanceLayer<T, R> {
    type Service = Balance<T, S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Balance::new(self.balancer.clone(), inner, self.options.clone(), self.responder.clone())
    }
}

impl<T: Send + Sync, R: fmt::Debug> fmt::Debug for BalanceLayer<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceLayer")
            .field("balancer", &self.balancer)
            .field("options", &self.options)
            .field("responder", &self.responder)
            .finish()
    }
}
