//! Matches by path: exact, then regular expressions, then the longest prefix.

use std::{cmp::Reverse, collections::HashMap};

use foldhash::fast::RandomState;
use regex::Regex;

use super::{
    candidate::{Candidate, InvalidMatch, whole_match},
    query::Query,
    router::{Matched, RequestHead, RuleIndex},
};
use crate::ir::{PathMatch, RouteMatch};

/// The matches of one host.
///
/// Gateway API leaves the place of regular expressions open. They come between exact paths and prefixes, the longer
/// expression first, so that a catch-all prefix does not hide them.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    exact: HashMap<Box<str>, Vec<Candidate>, RandomState>,
    regexes: Vec<(Regex, Candidate)>,
    prefixes: PrefixTree,
}

impl PathTable {
    /// Adds a match; matches of equal precedence are found in the order in which they were added.
    pub(super) fn add(&mut self, found: &RouteMatch, rule: RuleIndex) -> Result<(), InvalidMatch> {
        let candidate = Candidate::new(found, rule)?;
        match &found.path {
            PathMatch::Exact(path) => self.exact.entry(path.as_str().into()).or_default().push(candidate),
            PathMatch::Regex(pattern) => self.regexes.push((whole_match(pattern)?, candidate)),
            PathMatch::Prefix(prefix) => self.prefixes.entry(prefix).push(candidate),
        }
        Ok(())
    }

    /// Brings the matches into the order in which they are tried.
    pub(super) fn sort(&mut self) {
        let in_order = |candidates: &mut Vec<Candidate>| candidates.sort_by_cached_key(Candidate::precedence);
        self.exact.values_mut().for_each(in_order);
        self.prefixes.candidates_mut().for_each(in_order);
        self.regexes
            .sort_by_cached_key(|(regex, candidate)| (Reverse(regex.as_str().len()), candidate.precedence()));
    }

    pub(super) fn find(&self, head: &RequestHead<'_>, query: &Query<'_>) -> Option<Matched> {
        let exact = self.exact.get(head.path).and_then(|candidates| first(candidates, head, query));
        let whole = exact.or_else(|| {
            let mut regexes = self.regexes.iter();
            regexes
                .find(|(regex, candidate)| regex.is_match(head.path) && candidate.matches(head, query))
                .map(|(_, candidate)| candidate.rule)
        });
        match whole {
            Some(rule) => Some(Matched { rule, prefix: None }),
            None => self.prefixes.find(head, query),
        }
    }
}

fn first(candidates: &[Candidate], head: &RequestHead<'_>, query: &Query<'_>) -> Option<RuleIndex> {
    candidates.iter().find(|candidate| candidate.matches(head, query)).map(|candidate| candidate.rule)
}

/// Prefixes by path segment. The cost of a search is that of the path's length, whatever the number of prefixes.
#[derive(Debug)]
struct PrefixTree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, usize, RandomState>,
    candidates: Vec<Candidate>,
    /// The length of the prefix that ends here.
    length: usize,
    parent: Option<usize>,
}

impl Default for PrefixTree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl PrefixTree {
    fn entry(&mut self, prefix: &str) -> &mut Vec<Candidate> {
        let mut at = 0;
        let mut length = 0;
        for segment in segments(prefix) {
            length += segment.len() + 1;
            at = self.child(at, segment, length);
        }
        &mut self.node_mut(at).candidates
    }

    fn child(&mut self, parent: usize, segment: &str, length: usize) -> usize {
        let next = self.nodes.len();
        let child = *self.node_mut(parent).children.entry(segment.into()).or_insert(next);
        if child == next {
            self.nodes.push(Node { length, parent: Some(parent), ..Node::default() });
        }
        child
    }

    #[expect(clippy::indexing_slicing, reason = "indices come from this vector, which never shrinks")]
    fn node_mut(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }

    fn candidates_mut(&mut self) -> impl Iterator<Item = &mut Vec<Candidate>> {
        self.nodes.iter_mut().map(|node| &mut node.candidates)
    }

    fn find(&self, head: &RequestHead<'_>, query: &Query<'_>) -> Option<Matched> {
        let mut node = self.nodes.first()?;
        for segment in segments(head.path) {
            match node.children.get(segment).and_then(|child| self.nodes.get(*child)) {
                Some(child) => node = child,
                None => break,
            }
        }
        loop {
            if let Some(rule) = first(&node.candidates, head, query) {
                return Some(Matched { rule, prefix: Some(node.length) });
            }
            node = self.nodes.get(node.parent?)?;
        }
    }
}

/// The segments of a path; none for `/`.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path.strip_prefix('/').unwrap_or(path);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'/', rest.as_bytes()).unwrap_or(rest.len());
        let segment = rest.get(..end)?;
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(segment)
    })
}
