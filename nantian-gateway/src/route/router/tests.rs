use http::HeaderValue;

use super::*;
use crate::ir::{KeyMatch, PathMatch, ValueMatch};

#[derive(Default)]
struct World {
    builder: RouterBuilder,
    rules: u32,
}

impl World {
    fn rule(&mut self, listener: &str, host: &str, found: RouteMatch) -> u32 {
        let rule = self.rules;
        self.rules += 1;
        let (listener, host) = (HostPattern::parse(listener), HostPattern::parse(host));
        self.builder.add(&listener, &host, &found, RuleIndex(rule)).unwrap();
        rule
    }

    fn build(self) -> Router {
        self.builder.build()
    }
}

fn path(path: PathMatch) -> RouteMatch {
    RouteMatch { path, ..RouteMatch::default() }
}

fn prefix(text: &str) -> RouteMatch {
    path(PathMatch::Prefix(text.to_owned()))
}

fn exact(text: &str) -> RouteMatch {
    path(PathMatch::Exact(text.to_owned()))
}

fn regex(text: &str) -> RouteMatch {
    path(PathMatch::Regex(text.to_owned()))
}

fn key(name: &str, value: &str) -> KeyMatch {
    KeyMatch { name: name.to_owned(), value: ValueMatch::Exact(value.to_owned()) }
}

fn find(router: &Router, host: &str, target: &str) -> Option<u32> {
    find_with(router, host, target, &Method::GET, &HeaderMap::new())
}

fn find_with(router: &Router, host: &str, target: &str, method: &Method, headers: &HeaderMap) -> Option<u32> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    router.find(&RequestHead { host, path, query, method, headers }).map(|matched| matched.rule.0)
}

#[test]
fn exact_beats_regex_beats_the_longest_prefix() {
    let mut world = World::default();
    let root = world.rule("", "", prefix("/"));
    let short = world.rule("", "", prefix("/a"));
    let long = world.rule("", "", prefix("/a/b"));
    let pattern = world.rule("", "", regex("/a/b/[0-9]+"));
    let whole = world.rule("", "", exact("/a/b/1"));
    let router = world.build();
    for (target, rule) in [
        ("/a/b/1", whole),
        ("/a/b/2", pattern),
        ("/a/b/2x", long),
        ("/a/b", long),
        ("/a/b/", long),
        ("/a/bc", short),
        ("/ab", root),
        ("/", root),
    ] {
        assert_eq!(find(&router, "x", target), Some(rule), "{target}");
    }
}

#[test]
fn a_regex_alternative_must_match_the_whole_path() {
    let mut world = World::default();
    let rule = world.rule("", "", regex("/a|/ab"));
    let router = world.build();
    assert_eq!(find(&router, "x", "/ab"), Some(rule));
    assert_eq!(find(&router, "x", "/abc"), None);
}

#[test]
fn a_shorter_prefix_is_tried_when_the_longer_one_asks_for_more() {
    let mut world = World::default();
    let short = world.rule("", "", prefix("/a"));
    let long = world.rule("", "", RouteMatch { method: Some("POST".to_owned()), ..prefix("/a/b") });
    let router = world.build();
    assert_eq!(find(&router, "x", "/a/b/c"), Some(short));
    assert_eq!(find_with(&router, "x", "/a/b/c", &Method::POST, &HeaderMap::new()), Some(long));
}

#[test]
fn method_then_headers_then_parameters_then_age_break_ties() {
    let mut world = World::default();
    let oldest = world.rule("", "", prefix("/"));
    let younger = world.rule("", "", prefix("/"));
    let parameter = world.rule("", "", RouteMatch { query: vec![key("q", "1")], ..prefix("/") });
    let header = world.rule("", "", RouteMatch { headers: vec![key("h", "1")], ..prefix("/") });
    let method = world.rule("", "", RouteMatch { method: Some("GET".to_owned()), ..prefix("/") });
    let router = world.build();
    let mut headers = HeaderMap::new();
    headers.insert("h", HeaderValue::from_static("1"));
    assert_eq!(find_with(&router, "x", "/?q=1", &Method::GET, &headers), Some(method));
    assert_eq!(find_with(&router, "x", "/?q=1", &Method::PUT, &headers), Some(header));
    assert_eq!(find_with(&router, "x", "/?q=1", &Method::PUT, &HeaderMap::new()), Some(parameter));
    assert_eq!(find_with(&router, "x", "/", &Method::PUT, &HeaderMap::new()), Some(oldest));
    assert_ne!(oldest, younger);
}

#[test]
fn repeated_headers_are_one_list() {
    let mut world = World::default();
    let rule = world.rule("", "", RouteMatch { headers: vec![key("h", "1,2")], ..prefix("/") });
    let router = world.build();
    let mut headers = HeaderMap::new();
    headers.append("h", HeaderValue::from_static("1"));
    assert_eq!(find_with(&router, "x", "/", &Method::GET, &headers), None);
    headers.append("h", HeaderValue::from_static("2"));
    assert_eq!(find_with(&router, "x", "/", &Method::GET, &headers), Some(rule));
}

#[test]
fn the_most_specific_host_of_a_route_comes_first_and_the_next_is_tried() {
    let mut world = World::default();
    let any = world.rule("", "", prefix("/"));
    let wide = world.rule("", "*.example.com", prefix("/x"));
    let narrow = world.rule("", "*.b.example.com", prefix("/x/y"));
    let name = world.rule("", "a.b.example.com", exact("/x/y/z"));
    let router = world.build();
    for (host, target, rule) in [
        ("a.b.example.com", "/x/y/z", name),
        ("a.b.example.com", "/x/y", narrow),
        ("a.b.example.com", "/x", wide),
        ("a.b.example.com", "/", any),
        ("example.com", "/x", any),
        ("b.example.com", "/x", wide),
    ] {
        assert_eq!(find(&router, host, target), Some(rule), "{host}{target}");
    }
}

#[test]
fn only_the_most_specific_listener_answers() {
    let mut world = World::default();
    let wide = world.rule("", "", prefix("/"));
    world.builder.listener(&HostPattern::parse("shop.example.com"));
    let router = world.build();
    assert_eq!(find(&router, "shop.example.com", "/"), None);
    assert_eq!(find(&router, "other.example.com", "/"), Some(wide));
}

#[test]
fn the_matched_prefix_is_told() {
    let mut world = World::default();
    world.rule("", "", prefix("/a/b"));
    let router = world.build();
    let head = RequestHead {
        host: "",
        path: "/a/b/c",
        query: None,
        method: &Method::GET,
        headers: &HeaderMap::new(),
    };
    assert_eq!(router.find(&head).unwrap().prefix, Some(4));
}
