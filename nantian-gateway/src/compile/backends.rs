//! A rule's backends by weight.

use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use tower::Service;

use super::{LocalFuture, LocalService};
use crate::{
    body::{Body, BoxError},
    respond,
};

type BackendService = LocalService<Response<Body>, BoxError>;

/// Sends each request to one of several services, by weight.
#[derive(Debug, Clone)]
pub struct Backends {
    /// The running sum of weights, and the service up to there; weights of 0 are left out.
    choices: Vec<(u64, BackendService)>,
    nothing: BackendService,
}

impl Backends {
    /// Shares requests out by weight; without any weight every request is answered with 500.
    pub fn new(backends: impl IntoIterator<Item = (u32, BackendService)>) -> Self {
        let mut sum = 0;
        let weighted = backends.into_iter().filter(|(weight, _)| *weight > 0);
        let choices = weighted.map(|(weight, service)| {
            sum += u64::from(weight);
            (sum, service)
        });
        Self { choices: choices.collect(), nothing: no_backend() }
    }

    fn choose(&self) -> &BackendService {
        match self.choices.as_slice() {
            [] => &self.nothing,
            [(_, only)] => only,
            [.., (sum, last)] => {
                let point = fastrand::u64(..*sum);
                self.choices.iter().find(|(end, _)| point < *end).map_or(last, |(_, service)| service)
            }
        }
    }
}

/// Answers 500, as Gateway API wants it where a reference does not resolve or there is none.
pub(super) fn no_backend() -> BackendService {
    LocalService::new(tower::service_fn(|_: Request<Body>| {
        let answer = respond::plain(StatusCode::INTERNAL_SERVER_ERROR, "this route has no valid backend");
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.choose().call(request)
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
        let mut backends = Backends::new([(70, answering(200)), (30, answering(201)), (0, answering(202))]);
        let [first, second, third] = shares(&mut backends, 2000).await;
        assert!((1340..1460).contains(&first), "{first}");
        assert_eq!(first + second, 2000);
        assert_eq!(third, 0);
    }

    #[tokio::test]
    async fn without_a_weight_the_answer_is_500() {
        for mut backends in [Backends::new([]), Backends::new([(0, answering(200))])] {
            let response = backends.call(Request::default()).await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        }
    }
}
