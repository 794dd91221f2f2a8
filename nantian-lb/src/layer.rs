//! Making balanced clients.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap};
use tower_layer::Layer;

use crate::balancer::Balancer;
use crate::blame::BlameAll;
use crate::respond::Responder;
use crate::service::{Balance, Options};
use crate::session::Sessions;

/// Puts a [`Balance`] in front of a service that sends a request to a given target.
#[derive(Clone)]
pub struct BalanceLayer<T: Send + Sync, J = BlameAll> {
    balancer: Balancer<T>,
    blame: J,
    options: Options,
}

// === impl BalanceLayer ===

impl<T: Send + Sync> BalanceLayer<T> {
    /// Picks from this balancer; without an endpoint, answers as
    /// [`DefaultResponder`](crate::respond::DefaultResponder) does.
    #[must_use]
    pub fn new(balancer: Balancer<T>) -> Self {
        Self { balancer, blame: BlameAll, options: Options::default() }
    }
}

impl<T: Send + Sync, J> BalanceLayer<T, J> {
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
    /// with the client's own body, say, does not: where bodies pass as they come, clients who break off five
    /// uploads in a row have an endpoint ejected otherwise. Of hyper-util's client these are errors of which
    /// the source, a `hyper::Error`, says `is_user`, as the example `hyper_reverse_proxy` of Nantian shows.
    ///
    /// ```
    /// use std::io;
    /// use nantian_lb::{BalanceConfig, BalanceLayer, Balancer, Endpoint, Routed};
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let balancer = Balancer::new([Endpoint::new("a", "10.0.0.1:8080")], &BalanceConfig::default());
    /// # let client = service_fn(async |_: Routed<&str, http::Request<()>>| {
    /// #     Err::<http::Response<String>, _>(io::Error::from(io::ErrorKind::BrokenPipe))
    /// # });
    /// let layer = BalanceLayer::new(balancer).blame(|error: &io::Error| error.kind() != io::ErrorKind::BrokenPipe);
    /// let error = layer.layer(client).oneshot(http::Request::new(())).await.unwrap_err();
    /// # assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    /// # }
    /// ```
    ///
    /// A closure that takes another error than that of the inner service does not compile:
    ///
    /// ```compile_fail,E0631
    /// # use std::io;
    /// # use nantian_lb::{BalanceConfig, BalanceLayer, Balancer, Endpoint, Routed};
    /// # use tower::{Layer, Service, service_fn};
    /// # fn serve(_: impl Service<http::Request<()>>) {}
    /// # let balancer = Balancer::new([Endpoint::new("a", "10.0.0.1:8080")], &BalanceConfig::default());
    /// # let client = service_fn(async |_: Routed<&str, http::Request<()>>| {
    /// #     Err::<http::Response<String>, _>(io::Error::from(io::ErrorKind::BrokenPipe))
    /// # });
    /// let layer = BalanceLayer::new(balancer).blame(|_: &http::Error| true);
    /// serve(layer.layer(client));
    /// ```
    #[must_use]
    pub fn blame<E, F>(self, blame: F) -> BalanceLayer<T, F>
    where
        F: Fn(&E) -> bool + Clone,
    {
        BalanceLayer { balancer: self.balancer, blame, options: self.options }
    }

    /// Holds an endpoint to have failed if a request to it is given up, which is dropped, after this long
    /// without the head of a response; without it, only if an [`AttemptTimeout`](crate::AttemptTimeout) says
    /// so.
    ///
    /// For time limits further out that drop what they wait for, as tower's `Timeout` and `AiLayer` of
    /// `nantian-ai` do: an endpoint that takes requests and never answers would be asked for ever. It is to
    /// be somewhat less than theirs, which begin earlier. Clients who wait that long and leave speak against
    /// the endpoint, too, and so does one who takes that long to send its body, unless it was read before.
    ///
    /// Time is that of the balancer's [`Clock`](crate::clock::Clock). Default: none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use nantian_lb::{BalanceConfig, BalanceLayer, Balancer, Endpoint, Routed, health::OutlierConfig};
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let send = service_fn(async |_: Routed<&str, http::Request<()>>| {
    /// #     std::future::pending::<Result<http::Response<String>, std::io::Error>>().await
    /// # });
    /// let config = BalanceConfig::default().with_outlier(OutlierConfig::new());
    /// let balancer = Balancer::new([Endpoint::new("a", "10.0.0.1:8080")], &config);
    /// let client = BalanceLayer::new(balancer.clone()).blame_after(Duration::from_millis(2)).layer(send);
    ///
    /// // Nobody answers, and five in a row are enough.
    /// for _ in 0..5 {
    ///     let response = client.clone().oneshot(http::Request::new(()));
    ///     tokio::time::timeout(Duration::from_millis(4), response).await.unwrap_err();
    /// }
    /// assert_eq!(balancer.status()[0].ejections, 1);
    /// # }
    /// ```
    #[must_use]
    pub fn blame_after(mut self, limit: Duration) -> Self {
        self.options.late_after = Some(limit);
        self
    }

    /// Sets who writes the response to a request for which there is no endpoint.
    #[must_use]
    pub fn responder(mut self, responder: impl Responder + 'static) -> Self {
        self.options.responder = Some(Arc::new(responder));
        self
    }
}

impl<S, T: Send + Sync, J: Clone> Layer<S> for BalanceLayer<T, J> {
    type Service = Balance<T, S, J>;

    fn layer(&self, inner: S) -> Self::Service {
        Balance::new(self.balancer.clone(), inner, self.blame.clone(), self.options.clone())
    }
}

impl<T: Send + Sync, J> fmt::Debug for BalanceLayer<T, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceLayer")
            .field("balancer", &self.balancer)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
