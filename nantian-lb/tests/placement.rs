//! Consistent hashing as a client sees it: which part of the request decides, and where it leads.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::IpAddr;

use http::{HeaderName, Request};
use nantian_lb::{
    BalanceConfig, Balancer, ClientAddr, Endpoint, HashKey, PLACEMENT_VERSION, PickContext, Strategy,
};

fn balancer(key: HashKey) -> Balancer<usize> {
    let endpoints = (0..10).map(|at| Endpoint::new(format!("shop/pod-{at}"), at));
    Balancer::new(endpoints, &BalanceConfig::new(Strategy::ConsistentHash(key)))
}

fn by_header() -> Balancer<usize> {
    balancer(HashKey::Header(HeaderName::from_static("x-user")))
}

fn place(balancer: &Balancer<usize>, request: &Request<()>) -> usize {
    let context = PickContext::new().with_keys(request);
    *balancer.pick(&context).unwrap().target()
}

fn with_header(value: &str) -> Request<()> {
    Request::builder().header("X-User", value).body(()).unwrap()
}

fn from_client(ip: &str) -> Request<()> {
    let client: IpAddr = ip.parse().unwrap();
    Request::builder().extension(ClientAddr(client)).body(()).unwrap()
}

fn for_host(host: &str) -> Request<()> {
    Request::builder().header("host", host).body(()).unwrap()
}

fn spread(balancer: &Balancer<usize>, request: &Request<()>) -> usize {
    let mut places: Vec<_> = (0..200).map(|_| place(balancer, request)).collect();
    places.sort_unstable();
    places.dedup();
    places.len()
}

/// P3: the same on every machine.
#[test]
fn placement_is_that_of_its_version() {
    assert_eq!(PLACEMENT_VERSION, "nlb-h1");
    let by_header = by_header();
    let places: Vec<_> =
        (0..16).map(|user| place(&by_header, &with_header(&format!("user-{user}")))).collect();
    assert_eq!(places, [3, 1, 1, 2, 6, 8, 5, 8, 7, 2, 6, 7, 6, 8, 3, 2]);

    let by_client = balancer(HashKey::SourceIp);
    let places = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]
        .map(|ip| place(&by_client, &from_client(ip)));
    assert_eq!(places, [6, 8, 0, 1]);

    let by_host = balancer(HashKey::Hostname);
    let places = ["a.example", "b.example"].map(|host| place(&by_host, &for_host(host)));
    assert_eq!(places, [0, 6]);
}

#[test]
fn requests_of_one_user_reach_one_endpoint_whatever_else_differs() {
    let balancer = by_header();
    let mut request = with_header("  alice\t");
    request.headers_mut().append("x-user", "ignored".parse().unwrap());
    assert_eq!(place(&balancer, &request), place(&balancer, &with_header("alice")));
    assert_eq!(spread(&balancer, &request), 1);
}

#[test]
fn users_are_spread_over_all_endpoints() {
    let balancer = by_header();
    let mut counts = [0; 10];
    for user in 0..10_000 {
        counts[place(&balancer, &with_header(&format!("user-{user}")))] += 1;
    }
    assert!(counts.iter().all(|&count: &u32| count.abs_diff(1000) < 150), "{counts:?}");
}

#[test]
fn a_request_without_the_key_goes_to_the_less_loaded_endpoint() {
    let balancer = by_header();
    for keyless in [Request::new(()), with_header(""), with_header("   ")] {
        assert!(spread(&balancer, &keyless) > 1);
        let guards: Vec<_> =
            (0..50).map(|_| balancer.pick(&PickContext::new().with_keys(&keyless)).unwrap()).collect();
        let most = balancer.status().into_iter().map(|status| status.in_flight).max();
        assert!(most.unwrap() <= 8, "{most:?} of {} on one endpoint", guards.len());
    }
}

#[test]
fn a_client_is_known_by_its_address_alone() {
    let balancer = balancer(HashKey::SourceIp);
    let plain = place(&balancer, &from_client("192.0.2.7"));
    assert_eq!(place(&balancer, &from_client("::ffff:192.0.2.7")), plain);
    assert_eq!(spread(&balancer, &from_client("2001:db8::7")), 1);
    assert!(spread(&balancer, &Request::new(())) > 1);
}

#[test]
fn a_host_is_known_without_case_port_and_trailing_dot() {
    let balancer = balancer(HashKey::Hostname);
    let plain = place(&balancer, &for_host("shop.example"));
    for host in ["SHOP.example", "shop.example:8443", "shop.example.", "Shop.Example.:80"] {
        assert_eq!(place(&balancer, &for_host(host)), plain, "{host}");
    }
    let absolute = Request::builder()
        .uri("https://shop.example:8443/cart")
        .header("host", "other.example")
        .body(())
        .unwrap();
    assert_eq!(place(&balancer, &absolute), plain);

    let v6 = place(&balancer, &for_host("[2001:db8::1]"));
    assert_eq!(place(&balancer, &for_host("[2001:DB8::1]:443")), v6);
    assert!(spread(&balancer, &for_host("")) > 1);
}

#[test]
fn only_the_users_of_an_endpoint_that_left_move() {
    let users: Vec<_> = (0..2000).map(|user| with_header(&format!("user-{user}"))).collect();
    let balancer = by_header();
    let before: Vec<_> = users.iter().map(|user| place(&balancer, user)).collect();

    let config = balancer.config();
    let rest = (1..10).rev().map(|at| Endpoint::new(format!("shop/pod-{at}"), at));
    balancer.update(rest, &config);
    let after: Vec<_> = users.iter().map(|user| place(&balancer, user)).collect();

    let strayed = before.iter().zip(&after).filter(|(before, after)| **before != 0 && before != after);
    assert!(strayed.count() <= 40);
    assert!(after.iter().all(|&at| at != 0));
}

#[test]
fn the_head_of_a_request_is_placed_as_the_request_is() {
    let by_header = by_header();
    for user in 0..16 {
        let request = with_header(&format!("user-{user}"));
        let place = place(&by_header, &request);
        let (head, ()) = request.into_parts();
        assert_eq!(*by_header.pick(&PickContext::new().with_keys(&head)).unwrap().target(), place);
    }
}
