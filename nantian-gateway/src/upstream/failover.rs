//! Another endpoint for a request that has reached none.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use nantian_lb::{Balancer, EndpointStatus, PickError, Readiness, Tried};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{Destination, Unanswered, UpstreamError, error::Unsent};
use crate::body::Body;

/// How many other endpoints are tried.
const OTHERS: usize = 4;

/// Sends a request of which nothing was written to another endpoint of `balancer`, whatever its method is.
///
/// No endpoint is tried twice: if the others are full or left out, it stays with the last error.
#[derive(Debug, Clone)]
pub(crate) struct FailoverLayer {
    balancer: Balancer<Destination>,
}

/// The service of [`FailoverLayer`].
#[derive(Clone)]
pub(crate) struct Failover<S> {
    shared: Rc<Shared<S>>,
}

struct Shared<S> {
    balanced: RefCell<S>,
    balancer: Balancer<Destination>,
}

// === impl FailoverLayer ===

impl FailoverLayer {
    /// For requests that `balancer` finds endpoints for.
    pub(crate) fn new(balancer: Balancer<Destination>) -> Self {
        Self { balancer }
    }
}

impl<S> Layer<S> for FailoverLayer {
    type Service = Failover<S>;

    fn layer(&self, balanced: S) -> Failover<S> {
        let balanced = RefCell::new(balanced);
        Failover { shared: Rc::new(Shared { balanced, balancer: self.balancer.clone() }) }
    }
}

// === impl Failover ===

impl<S, B> Service<Request<Body>> for Failover<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Unanswered>,
{
    type Response = S::Response;
    type Error = UpstreamError;
    type Future = FailoverFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        self.shared.balanced.borrow_mut().poll_ready(cx).map_err(|unanswered| unanswered.error)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let attempt = self.shared.balanced.borrow_mut().call(request);
        FailoverFuture { attempt, shared: Rc::clone(&self.shared), others: OTHERS, failed: None }
    }
}

pin_project! {
    /// The future of [`Failover`]; dropping it drops the present attempt, and no other is made.
    pub(crate) struct FailoverFuture<S>
    where
        S: Service<Request<Body>>,
    {
        #[pin]
        attempt: S::Future,
        shared: Rc<Shared<S>>,
        others: usize,
        failed: Option<UpstreamError>,
    }
}

// === impl FailoverFuture ===

impl<S, B> Future for FailoverFuture<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Unanswered>,
{
    type Output = Result<S::Response, UpstreamError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let Unanswered { error, unsent } = match ready!(this.attempt.as_mut().poll(cx)) {
                // An answer of the balancer's own: there was nobody else after all.
                Ok(response) if response.extensions().get::<PickError>().is_some() => {
                    return Poll::Ready(this.failed.take().map_or(Ok(response), Err));
                }
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(unanswered) => unanswered,
            };
            let is_worth_it = *this.others > 0 && error.is_worth_another();
            let again = unsent.filter(|_| is_worth_it).and_then(|unsent| this.shared.again(*unsent));
            let Some(request) = again else { return Poll::Ready(Err(error)) };
            tracing::debug!(error = %crate::respond::ErrorChain(&error), "another endpoint is tried");
            *this.others -= 1;
            *this.failed = Some(error);
            this.attempt.set(this.shared.balanced.borrow_mut().call(request));
        }
    }
}

// === impl Shared ===

impl<S> Shared<S> {
    /// The request, which passes over the endpoints that it has been sent to, if there is another one.
    fn again(&self, Unsent { mut request, destination }: Unsent) -> Option<Request<Body>> {
        let endpoints = self.balancer.status();
        let tried = request.extensions_mut().get_or_insert_default::<Tried>().clone().without_return();
        request.extensions_mut().insert(tried.clone());
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.target.address == destination.address) {
            tried.add(&endpoint.id);
        }
        let tried = tried.endpoints();
        let is_open = |endpoint: &EndpointStatus<_>| {
            endpoint.weight > 0 && endpoint.readiness == Readiness::Ready && !tried.contains(&endpoint.id)
        };
        endpoints.iter().any(is_open).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use std::{io, net::Ipv4Addr};

    use nantian_lb::{BalanceConfig, Endpoint, Routed, Strategy};
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::{
        ir::{Address, Protocol},
        policy::balance_layer,
        upstream::{Security, UpstreamBody},
    };

    fn destination(port: u16) -> Destination {
        let address = Address::Ip((Ipv4Addr::LOCALHOST, port).into());
        Destination { address, protocol: Protocol::Http1, security: Security::Plain }
    }

    fn balancer(endpoints: u16, config: &BalanceConfig) -> Balancer<Destination> {
        let all = (0..endpoints).map(|port| Endpoint::new(format!("e{port}"), destination(port)));
        Balancer::new(all, config)
    }

    /// The ports that a request is sent to, none of which can be reached, and the status of its answer, if it
    /// has one.
    async fn tried(
        balancer: Balancer<Destination>,
        why: io::ErrorKind,
    ) -> (Vec<Address>, Option<http::StatusCode>) {
        let tried = Rc::<RefCell<Vec<_>>>::default();
        let seen = Rc::clone(&tried);
        let connect =
            service_fn(move |Routed { target, request, .. }: Routed<Destination, Request<Body>>| {
                seen.borrow_mut().push(target.address.clone());
                let source = why.into();
                let error = UpstreamError::Connect { destination: target.to_string(), source };
                let unanswered = Unanswered::unsent(error, request, target);
                std::future::ready(Err::<Response<UpstreamBody>, _>(unanswered))
            });
        let balanced = balance_layer(&balancer, None).layer(connect);
        let failover = FailoverLayer::new(balancer).layer(balanced);
        let answer = failover.oneshot(Request::new(Body::full("abc"))).await;
        (tried.take(), answer.ok().map(|answer| answer.status()))
    }

    #[tokio::test]
    async fn a_few_endpoints_are_tried_and_none_twice() {
        // Ports that have run out towards one address are there for others.
        let reasons = [io::ErrorKind::ConnectionRefused, io::ErrorKind::AddrNotAvailable];
        for (endpoints, why) in [1, 2, 3, 20].into_iter().flat_map(|n| reasons.map(|why| (n, why))) {
            let balancer = balancer(endpoints, &BalanceConfig::new(Strategy::Random));
            let (tried, answer) = tried(balancer, why).await;
            assert_eq!(answer, None);
            assert_eq!(tried.len(), usize::from(endpoints).min(1 + OTHERS), "of {endpoints}");
            for (at, address) in tried.iter().enumerate() {
                assert!(!tried[..at].contains(address), "{address:?} twice");
            }
        }
    }

    #[tokio::test]
    async fn none_is_tried_twice_when_the_others_are_full_and_its_error_is_told() {
        let config = BalanceConfig::default().with_max_inflight_requests(std::num::NonZeroU32::MIN);
        let balancer = balancer(3, &config);
        let _held = [(); 2].map(|()| balancer.pick(&nantian_lb::PickContext::new()).unwrap());
        let (tried, answer) = tried(balancer, io::ErrorKind::ConnectionRefused).await;
        assert_eq!(tried.len(), 1, "{tried:?}");
        assert_eq!(answer, None);
    }
}
