//! nantian-lb beside tower's balancer and pingora-load-balancing.
//!
//! Every figure is for one request, from the choice of its endpoint to the end of the count, without network.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use crates_bench::{Table, Work, alone, exit, two_threads};
use http::{HeaderMap, HeaderName, Request, Response};
use nantian_lb::session::{SessionCarrier, SessionConfig, SessionKeys, SessionName, Sessions};
use nantian_lb::{
    BalanceConfig, BalanceLayer, Balancer, Endpoint, HashKey, Outcome, PickContext, PickError, Picked,
    Routed, Strategy,
};
use pingora_ketama::{Bucket, Continuum};
use pingora_load_balancing::selection::consistent::KetamaHashing;
use pingora_load_balancing::selection::{BackendSelection, Consistent, RoundRobin};
use pingora_load_balancing::{Backend, LoadBalancer};
use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma, PendingRequests};
use tower::{Layer, Service, service_fn};

const SIZES: [usize; 3] = [10, 100, 1000];
const KEYS: usize = 256;
const DECAY: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut table = Table::from_args();
    for n in SIZES {
        against_tower(&mut table, n);
    }
    for n in SIZES {
        against_pingora(&mut table, n);
    }
    by_itself(&mut table);
    exit(&table)
}

fn against_tower(table: &mut Table, n: usize) {
    let least = || balancer(Strategy::LeastRequest, n);
    let ewma = || balancer(Strategy::PEAK_EWMA, n);
    table.ratio(&format!("least request, shared, n={n} / tower pending requests"), Some(0.1), || {
        (shared(least()), tower_pending(n))
    });
    table.ratio(&format!("least request, picker, n={n} / tower pending requests"), Some(0.1), || {
        (picker(least()), tower_pending(n))
    });
    table.ratio(&format!("least request, tower service, n={n} / the same"), None, || {
        (served(least()), tower_pending(n))
    });
    table.ratio(&format!("peak EWMA, shared, n={n} / tower peak EWMA"), Some(0.1), || {
        (shared(ewma()), tower_ewma(n))
    });
    table.ratio(&format!("peak EWMA, picker, n={n} / tower peak EWMA"), Some(0.1), || {
        (picker(ewma()), tower_ewma(n))
    });
}

fn against_pingora(table: &mut Table, n: usize) {
    table.ratio(&format!("round robin, shared, n={n} / pingora round robin"), None, || {
        let peer = pingora::<RoundRobin>(n);
        (shared(balancer(Strategy::RoundRobin, n)), alone(move || drop(black_box(peer.select(b"", 256)))))
    });
    table.ratio(&format!("maglev, shared, n={n} / pingora ketama select"), Some(0.2), || {
        let (peer, keys, mut at) = (pingora::<Consistent>(n), keys(), 0);
        let select = move || drop(black_box(peer.select(&keys[next(&mut at)], 256)));
        (placed(balancer(by_header(), n)), alone(select))
    });
    table.ratio(&format!("maglev, picker, n={n} / pingora ketama select"), Some(0.2), || {
        let (peer, keys, mut at) = (pingora::<Consistent>(n), keys(), 0);
        let select = move || drop(black_box(peer.select(&keys[next(&mut at)], 256)));
        (placed_by_picker(balancer(by_header(), n)), alone(select))
    });
    table.ratio(&format!("maglev, picker, n={n} / bare ketama ring lookup"), None, || {
        let (ring, keys, mut at) = (Continuum::new(&buckets(n)), keys(), 0);
        let find = move || _ = black_box(ring.node(&keys[next(&mut at)]));
        (placed_by_picker(balancer(by_header(), n)), alone(find))
    });
    table.ratio(&format!("maglev, build, n={n} / pingora ketama build"), (n == 1000).then_some(0.5), || {
        let (endpoints, config): (Vec<_>, _) =
            (endpoints(n, |_| 1).collect(), BalanceConfig::new(by_header()));
        let backends = backends(n);
        (
            alone(move || drop(black_box(Balancer::new(endpoints.iter().cloned(), &config)))),
            alone(move || drop(black_box(KetamaHashing::build(&backends)))),
        )
    });
}

fn by_itself(table: &mut Table) {
    let skewed = |at: usize| if at.is_multiple_of(10) { 1000 } else { 99 };
    table.nanoseconds("weighted round robin, shared, n=1000, 10:1", 30.0, || {
        shared(Balancer::new(endpoints(1000, skewed), &BalanceConfig::new(Strategy::RoundRobin)))
    });
    table.nanoseconds("weighted round robin, picker, n=1000, 10:1", 30.0, || {
        picker(Balancer::new(endpoints(1000, skewed), &BalanceConfig::new(Strategy::RoundRobin)))
    });
    table.nanoseconds("session cookie verified and looked up, n=1000", 250.0, session);
    for (name, strategy) in [("least request", Strategy::LeastRequest), ("round robin", Strategy::RoundRobin)]
    {
        for n in SIZES {
            let limit = (n == 100 && strategy == Strategy::LeastRequest).then_some(2.0);
            table.ratio(&format!("{name}, shared, n={n}: two threads / one"), limit, || {
                let both = balancer(strategy.clone(), n);
                let each = both.clone();
                let twice = two_threads(move |_| {
                    let balancer = each.clone();
                    move || end(balancer.pick(&PickContext::new()))
                });
                (twice, shared(both))
            });
        }
    }
}

// === ours ===

fn endpoints(n: usize, weight: impl Fn(usize) -> u32) -> impl Iterator<Item = Endpoint<usize>> {
    (0..n).map(move |at| Endpoint::new(format!("shop/pod-{at}"), at).with_weight(weight(at)))
}

fn balancer(strategy: Strategy, n: usize) -> Balancer<usize> {
    Balancer::new(endpoints(n, |_| 1), &BalanceConfig::new(strategy))
}

fn by_header() -> Strategy {
    Strategy::ConsistentHash(HashKey::Header(HeaderName::from_static("x-user")))
}

/// A request at the endpoint that was picked, which is answered at once.
fn end(picked: Result<Picked<usize>, PickError>) {
    if let Ok(picked) = picked {
        let (target, mut in_flight) = picked.into_parts();
        black_box(target);
        in_flight.record(Outcome::Success);
    }
}

fn shared<'a>(balancer: Balancer<usize>) -> Work<'a> {
    alone(move || end(balancer.pick(&PickContext::new())))
}

fn picker<'a>(balancer: Balancer<usize>) -> Work<'a> {
    let mut picker = balancer.picker();
    alone(move || end(picker.pick(&PickContext::new())))
}

fn placed<'a>(balancer: Balancer<usize>) -> Work<'a> {
    let (requests, mut at) = (requests(), 0);
    alone(move || end(balancer.pick(&PickContext::new().with_keys(&requests[next(&mut at)]))))
}

fn placed_by_picker<'a>(balancer: Balancer<usize>) -> Work<'a> {
    let (requests, mut at, mut picker) = (requests(), 0, balancer.picker());
    alone(move || end(picker.pick(&PickContext::new().with_keys(&requests[next(&mut at)]))))
}

fn served<'a>(balancer: Balancer<usize>) -> Work<'a> {
    let upstream = service_fn(|routed: Routed<usize, _>| reply(routed.request));
    let mut client = BalanceLayer::new(balancer).layer(upstream);
    alone(move || assert!(send(&mut client)))
}

/// A request that carries a session's cookie among others, from the cookie to the endpoint.
#[expect(clippy::expect_used, reason = "a bench may fail")]
fn session<'a>() -> Work<'a> {
    let name = SessionName::new("session").expect("a cookie's name");
    let config = SessionConfig::new(name, SessionCarrier::Cookie(Default::default()));
    let keys = SessionKeys::new([[7; 32]]).expect("a key");
    let sessions = Sessions::new(config, "bench", &keys).expect("a valid configuration");
    let balancer = balancer(Strategy::RoundRobin, 1000);
    let now = SystemTime::now();

    let picked = balancer.pick(&PickContext::new()).expect("an endpoint");
    let mut answer = HeaderMap::new();
    sessions.write(&mut answer, now, None, picked.in_flight());
    let cookie = answer["set-cookie"].to_str().expect("text").split(';').next().expect("a pair").to_owned();
    let mut headers = HeaderMap::new();
    headers.insert("cookie", format!("theme=dark; {cookie}; lang=en").parse().expect("a header"));

    let home = picked.id().clone();
    drop(picked);
    alone(move || {
        let session = sessions.find(&headers, now).expect("the session");
        let picked = balancer.pick(&PickContext::seeded(0).with_session(&session)).expect("its endpoint");
        debug_assert_eq!(picked.id(), &home);
    })
}

// === tower ===

fn reply(_: Request<()>) -> Ready<Result<Response<String>, Infallible>> {
    ready(Ok(Response::new(String::new())))
}

/// Drives a request through a service that is always ready.
fn send<S: Service<Request<()>>>(service: &mut S) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if service.poll_ready(&mut cx).is_pending() {
        return false;
    }
    let response = pin!(service.call(Request::new(())));
    matches!(response.poll(&mut cx), Poll::Ready(Ok(_)))
}

fn tower_pending<'a>(n: usize) -> Work<'a> {
    let upstream = || PendingRequests::new(service_fn(reply), CompleteOnResponse::default());
    let mut client = p2c::Balance::new(ServiceList::new((0..n).map(move |_| upstream())));
    alone(move || assert!(send(&mut client)))
}

fn tower_ewma<'a>(n: usize) -> Work<'a> {
    let decay = DECAY.as_nanos() as f64;
    let rtt = Duration::from_millis(10);
    let upstream = move || PeakEwma::new(service_fn(reply), rtt, decay, CompleteOnResponse::default());
    let mut client = p2c::Balance::new(ServiceList::new((0..n).map(move |_| upstream())));
    alone(move || assert!(send(&mut client)))
}

// === pingora ===

fn address(at: usize) -> String {
    format!("10.0.{}.{}:8080", at / 250, at % 250 + 1)
}

fn buckets(n: usize) -> Vec<Bucket> {
    (0..n).filter_map(|at| Some(Bucket::new(address(at).parse().ok()?, 1))).collect()
}

fn backends(n: usize) -> BTreeSet<Backend> {
    (0..n).filter_map(|at| Backend::new(&address(at)).ok()).collect()
}

#[expect(clippy::expect_used, reason = "a bench may fail")]
fn pingora<S>(n: usize) -> Arc<LoadBalancer<S>>
where
    S: BackendSelection + 'static,
    S::Iter: pingora_load_balancing::selection::BackendIter,
{
    Arc::new(LoadBalancer::try_from_iter((0..n).map(address)).expect("addresses"))
}

// === keys ===

/// Keys of 40 bytes.
fn keys() -> [[u8; 40]; KEYS] {
    std::array::from_fn(|at| {
        let mut key = [b'u'; 40];
        key[..3].copy_from_slice(format!("{at:03}").as_bytes());
        key
    })
}

fn requests() -> [Request<()>; KEYS] {
    keys().map(|key| {
        let mut request = Request::new(());
        if let Ok(value) = http::HeaderValue::from_bytes(&key) {
            request.headers_mut().insert("x-user", value);
        }
        request
    })
}

fn next(at: &mut usize) -> usize {
    *at = (*at + 1) % KEYS;
    *at
}
