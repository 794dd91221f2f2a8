//! How near the endpoints of a Service are, where the Service or its EndpointSlices make a difference.

use std::borrow::Cow;

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};

use super::service::is_ready;

/// Where something runs; an empty part is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locality {
    /// The zone, such as `eu-west-1a`.
    pub zone: String,
    /// The node.
    pub node: String,
}

/// What decides about the nearness of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopologyPreference<'a> {
    /// Nothing: all are the same.
    Same,
    /// Their zone: `trafficDistribution: PreferSameZone`, or `PreferClose` as it was called.
    Zone(&'a str),
    /// Their node, then their zone: `trafficDistribution: PreferSameNode`.
    Node(&'a Locality),
    /// Which zones they are meant for: their hints.
    Hints(&'a str),
}

/// Where this gateway runs: as it is told, or else in the zone that some endpoint on its node is in.
pub(super) fn locate<'a>(
    here: &'a Locality,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Cow<'a, Locality> {
    if here.node.is_empty() || !here.zone.is_empty() {
        return Cow::Borrowed(here);
    }
    let mut neighbours = slices.into_iter().flat_map(|slice| &slice.endpoints);
    let zone = neighbours.find_map(|endpoint| {
        let is_here = endpoint.node_name.as_deref() == Some(here.node.as_str());
        endpoint.zone.as_deref().filter(|zone| is_here && !zone.is_empty())
    });
    match zone {
        Some(zone) => Cow::Owned(Locality { zone: zone.to_owned(), node: here.node.clone() }),
        None => Cow::Borrowed(here),
    }
}

// === impl TopologyPreference ===

impl<'a> TopologyPreference<'a> {
    /// What decides about the endpoints of a Service, as seen from `here`.
    pub(super) fn of(service: &Service, slices: &[&EndpointSlice], here: &'a Locality) -> Self {
        let zone = here.zone.as_str();
        let preference = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
        match preference {
            Some("PreferSameNode") => Self::Node(here),
            _ if zone.is_empty() => Self::Same,
            Some("PreferSameZone" | "PreferClose") => Self::Zone(zone),
            _ if all_have_hints(slices) => Self::Hints(zone),
            _ => Self::Same,
        }
    }

    /// What a Service asks for and nobody can tell, because it is not known where this gateway runs.
    pub(super) fn unknown<'s>(service: &'s Service, here: &Locality) -> Option<&'s str> {
        let preference = service.spec.as_ref()?.traffic_distribution.as_deref()?;
        let is_known = match preference {
            "PreferSameNode" => !here.node.is_empty(),
            _ => !here.zone.is_empty(),
        };
        (!is_known).then_some(preference)
    }

    /// The tier of an endpoint; the lowest is preferred.
    pub(super) fn tier(self, endpoint: &Endpoint) -> u8 {
        let is_in = |zone: &str| !zone.is_empty() && endpoint.zone.as_deref() == Some(zone);
        match self {
            Self::Same => 0,
            Self::Zone(zone) => u8::from(!is_in(zone)),
            Self::Node(here) => {
                let is_on =
                    !here.node.is_empty() && endpoint.node_name.as_deref() == Some(here.node.as_str());
                if is_on { 0 } else { 1 + u8::from(!is_in(&here.zone)) }
            }
            Self::Hints(zone) => u8::from(!hints(endpoint).any(|hint| hint == zone)),
        }
    }
}

/// Kubernetes: hints count if all endpoints that are ready have them. Others are given none.
fn all_have_hints(slices: &[&EndpointSlice]) -> bool {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let mut ready = endpoints.filter(|endpoint| is_ready(endpoint)).peekable();
    ready.peek().is_some() && ready.all(|endpoint| hints(endpoint).next().is_some())
}

fn hints(endpoint: &Endpoint) -> impl Iterator<Item = &str> {
    let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref());
    zones.unwrap_or_default().iter().map(|zone| zone.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_of_a_node_is_that_of_the_endpoints_there() {
        let endpoint = |node: &str, zone: &str| Endpoint {
            node_name: Some(node.to_owned()),
            zone: Some(zone.to_owned()),
            ..Endpoint::default()
        };
        let slice = EndpointSlice {
            endpoints: vec![endpoint("node-2", "b"), endpoint("node-1", ""), endpoint("node-1", "a")],
            ..EndpointSlice::default()
        };
        for (zone, node, expected) in
            [("", "node-1", "a"), ("c", "node-1", "c"), ("", "node-3", ""), ("", "", "")]
        {
            let told = Locality { zone: zone.to_owned(), node: node.to_owned() };
            assert_eq!(locate(&told, [&slice]).zone, expected, "{told:?}");
        }
    }
}
