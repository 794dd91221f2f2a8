//! Which listener and which route of a socket a server name belongs to.

use std::collections::BTreeMap;

use super::host::Hosts;
use crate::ir::HostPattern;

/// The listeners of a socket with TLS, and the values of their routes, by server name.
#[derive(Debug)]
pub(crate) struct ServerNames<L, R> {
    listeners: Hosts<u32>,
    /// One table for each listener.
    hosts: Hosts<u32>,
    uses: Vec<L>,
    routes: Vec<R>,
}

/// Builds [`ServerNames`]; routes are added in the order that breaks ties.
#[derive(Debug)]
pub(crate) struct ServerNamesBuilder<L, R> {
    listeners: BTreeMap<HostPattern, u32>,
    hosts: Vec<BTreeMap<HostPattern, u32>>,
    uses: Vec<L>,
    routes: Vec<R>,
}

// === impl ServerNames ===

impl<L, R> ServerNames<L, R> {
    /// The listener with the most specific host, which alone decides, and its most specific route.
    ///
    /// A client that tells no name is one of a listener that takes every host, and of no route.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<(&L, Option<&R>)> {
        let name = name.unwrap_or_default();
        let listener = *self.listeners.covering(0, name).next()?;
        let route = self.hosts.covering(listener, name).next();
        let route = route.and_then(|route| self.routes.get(usize::try_from(*route).ok()?));
        Some((self.uses.get(usize::try_from(listener).ok()?)?, route))
    }
}

// === impl ServerNamesBuilder ===

impl<L, R> ServerNamesBuilder<L, R> {
    /// No listener.
    pub(crate) const fn new() -> Self {
        Self { listeners: BTreeMap::new(), hosts: Vec::new(), uses: Vec::new(), routes: Vec::new() }
    }

    /// Adds a listener with a host that no other one has.
    pub(crate) fn listener(&mut self, host: &HostPattern, uses: L) {
        self.listeners.insert(host.clone(), number(self.uses.len()));
        self.uses.push(uses);
        self.hosts.push(BTreeMap::new());
    }

    /// Adds a route to the listener that was added last, for those of the hosts that no earlier route has.
    pub(crate) fn route(&mut self, hosts: &[HostPattern], route: R) {
        let place = number(self.routes.len());
        let Some(table) = self.hosts.last_mut() else { return };
        for host in hosts {
            table.entry(host.clone()).or_insert(place);
        }
        self.routes.push(route);
    }

    /// The finished tables.
    pub(crate) fn build(self) -> ServerNames<L, R> {
        ServerNames {
            listeners: Hosts::new(&[self.listeners]),
            hosts: Hosts::new(&self.hosts),
            uses: self.uses,
            routes: self.routes,
        }
    }
}

/// There are fewer than 2³² of anything in a configuration.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(texts: &[&str]) -> Vec<HostPattern> {
        texts.iter().map(|text| HostPattern::parse(text)).collect()
    }

    #[test]
    fn the_most_specific_listener_decides_and_then_its_most_specific_and_oldest_route() {
        let mut names = ServerNamesBuilder::new();
        names.listener(&HostPattern::Any, "any");
        names.route(&hosts(&["*.example.com"]), 1);
        names.route(&hosts(&["*.example.com", "a.example.com"]), 2);
        names.listener(&HostPattern::parse("*.b.example.com"), "b");
        names.route(&hosts(&["x.b.example.com"]), 3);
        let names = names.build();
        for (name, expected) in [
            (Some("a.example.com"), Some((&"any", Some(&2)))),
            (Some("c.example.com"), Some((&"any", Some(&1)))),
            (Some("example.org"), Some((&"any", None))),
            (Some("x.b.example.com"), Some((&"b", Some(&3)))),
            (Some("y.b.example.com"), Some((&"b", None))),
            (None, Some((&"any", None))),
        ] {
            assert_eq!(names.find(name), expected, "{name:?}");
        }
    }

    #[test]
    fn no_name_is_no_wildcard() {
        let mut names: ServerNamesBuilder<_, ()> = ServerNamesBuilder::new();
        names.listener(&HostPattern::parse("*.example.com"), ());
        assert_eq!(names.build().find(None), None);
    }
}
