//! What it costs to find the rule of a request, by the number of routes.

#![expect(clippy::expect_used, reason = "a bench that cannot set up its world must stop")]

use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use nantian_gateway::{
    ir::{HostPattern, KeyMatch, PathMatch, RouteHost, RouteMatch, ValueMatch},
    route::{RequestHead, Router, RouterBuilder, RuleIndex},
};

const RULES: u32 = 10;

/// More words than the caches hold: 64 MiB.
const CACHES: usize = 8 << 20;

fn main() {
    divan::main();
}

/// `routes` routes of ten rules; every tenth route is for any host, the others have one of their own.
fn router(routes: u32) -> Router {
    let mut builder = RouterBuilder::default();
    let listener = HostPattern::Any;
    for route in 0..routes {
        let host = match route % 10 {
            0 => HostPattern::Any,
            1 => HostPattern::parse(&format!("*.wild{route}.example.com")),
            _ => HostPattern::parse(&format!("host{route}.example.com")),
        };
        let host = RouteHost { own: host.clone(), host };
        for rule in 0..RULES {
            let path = PathMatch::Prefix(format!("/app{route}/v{rule}"));
            let headers = match rule % 3 {
                0 => vec![KeyMatch {
                    name: HeaderName::from_static("x-version"),
                    value: ValueMatch::Exact(format!("{rule}")),
                }],
                _ => Vec::new(),
            };
            let found = RouteMatch { path, headers, ..RouteMatch::default() };
            builder
                .add(&listener, &host, &found, false, RuleIndex(route * RULES + rule))
                .expect("a valid match");
        }
    }
    builder.build()
}

/// The head of a request, without what all of them share.
#[derive(Clone)]
struct Request {
    host: String,
    path: String,
}

/// One request for each route.
fn requests(routes: u32) -> Vec<Request> {
    let request = |route: u32| {
        let host = match route % 10 {
            0 => "elsewhere.example.org".to_owned(),
            1 => format!("a.b.wild{route}.example.com"),
            _ => format!("host{route}.example.com"),
        };
        Request { host, path: format!("/app{route}/v{}/items/42", route % RULES) }
    };
    (0..routes).map(request).collect()
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("example.com"));
    headers.insert("x-version", HeaderValue::from_static("3"));
    headers
}

fn find(router: &Router, Request { host, path }: &Request, headers: &HeaderMap) -> Option<RuleIndex> {
    let head = RequestHead { host, path, query: Some("a=b"), method: &Method::GET, headers };
    router.find(black_box(&head)).ok()?
}

/// One request after the other, spread over all routes, which are met again and again.
#[divan::bench(args = [10, 100, 1000], sample_count = 100, sample_size = 20_000)]
fn warm(bencher: Bencher<'_, '_>, routes: u32) {
    let (router, requests, headers) = (router(routes), requests(routes), headers());
    let mut next = requests.iter().cycle();
    bencher.bench_local(|| next.next().map(|request| find(&router, request, &headers)));
}

/// Ten requests for ten routes after the caches were filled with something else: what ten searches cost whose
/// memory is touched for the first time.
#[divan::bench(args = [10, 100, 1000], sample_count = 200, sample_size = 1)]
fn cold(bencher: Bencher<'_, '_>, routes: u32) {
    let (router, requests, headers) = (router(routes), requests(routes), headers());
    let mut something_else = vec![0_u64; CACHES];
    let mut next = requests.iter().step_by(requests.len().div_ceil(10) | 1).cycle();
    bencher
        .with_inputs(|| {
            something_else.iter_mut().for_each(|word| *word = black_box(*word + 1));
            let batch: Vec<Request> = next.by_ref().take(10).map(Request::clone).collect();
            batch
        })
        .bench_local_refs(|batch| {
            for request in batch {
                black_box(find(&router, request, &headers));
            }
        });
}
