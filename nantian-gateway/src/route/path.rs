//! Matches by path: exact, then regular expressions, then the longest prefix.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    candidate::{Candidate, Candidates, Conditions, InvalidMatch, Ranked, whole_match},
    depths::{Depths, depth},
    index::{Index, TableId, narrow},
    query::Query,
    router::{RequestHead, RuleIndex},
};
use crate::{
    ir::{PathMatch, RouteMatch},
    pattern::{Patterns, WholeMatch},
};

/// The matches of routes with one host, while they are gathered.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    exact: BTreeMap<String, Vec<Ranked>>,
    regexes: Vec<(WholeMatch, Ranked)>,
    /// By the prefix without a `/` at its end.
    prefixes: BTreeMap<String, Vec<Ranked>>,
}

/// The matches of all hosts.
///
/// Gateway API leaves the place of regular expressions open. They come between exact paths and prefixes, the
/// longer expression first, so that a catch-all prefix does not hide them.
#[derive(Debug, Default)]
pub(super) struct Paths {
    index: Index<Candidates>,
    /// The first list is empty, for hosts without regular expressions.
    regexes: Vec<Vec<(WholeMatch, Candidate)>>,
    conditions: Conditions,
    /// The tables of hosts that have several but for the first, by their numbers.
    further: BTreeMap<u32, PathKey>,
}

/// What the matches of one table are found by; small, so that it lies beside the host's name.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathKey {
    table: u32,
    regexes: u32,
    prefixes: Depths,
    has_exact: bool,
    /// Whether the next table is of the same host.
    has_next: bool,
}

/// The exact paths of a table and its prefixes are apart.
fn spaces(table: u32) -> (TableId, TableId) {
    (TableId(table * 2), TableId(table * 2 + 1))
}

// === impl PathTable ===

impl PathTable {
    /// Adds a match; matches of equal precedence are found in the order in which they were added.
    pub(super) fn add(
        &mut self,
        found: &RouteMatch,
        crosses: bool,
        rule: RuleIndex,
        patterns: &Patterns,
    ) -> Result<(), InvalidMatch> {
        let ranked = Ranked::new(found, crosses, rule, patterns)?;
        match &found.path {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default().push(ranked),
            PathMatch::Regex(pattern) => self.regexes.push((whole_match(pattern, patterns)?, ranked)),
            PathMatch::Prefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                self.prefixes.entry(prefix.to_owned()).or_default().push(ranked);
            }
        }
        Ok(())
    }
}

// === impl Paths ===

impl Paths {
    /// Brings the matches of all hosts, each of which has one table or several to be tried in turn, into the
    /// order in which they are tried. Returns the key of each host.
    pub(super) fn new(hosts: Vec<Vec<PathTable>>) -> (Self, Vec<PathKey>) {
        let mut paths = Self { regexes: vec![Vec::new()], ..Self::default() };
        let mut keys = Vec::new();
        let mut entries = Vec::new();
        let tables = hosts.into_iter().flat_map(|tables| {
            let last = tables.len().saturating_sub(1);
            tables.into_iter().enumerate().map(move |(at, table)| (at == 0, at < last, table))
        });
        for (number, (is_first, has_next, table)) in tables.enumerate() {
            let PathTable { exact, mut regexes, prefixes } = table;
            let (table, has_exact) = (narrow(number), !exact.is_empty());
            let mut key = PathKey { table, regexes: 0, prefixes: Depths::default(), has_exact, has_next };
            if !regexes.is_empty() {
                regexes.sort_by_cached_key(|(regex, ranked)| {
                    (Reverse(regex.as_str().len()), ranked.precedence())
                });
                let listed = regexes.into_iter().map(|(regex, ranked)| (regex, paths.conditions.one(ranked)));
                key.regexes = narrow(paths.regexes.len());
                let listed = listed.collect();
                paths.regexes.push(listed);
            }
            prefixes.keys().for_each(|prefix| key.prefixes.insert(depth(prefix, b'/')));
            let (exact_space, prefix_space) = spaces(table);
            for (space, texts) in [(exact_space, exact), (prefix_space, prefixes)] {
                for (text, ranked) in texts {
                    entries.extend(paths.conditions.all(ranked).map(|candidates| (space, text, candidates)));
                }
            }
            if is_first {
                keys.push(key);
            } else {
                paths.further.insert(table, key);
            }
        }
        let entries = entries.iter().map(|(space, text, candidates)| (*space, text.as_str(), *candidates));
        paths.index = Index::new(entries);
        (paths, keys)
    }

    /// The match for a request of the host of `key`.
    pub(super) fn find(&self, key: &PathKey, head: &RequestHead<'_>, query: &Query<'_>) -> Option<RuleIndex> {
        let mut key = key;
        loop {
            let found = self.find_in(key, head, query);
            if found.is_some() || !key.has_next {
                return found;
            }
            key = self.further.get(&(key.table + 1))?;
        }
    }

    fn find_in(&self, key: &PathKey, head: &RequestHead<'_>, query: &Query<'_>) -> Option<RuleIndex> {
        let (exact, prefixes) = spaces(key.table);
        let whole = key.has_exact.then(|| self.index.get(exact, head.path)).flatten();
        let whole = whole.and_then(|candidates| self.conditions.first(candidates, head, query));
        whole
            .or_else(|| self.find_regex(key, head, query))
            .or_else(|| self.find_prefix(key.prefixes, prefixes, head, query))
    }

    fn find_regex(&self, key: &PathKey, head: &RequestHead<'_>, query: &Query<'_>) -> Option<RuleIndex> {
        let mut regexes = self.regexes.get(key.regexes as usize)?.iter();
        let found = regexes.find(|(regex, candidate)| {
            regex.is_match(head.path, &query.effort) && self.conditions.hold(candidate, head, query)
        });
        found.map(|(_, candidate)| candidate.rule)
    }

    /// Looks only for prefixes of a depth that occurs, the deepest first.
    fn find_prefix(
        &self,
        depths: Depths,
        space: TableId,
        head: &RequestHead<'_>,
        query: &Query<'_>,
    ) -> Option<RuleIndex> {
        if depths.is_empty() {
            return None;
        }
        let (mut prefix, mut depth) = deepest(head.path, depths.greatest());
        loop {
            if depths.contains(depth)
                && let Some(candidates) = self.index.get(space, prefix)
                && let Some(rule) = self.conditions.first(candidates, head, query)
            {
                return Some(rule);
            }
            if prefix.is_empty() {
                return None;
            }
            let end = memchr::memrchr(b'/', prefix.as_bytes()).unwrap_or(0);
            prefix = prefix.get(..end)?;
            depth = depth.saturating_sub(1);
        }
    }
}

/// The front of `path` by whole segments with at most `limit` of them, and how many `/` it has.
fn deepest(path: &str, limit: usize) -> (&str, usize) {
    let mut depth = 0;
    for slash in memchr::memchr_iter(b'/', path.as_bytes()) {
        if depth == limit {
            return (path.get(..slash).unwrap_or(path), depth);
        }
        depth += 1;
    }
    (path, depth)
}
