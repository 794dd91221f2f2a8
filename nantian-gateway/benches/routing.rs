//! What it costs to find the rule of a request, by the number of routes.

#![expect(clippy::expect_used, reason = "a bench that cannot set up its world must stop")]

use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderValue, Method, header};
use nantian_gateway::{
    ir::{HostPattern, KeyMatch, PathMatch, RouteMatch, ValueMatch},
    route::{RequestHead, Router, RouterBuilder, RuleIndex},
};

const RULES: u32 = 10;

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
        for rule in 0..RULES {
            let path = PathMatch::Prefix(format!("/app{route}/v{rule}"));
            let headers = match rule % 3 {
                0 => vec![KeyMatch {
                    name: "x-version".to_owned(),
                    value: ValueMatch::Exact(format!("{rule}")),
                }],
                _ => Vec::new(),
            };
            let found = RouteMatch { path, headers, ..RouteMatch::default() };
            builder.add(&listener, &host, &found, RuleIndex(route * RULES + rule)).expect("a valid match");
        }
    }
    builder.build()
}

/// One request after the other, spread over all routes.
/// Enough requests that each route is met again and again: what counts is the search, not the first touch of its memory.
#[divan::bench(args = [10, 100, 1000], sample_count = 100, sample_size = 20_000)]
fn find(bencher: Bencher<'_, '_>, routes: u32) {
    let router = router(routes);
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("example.com"));
    headers.insert("x-version", HeaderValue::from_static("3"));
    let requests: Vec<(String, String)> = (0..routes)
        .map(|route| {
            let host = match route % 10 {
                0 => "elsewhere.example.org".to_owned(),
                1 => format!("a.b.wild{route}.example.com"),
                _ => format!("host{route}.example.com"),
            };
            (host, format!("/app{route}/v{}/items/42", route % RULES))
        })
        .collect();
    let mut next = requests.iter().cycle();
    bencher.bench_local(|| {
        let (host, path) = next.next()?;
        let head = RequestHead { host, path, query: Some("a=b"), method: &Method::GET, headers: &headers };
        router.find(black_box(&head))
    });
}
