//! The routing table of one socket.

use std::{cmp::Reverse, collections::BTreeMap};

use http::{HeaderMap, Method};

use super::{
    candidate::InvalidMatch,
    host::Hosts,
    path::{PathKey, PathTable, Paths},
    query::Query,
};
use crate::{
    ir::{HostPattern, RouteHost, RouteMatch},
    pattern::Patterns,
};

/// The place of a rule in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleIndex(pub u32);

/// What is matched of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The host, lower-case and without port.
    pub host: &'a str,
    /// The path, normalized.
    pub path: &'a str,
    /// The query without `?`.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// The routing table of one socket: a few flat tables, so that a search touches little memory.
#[derive(Debug)]
pub struct Router {
    /// The one table of listeners; the value is the number of the listener's table in `hosts`.
    listeners: Hosts<u32>,
    hosts: Hosts<PathKey>,
    paths: Paths,
    /// The rules of listeners for what nothing else matches, by their numbers.
    unmatched: Vec<Option<RuleIndex>>,
}

/// What a request says is too long for the regular expressions that it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request is too long for the regular expressions by which it is routed")]
pub struct TooMuchToRead;

impl Router {
    /// The number of the listener that alone answers for `host`, if there is one.
    pub fn listener(&self, host: &str) -> Option<u32> {
        self.listeners.covering(0, host).next().copied()
    }

    /// The rule of the listener that answers for `host` for what nothing else matches, if it has one.
    pub fn unmatched(&self, host: &str) -> Option<RuleIndex> {
        *self.unmatched.get(usize::try_from(self.listener(host)?).ok()?)?
    }

    /// The rule for a request, or `None` where nothing matches.
    ///
    /// The listener with the most specific host alone decides (listener isolation); among its routes a less
    /// specific host is tried when nothing under a more specific one matches.
    ///
    /// # Errors
    /// [`TooMuchToRead`] where regular expressions would have to read more of the request than they may: then
    /// it is not known which rule it belongs to.
    pub fn find(&self, head: &RequestHead<'_>) -> Result<Option<RuleIndex>, TooMuchToRead> {
        let query = Query::new(head.query);
        let Some(listener) = self.listeners.covering(0, head.host).next() else { return Ok(None) };
        let mut hosts = self.hosts.covering(*listener, head.host);
        let found = hosts.find_map(|paths| self.paths.find(paths, head, &query));
        if query.effort.is_exhausted() { Err(TooMuchToRead) } else { Ok(found) }
    }
}

/// By how specific the route's own host is, the most specific first: a listener narrows several down to one.
type TablesOfHost = BTreeMap<Reverse<(bool, usize)>, PathTable>;

/// Builds a [`Router`]; add matches in the order of Gateway API's last tie-breakers: age, name, rule, match.
#[derive(Debug, Default)]
pub struct RouterBuilder {
    patterns: Patterns,
    /// By listener and host.
    listeners: BTreeMap<HostPattern, BTreeMap<HostPattern, TablesOfHost>>,
    unmatched: BTreeMap<HostPattern, RuleIndex>,
}

impl RouterBuilder {
    /// An empty table, whose expressions are those of `patterns`.
    pub fn new(patterns: Patterns) -> Self {
        Self { patterns, ..Self::default() }
    }

    /// Makes a listener known, even if it has no routes: it answers for its host.
    pub fn listener(&mut self, listener: &HostPattern) {
        self.listeners.entry(listener.clone()).or_default();
    }

    /// Gives a listener a rule for the requests that none of its routes is for.
    pub fn unmatched(&mut self, listener: &HostPattern, rule: RuleIndex) {
        self.unmatched.insert(listener.clone(), rule);
    }

    /// Adds one match of one rule for one host of a listener; `crosses` says that the rule answers
    /// preflights.
    ///
    /// # Errors
    /// [`InvalidMatch`] names what cannot be compiled; nothing was added then.
    pub fn add(
        &mut self,
        listener: &HostPattern,
        RouteHost { host, own }: &RouteHost,
        found: &RouteMatch,
        crosses: bool,
        rule: RuleIndex,
    ) -> Result<(), InvalidMatch> {
        let hosts = self.listeners.entry(listener.clone()).or_default();
        let paths = hosts.entry(host.clone()).or_default().entry(Reverse(own.specificity())).or_default();
        paths.add(found, crosses, rule, &self.patterns)
    }

    /// The finished table.
    pub fn build(self) -> Router {
        let mut listeners = BTreeMap::new();
        let mut hosts = Vec::new();
        let mut tables = Vec::new();
        let mut unmatched = Vec::new();
        for (number, (listener, routes)) in (0..).zip(self.listeners) {
            unmatched.push(self.unmatched.get(&listener).copied());
            listeners.insert(listener, number);
            let (patterns, paths): (Vec<_>, Vec<_>) = routes.into_iter().unzip();
            hosts.push(patterns);
            tables.extend(paths.into_iter().map(|paths| paths.into_values().collect()));
        }
        let (paths, keys) = Paths::new(tables);
        let mut keys = keys.into_iter();
        let hosts: Vec<_> =
            hosts.into_iter().map(|patterns| patterns.into_iter().zip(&mut keys).collect()).collect();
        Router { listeners: Hosts::new(&[listeners]), hosts: Hosts::new(&hosts), paths, unmatched }
    }
}

#[cfg(test)]
mod tests;
