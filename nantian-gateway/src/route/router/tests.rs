use std::{cmp::Reverse, collections::HashMap, fmt::Debug, str::FromStr};

use http::HeaderValue;
use proptest::{collection::vec, option, prelude::*, sample::select};
use regex::Regex;

use super::*;
use crate::ir::{KeyMatch, PathMatch, ValueMatch};

#[derive(Default)]
struct World {
    builder: RouterBuilder,
    rules: u32,
}

impl World {
    fn rule(&mut self, listener: &str, host: &str, found: RouteMatch) -> u32 {
        self.rule_of(listener, host, host, found)
    }

    /// A rule of a route whose host is `own`.
    fn rule_of(&mut self, listener: &str, host: &str, own: &str, found: RouteMatch) -> u32 {
        let rule = self.rules;
        self.rules += 1;
        let host = RouteHost { host: HostPattern::parse(host), own: HostPattern::parse(own) };
        self.builder.add(&HostPattern::parse(listener), &host, &found, false, RuleIndex(rule)).unwrap();
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

fn key<N: FromStr<Err: Debug>>(name: &str, value: &str) -> KeyMatch<N> {
    KeyMatch { name: name.parse().unwrap(), value: ValueMatch::Exact(value.to_owned()) }
}

fn find(router: &Router, host: &str, target: &str) -> Option<u32> {
    find_with(router, host, target, &Method::GET, &HeaderMap::new())
}

fn find_with(router: &Router, host: &str, target: &str, method: &Method, headers: &HeaderMap) -> Option<u32> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    router.find(&RequestHead { host, path, query, method, headers }).unwrap().map(|rule| rule.0)
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
    let long = world.rule("", "", RouteMatch { method: Some(Method::POST), ..prefix("/a/b") });
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
    let method = world.rule("", "", RouteMatch { method: Some(Method::GET), ..prefix("/") });
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
fn headers_match_in_any_encoding() {
    let mut world = World::default();
    let expression = KeyMatch { value: ValueMatch::Regex("J.s.+".to_owned()), ..key("h", "") };
    let by_expression = world.rule("", "", RouteMatch { headers: vec![expression], ..prefix("/") });
    let by_text = world.rule("", "", RouteMatch { headers: vec![key("h", "José")], ..prefix("/exact") });
    let router = world.build();
    for (value, expected) in
        [(&b"Jos\xc3\xa9"[..], [by_text, by_expression]), (b"Jos\xe9", [by_expression; 2])]
    {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("h"),
            HeaderValue::from_bytes(value).unwrap(),
        )]);
        let found = ["/exact", "/"].map(|path| find_with(&router, "x", path, &Method::GET, &headers));
        assert_eq!(found, expected.map(Some), "{value:?}");
    }
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
fn the_more_specific_host_of_a_route_itself_comes_before_paths_and_age() {
    let mut world = World::default();
    let host = "app.example.com";
    let any = world.rule_of(host, host, "", exact("/other"));
    let wide = world.rule_of(host, host, "*.com", prefix("/api/v1"));
    let middle = world.rule_of(host, host, "*.example.com", prefix("/"));
    let name = world.rule_of(host, host, host, prefix("/api"));
    let router = world.build();
    for (target, rule) in [("/api/v1/x", name), ("/api", name), ("/other", middle), ("/", middle)] {
        assert_eq!(find(&router, host, target), Some(rule), "{target}");
    }
    assert!(any < wide && wide < middle, "the older ones are hidden");
}

#[test]
fn a_route_with_a_less_specific_host_is_tried_when_nothing_of_the_more_specific_one_matches() {
    let mut world = World::default();
    let host = "*.example.com";
    let any = world.rule_of(host, host, "", prefix("/"));
    let wide = world.rule_of(host, host, "*.com", regex("/[0-9]+"));
    world.rule_of(host, host, host, RouteMatch { method: Some(Method::POST), ..prefix("/") });
    let name = world.rule(host, "a.example.com", exact("/1"));
    let router = world.build();
    for (host, target, rule) in
        [("a.example.com", "/1", name), ("a.example.com", "/2", wide), ("b.example.com", "/x", any)]
    {
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
fn a_request_for_no_path_meets_the_root_alone() {
    let mut world = World::default();
    let root = world.rule("", "", prefix("/"));
    world.rule("", "", prefix("/a"));
    let router = world.build();
    assert_eq!(find(&router, "x", "*"), Some(root));
    assert_eq!(find(&router, "x", ""), Some(root));
}

#[test]
fn prefixes_of_any_depth_are_found() {
    let mut world = World::default();
    let deep = |depth: usize| "/s".repeat(depth);
    let rules: Vec<u32> = [30, 31, 32, 40].map(|depth| world.rule("", "", prefix(&deep(depth)))).into();
    let router = world.build();
    for (depth, rule) in
        [(29, None), (30, Some(0)), (31, Some(1)), (32, Some(2)), (39, Some(2)), (40, Some(3)), (90, Some(3))]
    {
        let rule = rule.and_then(|at: usize| rules.get(at).copied());
        assert_eq!(find(&router, "x", &deep(depth)), rule, "{depth}");
    }
}

#[test]
fn what_expressions_cannot_read_falls_to_no_other_rule() {
    let mut world = World::default();
    for number in 0..40 {
        world.rule(
            "",
            "",
            RouteMatch { path: PathMatch::Regex(format!("/é*{number}")), ..RouteMatch::default() },
        );
    }
    let rest = world.rule("", "", RouteMatch::default());
    let (router, headers) = (world.builder.build(), HeaderMap::new());
    let find = |path: &str| {
        let (host, query, method) = ("a", None, &Method::GET);
        router.find(&RequestHead { host, path, query, method, headers: &headers })
    };
    assert_eq!(find("/éé"), Ok(Some(RuleIndex(rest))));
    assert_eq!(find(&format!("/{}", "é".repeat(64 << 10))), Err(TooMuchToRead));
}

/// One match with the pattern of its listener and its host.
type Entry = (HostPattern, RouteHost, RouteMatch);

/// Every match is looked at, and the best by Gateway API's order is taken.
fn naive(entries: &[Entry], regexes: &HashMap<&str, Regex>, head: &RequestHead<'_>) -> Option<RuleIndex> {
    let covers = |pattern: &HostPattern| match pattern {
        HostPattern::Any => true,
        HostPattern::Suffix(suffix) => head
            .host
            .strip_suffix(suffix.as_str())
            .is_some_and(|label| label.len() > 1 && label.ends_with('.')),
        HostPattern::Exact(name) => name == head.host,
    };
    let specific = |pattern: &HostPattern| match pattern {
        HostPattern::Any => (0, 0),
        HostPattern::Suffix(suffix) => (1, suffix.len()),
        HostPattern::Exact(_) => (2, 0),
    };
    let listener = entries
        .iter()
        .map(|(listener, ..)| listener)
        .filter(|listener| covers(listener))
        .max_by_key(|l| specific(l))?;
    let matching = (0..).zip(entries).filter_map(|(number, (of, RouteHost { host, own }, found))| {
        let (class, length) = match &found.path {
            PathMatch::Exact(path) => (path == head.path).then_some((2, 0))?,
            PathMatch::Regex(pattern) => {
                regexes.get(pattern.as_str())?.is_match(head.path).then_some((1, pattern.len()))?
            }
            PathMatch::Prefix(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                let rest = head.path.strip_prefix(prefix)?;
                (prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
                    .then_some((0, prefix.len()))?
            }
        };
        let holds = of == listener
            && covers(host)
            && found.method.as_ref().is_none_or(|method| method == head.method)
            && found.headers.iter().all(|key| {
                head.headers
                    .get(&key.name)
                    .is_some_and(|value| key.value == ValueMatch::Exact(value.to_str().unwrap().to_owned()))
            })
            && found.query.iter().all(|key| {
                let pairs = head.query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
                let value = pairs.clone().find(|(name, _)| *name == key.name).map(|(_, value)| value);
                value.is_some_and(|value| key.value == ValueMatch::Exact(value.to_owned()))
            });
        let (host, own) = (specific(host), specific(own));
        let rank = (host, own, class, length, found.method.is_some(), found.headers.len(), found.query.len());
        holds.then_some(((rank, Reverse(number)), RuleIndex(number)))
    });
    matching.max_by_key(|(rank, _)| *rank).map(|(_, rule)| rule)
}

const HOSTS: [&str; 7] = ["", "*.com", "*.a.com", "*.b.a.com", "a.com", "b.a.com", "c.b.a.com"];
const PATHS: [&str; 9] = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/a/bc", "/b", "/b/a", "/a/a/a/a/a"];
const PATTERNS: [&str; 4] = ["/a.*", "/a/[a-z]", "/.*/c", "/b|/a/b"];

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        3 => select(&PATHS[..]).prop_map(|text| PathMatch::Prefix(text.to_owned())),
        2 => select(&PATHS[..]).prop_map(|text| PathMatch::Exact(text.to_owned())),
        1 => select(&PATTERNS[..]).prop_map(|text| PathMatch::Regex(text.to_owned())),
    ]
}

fn keys<N: FromStr<Err: Debug>>(pairs: Vec<(&str, &str)>) -> Vec<KeyMatch<N>> {
    pairs.into_iter().map(|(name, value)| key(name, value)).collect()
}

fn entry() -> impl Strategy<Value = Entry> {
    let pairs = || vec((select(&["k", "l"][..]), select(&["1", "2"][..])), 0..2);
    let host = || select(&HOSTS[..]).prop_map(HostPattern::parse);
    let conditions = (option::weighted(0.2, select(&["GET", "PUT"][..])), pairs(), pairs());
    let parts = (host(), host(), host(), path_match(), conditions);
    parts.prop_map(|(listener, host, own, path, (method, headers, query))| {
        // What a listener narrows down is covered by the route's own host.
        let own = if own.intersection(&host).as_ref() == Some(&host) { own } else { host.clone() };
        let found = RouteMatch {
            path,
            method: method.map(|name| name.parse().unwrap()),
            headers: keys(headers),
            query: keys(query),
            call: None,
        };
        (listener, RouteHost { host, own }, found)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_flat_tables_find_what_a_look_at_every_match_finds(
        entries in vec(entry(), 0..40),
        requests in vec((
            select(&["a.com", "b.a.com", "c.b.a.com", "x.c.b.a.com", "com", "x.com", "", ".com", "org"][..]),
            select(&["/", "/a", "/a/", "/a/b", "/a/b/c", "/a/b/c/d", "/ab", "/b", "/c", "*", "", "/a/a/a/a/a/a"][..]),
            select(&["", "k=1", "l=2", "k=2&k=1", "k=1&l=1"][..]),
            select(&["GET", "PUT"][..]),
            option::of(select(&["1", "2"][..])),
        ), 1..20),
    ) {
        let mut builder = RouterBuilder::default();
        for (number, (listener, host, found)) in (0..).zip(&entries) {
            builder.add(listener, host, found, false, RuleIndex(number)).unwrap();
        }
        let router = builder.build();
        let regexes = PATTERNS.map(|pattern| (pattern, Regex::new(&format!("^(?:{pattern})$")).unwrap())).into();
        for (host, path, query, method, header) in requests {
            let mut headers = HeaderMap::new();
            headers.extend(header.map(|value| (http::HeaderName::from_static("k"), HeaderValue::from_static(value))));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let head = RequestHead { host, path, query: Some(query), method: &method, headers: &headers };
            prop_assert_eq!(router.find(&head).unwrap(), naive(&entries, &regexes, &head), "{:?}", head);
        }
    }
}
