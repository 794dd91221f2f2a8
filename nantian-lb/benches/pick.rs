//! What a pick costs with its guard, and what a balanced request costs beside tower's balancer.
//!
//! Every figure is per pick or request, from the choice to the end of the count. Run with
//! `cargo bench -p nantian-lb`.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use divan::Bencher;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use nantian_lb::session::{SessionConfig, SessionKeys, SessionName, Sessions};
use nantian_lb::{
    BalanceConfig, BalanceLayer, Balancer, Endpoint, HashKey, Outcome, PickContext, Routed, Strategy,
};
use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PendingRequests};
use tower::{Layer, Service, service_fn};

const SIZES: [usize; 3] = [10, 100, 1000];

fn main() {
    divan::main();
}

fn endpoints(n: usize, weight: impl Fn(usize) -> u32) -> impl Iterator<Item = Endpoint<usize>> {
    (0..n).map(move |at| Endpoint::new(format!("shop/pod-{at}"), at).with_weight(weight(at)))
}

fn balancer(strategy: Strategy, n: usize) -> Balancer<usize> {
    Balancer::new(endpoints(n, |_| 1), &BalanceConfig::new(strategy))
}

fn by_header() -> Strategy {
    Strategy::ConsistentHash(HashKey::Header(HeaderName::from_static("x-user")))
}

fn bench_shared(bencher: Bencher<'_, '_>, balancer: &Balancer<usize>) {
    bencher.bench(|| drop(balancer.pick(&PickContext::new())));
}

fn bench_worker(bencher: Bencher<'_, '_>, balancer: &Balancer<usize>) {
    let mut picker = balancer.picker();
    bencher.bench_local(|| drop(picker.pick(&PickContext::new())));
}

#[divan::bench_group(name = "shared by reference", threads = [1, 2], sample_size = 20_000)]
mod shared {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn round_robin(bencher: Bencher<'_, '_>, n: usize) {
        bench_shared(bencher, &balancer(Strategy::RoundRobin, n));
    }

    #[divan::bench(args = SIZES)]
    fn random(bencher: Bencher<'_, '_>, n: usize) {
        bench_shared(bencher, &balancer(Strategy::Random, n));
    }

    #[divan::bench(args = SIZES)]
    fn least_request(bencher: Bencher<'_, '_>, n: usize) {
        bench_shared(bencher, &balancer(Strategy::LeastRequest, n));
    }

    #[divan::bench(args = SIZES)]
    fn peak_ewma(bencher: Bencher<'_, '_>, n: usize) {
        bench_shared(bencher, &balancer(Strategy::PEAK_EWMA, n));
    }
}

#[divan::bench_group(name = "picker of one worker", sample_size = 20_000)]
mod worker {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn round_robin(bencher: Bencher<'_, '_>, n: usize) {
        bench_worker(bencher, &balancer(Strategy::RoundRobin, n));
    }

    #[divan::bench(args = SIZES)]
    fn round_robin_of_skewed_weights(bencher: Bencher<'_, '_>, n: usize) {
        let endpoints = endpoints(n, |at| if at % 10 == 0 { 1000 } else { 99 });
        let config = BalanceConfig::new(Strategy::RoundRobin);
        bench_worker(bencher, &Balancer::new(endpoints, &config));
    }

    #[divan::bench(args = SIZES)]
    fn random(bencher: Bencher<'_, '_>, n: usize) {
        bench_worker(bencher, &balancer(Strategy::Random, n));
    }

    #[divan::bench(args = SIZES)]
    fn least_request(bencher: Bencher<'_, '_>, n: usize) {
        bench_worker(bencher, &balancer(Strategy::LeastRequest, n));
    }

    #[divan::bench(args = SIZES)]
    fn peak_ewma_with_the_outcome(bencher: Bencher<'_, '_>, n: usize) {
        let mut picker = balancer(Strategy::PEAK_EWMA, n).picker();
        bencher.bench_local(|| {
            let picked = picker.pick(&PickContext::new());
            picked.map(|picked| picked.into_parts().1.record(Outcome::Success))
        });
    }

    #[divan::bench(args = SIZES)]
    fn consistent_hash_of_a_40_byte_header(bencher: Bencher<'_, '_>, n: usize) {
        let mut picker = balancer(by_header(), n).picker();
        let request = Request::builder().header("x-user", "u".repeat(40)).body(());
        let request = request.unwrap_or_default();
        bencher.bench_local(|| drop(picker.pick(&PickContext::new().with_keys(&request))));
    }
}

#[divan::bench_group(name = "a session, among 6 cookies", sample_size = 2000)]
mod session {
    use super::*;

    fn sessions() -> Option<Sessions> {
        let config = SessionConfig::cookie(SessionName::new("stay").ok()?);
        Sessions::new(config, "shop/1", &SessionKeys::new([[1; 32]]).ok()?).ok()
    }

    /// The headers of a client that stays with an endpoint.
    fn client(sessions: &Sessions, balancer: &Balancer<usize>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(picked) = balancer.pick(&PickContext::new()) {
            sessions.write(&mut headers, SystemTime::now(), None, picked.in_flight());
        }
        let set = headers.remove(SET_COOKIE);
        let token = set.as_ref().and_then(|set| set.to_str().ok()?.split(';').next());
        let cookies =
            format!("a=1; theme=dark; lang=en; id=0123456789abcdef; {}; b=2", token.unwrap_or_default());
        HeaderMap::from_iter(HeaderValue::try_from(cookies).map(|cookies| (COOKIE, cookies)))
    }

    #[divan::bench(args = SIZES)]
    fn opened_and_picked_by(bencher: Bencher<'_, '_>, n: usize) {
        let Some(sessions) = sessions() else { return };
        let balancer = balancer(Strategy::LeastRequest, n);
        let headers = client(&sessions, &balancer);
        let now = SystemTime::now();
        let mut picker = balancer.picker();
        bencher.bench_local(|| {
            let session = sessions.find(&headers, now);
            let picked =
                session.map(|session| picker.pick(&PickContext::new().with_session(&session)).is_ok());
            assert_eq!(picked, Some(true));
        });
    }
}

#[divan::bench_group(name = "building a set", sample_count = 20)]
mod building {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn least_request(n: usize) -> Balancer<usize> {
        balancer(Strategy::LeastRequest, n)
    }

    #[divan::bench(args = SIZES)]
    fn maglev(n: usize) -> Balancer<usize> {
        balancer(by_header(), n)
    }

    /// A round of n turns and more, which is written out.
    #[divan::bench(args = SIZES)]
    fn weighted_round_robin(n: usize) -> Balancer<usize> {
        let weights = |at| u32::try_from(at % 4).unwrap_or(0) + 1;
        Balancer::new(endpoints(n, weights), &BalanceConfig::new(Strategy::RoundRobin))
    }
}

#[divan::bench_group(name = "a request through the service, least loaded of two", sample_size = 5000)]
mod service {
    use super::*;

    fn reply(_: Request<()>) -> Ready<Result<Response<String>, Infallible>> {
        ready(Ok(Response::new(String::new())))
    }

    /// Drives a request whose service is always ready.
    fn send<S: Service<Request<()>>>(service: &mut S) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if service.poll_ready(&mut cx).is_pending() {
            return false;
        }
        let response = pin!(service.call(Request::new(())));
        matches!(response.poll(&mut cx), Poll::Ready(Ok(_)))
    }

    #[divan::bench(args = SIZES)]
    fn nantian(bencher: Bencher<'_, '_>, n: usize) {
        let upstream = service_fn(|routed: Routed<usize, _>| reply(routed.request));
        let mut client = BalanceLayer::new(balancer(Strategy::LeastRequest, n)).layer(upstream);
        bencher.bench_local(|| send(&mut client));
    }

    #[divan::bench(args = SIZES)]
    fn tower(bencher: Bencher<'_, '_>, n: usize) {
        let upstream = || PendingRequests::new(service_fn(reply), CompleteOnResponse::default());
        let upstreams = ServiceList::new((0..n).map(|_| upstream()));
        let mut client = p2c::Balance::new(upstreams);
        bencher.bench_local(|| send(&mut client));
    }

    #[divan::bench]
    fn unbalanced(bencher: Bencher<'_, '_>) {
        let mut client = service_fn(reply);
        bencher.bench_local(|| send(&mut client));
    }
}
