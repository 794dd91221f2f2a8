//! Who waits behind whom, and for what.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use nantian_ratelimit::{
    Cost, Denied, EstimatedTokens, Limit, Limiter, MaxWait, OnLimit, Policy, Queue, RateLimitLayer,
};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::layer::echo;
use crate::queue::Paused;

fn limiter(limits: impl IntoIterator<Item = Limit>, queue: Queue) -> Limiter {
    let policy = limits.into_iter().fold(Policy::builder(), |policy, limit| policy.limit(limit));
    let policy = policy.on_limit(OnLimit::Queue(queue)).scope("header:x".parse().unwrap());
    Limiter::builder(policy.build().unwrap()).clock(Paused(Instant::now())).build()
}

fn asking(tokens: u64) -> Request<()> {
    Request::builder().header("x", "a").extension(EstimatedTokens(tokens)).body(()).unwrap()
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_tokens_waits_behind_nobody_who_waits_for_them() {
    let limiter = limiter([Limit::requests_per_minute(600), Limit::tokens_per_minute(60)], Queue::default());
    let layer = RateLimitLayer::new(limiter);
    let ask = |tokens: u64| {
        let answer = layer.layer(service_fn(echo)).oneshot(asking(tokens));
        async move { answer.await.unwrap().status().as_u16() }
    };
    assert_eq!(ask(60).await, 200);
    let mut chat = pin!(ask(20));
    assert!(chat.as_mut().poll(&mut context()).is_pending());
    for _ in 0..200 {
        let mut page = pin!(ask(0));
        assert_eq!(page.as_mut().poll(&mut context()), Poll::Ready(200));
    }
    let begun = Instant::now();
    assert_eq!(chat.await, 200);
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_tokens_waits_behind_no_body_that_is_still_to_be_read() {
    let limiter = limiter([Limit::requests_per_minute(600), Limit::tokens_per_minute(60)], Queue::default());
    let layer = RateLimitLayer::new(limiter).cost_estimator(|request: &http::request::Parts, _| {
        let tokens = request.extensions.get().map_or(0, |EstimatedTokens(tokens)| *tokens);
        Cost::tokens(tokens)
    });
    let begin = |tokens: u64| {
        let layer = layer.clone();
        async move { layer.begin(&mut asking(tokens).into_parts().0).await.map(drop).is_ok() }
    };
    assert_eq!(layer.layer(service_fn(echo)).oneshot(asking(60)).await.unwrap().status(), 200);
    let mut chat = pin!(begin(1));
    assert!(chat.as_mut().poll(&mut context()).is_pending());
    let mut page = pin!(begin(0));
    assert_eq!(page.as_mut().poll(&mut context()), Poll::Ready(true));
    assert!(chat.await);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_is_told_of_a_limit_that_it_needs() {
    let limits = [Limit::requests_per_minute(600), Limit::tokens_per_minute(60)];
    let layer = RateLimitLayer::new(limiter(limits, Queue::default().with_places(1, 1)));
    let costs = |request: &http::request::Parts, _| {
        let tokens = request.extensions.get().map_or(0, |EstimatedTokens(tokens)| *tokens);
        Cost::new(0, tokens)
    };
    let layer = layer.cost_estimator(costs);
    let ask = |tokens: u64| layer.layer(service_fn(echo)).oneshot(asking(tokens));
    assert_eq!(ask(50).await.unwrap().status(), 200);
    let mut long = pin!(ask(30));
    assert!(long.as_mut().poll(&mut context()).is_pending());
    let refused = ask(10).await.unwrap();
    assert_eq!(refused.status(), 429);
    let denied = refused.extensions().get::<Denied>().unwrap();
    assert_eq!(
        denied.limit().name().as_str(),
        "tokens-per-minute",
        "of which there are some, for whoever is next"
    );
}

#[tokio::test(start_paused = true)]
async fn who_has_less_time_than_the_queue_is_refused_at_once_what_comes_later() {
    let layer = RateLimitLayer::new(limiter([Limit::requests_per_minute(60)], Queue::default()));
    let ask = |patience: u64| {
        let mut request = asking(0);
        request.extensions_mut().insert(MaxWait::from_now(Duration::from_secs(patience)));
        layer.layer(service_fn(echo)).oneshot(request)
    };
    for _ in 0..60 {
        assert_eq!(ask(9).await.unwrap().status(), 200);
    }
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut patient = Box::pin(ask(60));
        assert!(patient.as_mut().poll(&mut context()).is_pending());
        waiting.push(patient);
    }
    let begun = Instant::now();
    let refused = ask(3).await.unwrap();
    assert_eq!((refused.status(), begun.elapsed()), (StatusCode::TOO_MANY_REQUESTS, Duration::ZERO));
    assert_eq!(refused.headers()["retry-after"], "5");
    let late = {
        let mut request = asking(0);
        request.extensions_mut().insert(MaxWait::from_now(Duration::from_secs(5)));
        advance(Duration::from_secs(4)).await;
        layer.layer(service_fn(echo)).oneshot(request)
    };
    for patient in waiting.iter_mut().take(4) {
        assert!(patient.as_mut().poll(&mut context()).is_ready());
    }
    let begun = Instant::now();
    assert_eq!(late.await.unwrap().status(), 429, "in a second it is the turn of another one");
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

/// A service for one request at a time, which takes its place as it becomes ready.
struct OneAtATime {
    free: Arc<AtomicUsize>,
    is_ready: bool,
}

impl Clone for OneAtATime {
    fn clone(&self) -> Self {
        Self { free: Arc::clone(&self.free), is_ready: false }
    }
}

impl Drop for OneAtATime {
    fn drop(&mut self) {
        self.free.fetch_add(usize::from(self.is_ready), Ordering::Relaxed);
    }
}

impl Service<Request<()>> for OneAtATime {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !self.is_ready && self.free.load(Ordering::Relaxed) == 0 {
            return Poll::Pending;
        }
        self.free.fetch_sub(usize::from(!self.is_ready), Ordering::Relaxed);
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(self.is_ready, "it is not called before it is ready");
        self.is_ready = false;
        self.free.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(String::new())))
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_keeps_no_place_of_the_service_that_others_need() {
    let layer = RateLimitLayer::new(limiter([Limit::requests_per_minute(60)], Queue::default()));
    let inner = OneAtATime { free: Arc::new(AtomicUsize::new(1)), is_ready: false };
    let mut service = layer.layer(inner.clone());
    let of = |key: &str| Request::builder().header("x", key).body(()).unwrap();
    for _ in 0..60 {
        assert_eq!(service.ready().await.unwrap().call(of("mallory")).await.unwrap().status(), 200);
    }
    let mut waiting = Box::pin(service.ready().await.unwrap().call(of("mallory")));
    assert!(waiting.as_mut().poll(&mut context()).is_pending());
    let mut other = layer.layer(inner.clone());
    assert!(other.poll_ready(&mut context()).is_ready(), "nobody else is kept out");
    advance(Duration::from_secs(1)).await;
    assert!(waiting.as_mut().poll(&mut context()).is_pending(), "its turn has come, but there is no place");
    assert_eq!(other.call(of("alice")).await.unwrap().status(), 200);
    assert!(waiting.as_mut().poll(&mut context()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_the_service_has_a_place_has_cost_nothing() {
    let limiter = limiter([Limit::requests_per_minute(60)], Queue::default());
    let layer = RateLimitLayer::new(limiter.clone());
    let inner = OneAtATime { free: Arc::new(AtomicUsize::new(1)), is_ready: false };
    let mut service = layer.layer(inner.clone());
    let of = || Request::builder().header("x", "alice").body(()).unwrap();
    for _ in 0..60 {
        service.ready().await.unwrap().call(of()).await.unwrap();
    }
    let mut waiting = Box::pin(service.ready().await.unwrap().call(of()));
    assert!(waiting.as_mut().poll(&mut context()).is_pending());
    let mut other = inner.clone();
    assert!(other.poll_ready(&mut context()).is_ready(), "the only place is taken");
    advance(Duration::from_secs(1)).await;
    assert!(waiting.as_mut().poll(&mut context()).is_pending(), "its turn has come, but there is no place");
    drop((waiting, other));
    let mut again = Box::pin(service.ready().await.unwrap().call(of()));
    assert!(again.as_mut().poll(&mut context()).is_ready(), "what it was charged is back");
    let mut next = Box::pin(service.ready().await.unwrap().call(of()));
    assert!(next.as_mut().poll(&mut context()).is_pending(), "one came back, and no more");
}
