//! Which listener and which route of a socket a server name belongs to.

use std::collections::BTreeMap;

use super::host::Hosts;
use crate::ir::{HostPattern, RouteHost};

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
    hosts: Vec<BTreeMap<HostPattern, Taken>>,
    uses: Vec<L>,
    routes: Vec<R>,
}

/// Who has a host.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// How specific the route's own host is.
    specificity: (bool, usize),
    route: u32,
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

    /// Adds a route to the listener that was added last, for those of the hosts that no route has whose own
    /// host is more specific, and no earlier one whose is as specific.
    pub(crate) fn route(&mut self, hosts: &[RouteHost], route: R) {
        let place = number(self.routes.len());
        let Some(table) = self.hosts.last_mut() else { return };
        for RouteHost { host, own } in hosts {
            let taken = Taken { specificity: own.specificity(), route: place };
            let known = table.entry(host.clone()).or_insert(taken);
            if known.specificity < taken.specificity {
                *known = taken;
            }
        }
        self.routes.push(route);
    }

    /// The finished tables.
    pub(crate) fn build(self) -> ServerNames<L, R> {
        let routes = |table: BTreeMap<HostPattern, Taken>| {
            table.into_iter().map(|(host, taken)| (host, taken.route)).collect()
        };
        let hosts: Vec<_> = self.hosts.into_iter().map(routes).collect();
        ServerNames {
            listeners: Hosts::new(&[self.listeners]),
            hosts: Hosts::new(&hosts),
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

    fn hosts(texts: &[&str]) -> Vec<RouteHost> {
        let host = |text: &&str| RouteHost { host: HostPattern::parse(text), own: HostPattern::parse(text) };
        texts.iter().map(host).collect()
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
    fn the_more_specific_host_of_a_route_itself_comes_before_the_older_route() {
        let mut names = ServerNamesBuilder::new();
        names.listener(&HostPattern::parse("a.example.com"), ());
        for (route, own) in [(1, ""), (2, "*.example.com"), (3, "a.example.com"), (4, "*.com")] {
            let (host, own) = (HostPattern::parse("a.example.com"), HostPattern::parse(own));
            names.route(&[RouteHost { host, own }], route);
        }
        assert_eq!(names.build().find(Some("a.example.com")), Some((&(), Some(&3))));
    }

    #[test]
    fn no_name_is_no_wildcard() {
        let mut names: ServerNamesBuilder<_, ()> = ServerNamesBuilder::new();
        names.listener(&HostPattern::parse("*.example.com"), ());
        assert_eq!(names.build().find(None), None);
    }
}
