//! The routing table of one socket.

use http::{HeaderMap, Method};

use super::{candidate::InvalidMatch, host::HostMap, path::PathTable, query::Query};
use crate::ir::{HostPattern, RouteMatch};

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

/// The rule that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matched {
    /// The rule.
    pub rule: RuleIndex,
    /// The length of the path prefix that matched, if it was a prefix; 0 for `/`.
    pub prefix: Option<usize>,
}

/// The routing table of one socket.
#[derive(Debug, Default)]
pub struct Router {
    listeners: HostMap<HostMap<PathTable>>,
}

impl Router {
    /// The rule for a request, or `None` where nothing matches.
    ///
    /// The listener with the most specific host alone decides (listener isolation); among its routes a less
    /// specific host is tried when nothing under a more specific one matches.
    pub fn find(&self, head: &RequestHead<'_>) -> Option<Matched> {
        let query = Query::new(head.query);
        let routes = self.listeners.covering(head.host).next()?;
        routes.covering(head.host).find_map(|paths| paths.find(head, &query))
    }
}

/// Builds a [`Router`]; add matches in the order of Gateway API's last tie-breakers: age, name, rule, match.
#[derive(Debug, Default)]
pub struct RouterBuilder {
    router: Router,
}

impl RouterBuilder {
    /// Makes a listener known, even if it has no routes: it answers for its host.
    pub fn listener(&mut self, listener: &HostPattern) {
        self.router.listeners.entry(listener);
    }

    /// Adds one match of one rule for one host of a listener.
    ///
    /// # Errors
    /// [`InvalidMatch`] names what cannot be compiled; nothing was added then.
    pub fn add(
        &mut self,
        listener: &HostPattern,
        host: &HostPattern,
        found: &RouteMatch,
        rule: RuleIndex,
    ) -> Result<(), InvalidMatch> {
        self.router.listeners.entry(listener).entry(host).add(found, rule)
    }

    /// The finished table.
    pub fn build(mut self) -> Router {
        self.router.listeners.values_mut().flat_map(HostMap::values_mut).for_each(PathTable::sort);
        self.router
    }
}

#[cfg(test)]
mod tests;
