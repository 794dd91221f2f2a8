//! TLSRoute, TCPRoute and UDPRoute: their fields are called as those of an HTTPRoute are, of which they have
//! a few.

use gateway_api::experimental::httproutes::{HttpRoute, HttpRouteSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::AnyRoute;
use crate::{
    ir::RouteId,
    translate::fault::{Fault, Faults, Path},
};

/// A route of connections or datagrams, read as an HTTPRoute.
pub(super) fn written<'a>(id: RouteId, metadata: &ObjectMeta, spec: &impl Serialize) -> AnyRoute<'a> {
    let mut refused = Faults::default();
    let spec = serde_json::to_value(spec).and_then(serde_json::from_value::<HttpRouteSpec>);
    let spec = spec.unwrap_or_else(|error| {
        refused.push(Fault::unsupported(&Path::SPEC, error));
        HttpRouteSpec::default()
    });
    refuse_further_rules(&spec, &mut refused);
    let mut route = HttpRoute::new("", spec);
    route.metadata = metadata.clone();
    AnyRoute { id, route: std::borrow::Cow::Owned(route), calls: Vec::new(), refused }
}

/// Nothing could tell the connections of one rule from those of another.
fn refuse_further_rules(spec: &HttpRouteSpec, refused: &mut Faults) {
    let rules = spec.rules.as_ref().map_or(0, Vec::len);
    if rules != 1 {
        let path = Path::SPEC.field("rules");
        refused.push(Fault::unsupported(&path, format_args!("{rules} rules, of which the route needs one")));
    }
}
