//! Any interleaving of arrivals, polls, departures and refills, against a model of a queue that is a list.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use nantian_ratelimit::{
    HeldBytes, Limit, Limiter, OnLimit, Policy, Queue, RateLimitLayer, Scope, ScopePart,
};
use proptest::prelude::*;
use tokio::task::unconstrained;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt, service_fn};

use crate::queue::Paused;

const CAPACITY: u64 = 3;
const PLACES: usize = 4;
const BYTES: u64 = 100;

#[derive(Debug, Clone)]
enum Step {
    /// One more request comes, with so many bytes in its hands.
    Arrive(u64),
    Poll(usize),
    Leave(usize),
    /// So many more fit.
    Refill(u64),
}

type Answer = Pin<Box<dyn Future<Output = u16>>>;

/// A request that is on its way, and what the model knows of it.
struct Asking {
    answer: Answer,
    held: u64,
    is_waiting: bool,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..60u64).prop_map(Step::Arrive),
        6 => (0..8usize).prop_map(Step::Poll),
        3 => (0..8usize).prop_map(Step::Leave),
        2 => (1..3u64).prop_map(Step::Refill),
    ]
}

fn limiter() -> Limiter {
    let queue = Queue::default()
        .with_places(PLACES, PLACES)
        .with_held_bytes(BYTES)
        .with_max_wait(Duration::from_secs(24 * 3600));
    let limit = Limit::requests_per_minute(CAPACITY);
    let policy = Policy::builder().limit(limit).on_limit(OnLimit::Queue(queue)).scope(Scope::global());
    Limiter::builder(policy.build().unwrap()).clock(Paused(Instant::now())).build()
}

/// Time in which one more fits.
const ONE: Duration = Duration::from_secs(60 / CAPACITY);

async fn check(steps: Vec<Step>) {
    let limiter = limiter();
    let layer = RateLimitLayer::new(limiter.clone());
    let ask = |held: u64| -> Answer {
        let service =
            layer.layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new()))));
        let request = Request::builder().extension(HeldBytes(held)).body(()).unwrap();
        Box::pin(async move { service.oneshot(request).await.unwrap().status().as_u16() })
    };
    let mut context = Context::from_waker(Waker::noop());
    // Those that were polled and wait are in the order of their first polls.
    let mut queue: Vec<Asking> = Vec::new();
    let mut fresh: Vec<Asking> = Vec::new();
    let mut room = CAPACITY;
    for step in steps {
        match step {
            Step::Arrive(held) => fresh.push(Asking { answer: ask(held), held, is_waiting: false }),
            Step::Refill(count) => {
                advance(ONE * u32::try_from(count).unwrap()).await;
                room = CAPACITY.min(room + count);
            }
            Step::Leave(which) => {
                let count = queue.len() + fresh.len();
                match which.checked_rem(count) {
                    Some(which) if which < queue.len() => drop(queue.remove(which)),
                    Some(which) => drop(fresh.remove(which - queue.len())),
                    None => {}
                }
            }
            Step::Poll(which) => {
                let Some(which) = which.checked_rem(queue.len() + fresh.len()) else { continue };
                let (mut asking, place) = if which < queue.len() {
                    (queue.remove(which), which)
                } else {
                    (fresh.remove(which - queue.len()), queue.len())
                };
                let before: u64 = queue.iter().map(|other| other.held).sum();
                // All have one key, which has all there is.
                let fits = queue.len() < PLACES && (asking.held == 0 || before + asking.held <= BYTES);
                let expected = if place == 0 && room > 0 && (asking.is_waiting || queue.is_empty()) {
                    room -= 1;
                    Poll::Ready(200)
                } else if asking.is_waiting || fits {
                    Poll::Pending
                } else {
                    Poll::Ready(429)
                };
                assert_eq!(asking.answer.as_mut().poll(&mut context), expected, "place {place}, room {room}");
                if expected.is_pending() {
                    asking.is_waiting = true;
                    queue.insert(place, asking);
                }
            }
        }
    }
    drop((queue, fresh));
    let mut hasher = limiter.hasher();
    hasher.part(&ScopePart::Global, Some(b""));
    let levels = limiter.levels(hasher.finish());
    assert_eq!(levels.tightest().unwrap().remaining, room, "whoever left has cost nothing");
    for _ in 0..room {
        assert_eq!(ask(0).as_mut().poll(&mut context), Poll::Ready(200), "nobody is before it");
    }
    let mut all = ask(BYTES);
    assert!(all.as_mut().poll(&mut context).is_pending(), "nobody holds anything");
    let mut rest: Vec<_> = (1..PLACES).map(|_| ask(0)).collect();
    assert!(
        rest.iter_mut().all(|other| other.as_mut().poll(&mut context).is_pending()),
        "all places are free"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn lines_are_as_a_list_and_nobody_who_leaves_leaves_anything_behind(
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(unconstrained(check(steps)));
    }
}
