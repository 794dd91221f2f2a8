//! A rule's backends by weight.

use std::{
    task::{Context, Poll},
    time::SystemTime,
};

use http::{Request, Response, StatusCode};
use nantian_lb::{Balancer, session::Sessions};
use tower::Service;

use super::{BackendService, LocalFuture, LocalService};
use crate::{
    body::{Body, BoxError},
    respond,
    upstream::Destination,
    weighted::Weighted,
};

/// One service of a rule.
#[derive(Debug)]
pub(crate) struct Share {
    /// The share of the requests; with 0 it keeps its sessions and gets nothing else.
    pub(crate) weight: u32,
    /// Where they go.
    pub(crate) service: BackendService,
    /// Where its sessions are at home.
    pub(crate) home: Option<SessionHome>,
}

/// Where sessions are at home.
#[derive(Debug, Clone)]
pub(crate) struct SessionHome {
    /// The sessions.
    pub(crate) sessions: Sessions,
    /// The endpoints that they are with.
    pub(crate) balancer: Balancer<Destination>,
}

/// Sends each request to one of several services: that of its session, or else by weight.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    choices: Weighted<BackendService>,
    /// The services with sessions, if there are several services.
    homes: Vec<(SessionHome, BackendService)>,
    nothing: BackendService,
}

impl Backends {
    /// Shares requests out by weight; without any weight every request that has no session is answered with
    /// 500.
    pub(crate) fn new(shares: impl IntoIterator<Item = Share>) -> Self {
        let shares: Vec<_> = shares.into_iter().collect();
        let choices = Weighted::new(shares.iter().map(|share| (share.weight, share.service.clone())));
        let is_clear = shares.len() == choices.len() && choices.len() == 1;
        let homes = shares.into_iter().filter(|_| !is_clear);
        let homes = homes.filter_map(|share| Some((share.home?, share.service))).collect();
        Self { choices, homes, nothing: no_backend() }
    }

    /// The service that the session of the request is with, unless its endpoints are gone; further on the
    /// request carries the session itself and no token.
    fn resume(&self, request: &mut Request<Body>) -> Option<&BackendService> {
        let now = SystemTime::now();
        let found = self.homes.iter().find_map(|(home, service)| {
            let session = home.sessions.find(request.headers(), now)?;
            let is_there = home.sessions.owns(&session) && !home.balancer.is_empty();
            is_there.then_some((session, service))
        });
        for (home, _) in &self.homes {
            home.sessions.strip(request.headers_mut());
        }
        let (session, service) = found?;
        request.extensions_mut().insert(session);
        Some(service)
    }

    fn choose(&self) -> &BackendService {
        self.choices.choose().unwrap_or(&self.nothing)
    }
}

/// Answers 500, as Gateway API wants it where a reference does not resolve or there is none.
pub(super) fn no_backend() -> BackendService {
    LocalService::new(tower::service_fn(|_: Request<Body>| {
        let text = "this route has no valid backend";
        let answer = respond::plain_because(StatusCode::INTERNAL_SERVER_ERROR, text, text);
        std::future::ready(Ok(answer))
    }))
}

impl Service<Request<Body>> for Backends {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = LocalFuture<Response<Body>, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let kept = if self.homes.is_empty() { None } else { self.resume(&mut request) };
        kept.unwrap_or_else(|| self.choose()).call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answering(status: u16) -> BackendService {
        LocalService::new(tower::service_fn(move |_| {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            std::future::ready(Ok(response))
        }))
    }

    fn share(weight: u32, status: u16) -> Share {
        Share { weight, service: answering(status), home: None }
    }

    async fn shares(backends: &mut Backends, requests: usize) -> [usize; 3] {
        let mut shares = [0; 3];
        for _ in 0..requests {
            let response = backends.call(Request::default()).await.unwrap();
            shares[usize::from(response.status().as_u16() - 200)] += 1;
        }
        shares
    }

    #[tokio::test]
    async fn requests_are_shared_out_by_weight() {
        fastrand::seed(7);
        let mut backends = Backends::new([share(70, 200), share(30, 201), share(0, 202)]);
        let [first, second, third] = shares(&mut backends, 2000).await;
        assert!((1340..1460).contains(&first), "{first}");
        assert_eq!(first + second, 2000);
        assert_eq!(third, 0);
    }

    #[tokio::test]
    async fn without_a_weight_the_answer_is_500() {
        for mut backends in [Backends::new([]), Backends::new([share(0, 200)])] {
            let response = backends.call(Request::default()).await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        }
    }
}
