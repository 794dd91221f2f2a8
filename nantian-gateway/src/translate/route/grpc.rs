//! GRPCRoute: on the wire a call is a POST to `/service/method`, so the route is read as the HTTPRoute of
//! such paths.

use gateway_api::experimental::{
    grpcroutes::{GrpcRoute, GrpcRouteRulesMatchesMethod, GrpcRouteRulesMatchesMethodType as MethodType},
    httproutes::{HttpRoute, HttpRouteSpec},
};
use serde_json::{Value, json};

use crate::{
    ir::Rule,
    pattern,
    translate::fault::{Fault, Faults, Path},
};

/// What matches any one segment of a path.
const ANY: &str = "[^/]+";

/// A match of a method without its service, which no path says.
pub(super) struct MethodMatch {
    rule: usize,
    found: usize,
    method: String,
}

/// The HTTPRoute that `route` is on the wire but for some matches, and what is wrong with its methods.
pub(super) fn as_http(route: &GrpcRoute) -> (HttpRoute, Vec<MethodMatch>, Faults) {
    let mut faults = Faults::default();
    let mut calls = Vec::new();
    let spec = serde_json::to_value(&route.spec).and_then(|mut spec| {
        calls = paths(route, &mut spec, &mut faults);
        serde_json::from_value::<HttpRouteSpec>(spec)
    });
    let spec = spec.unwrap_or_else(|error| {
        faults.push(Fault::unsupported(&Path::SPEC, error));
        HttpRouteSpec::default()
    });
    let mut http = HttpRoute::new("", spec);
    http.metadata = route.metadata.clone();
    (http, calls, faults)
}

/// Narrows down the matches of methods without a service: they come after those with one, before those of any
/// call.
pub(super) fn name_calls(rules: &mut [Rule], calls: Vec<MethodMatch>) {
    for MethodMatch { rule, found, method } in calls {
        if let Some(found) = rules.get_mut(rule).and_then(|rule| rule.matches.get_mut(found)) {
            found.call = Some(method);
        }
    }
}

/// Puts paths in the place of methods; every other field is called the same in both kinds.
fn paths(route: &GrpcRoute, spec: &mut Value, faults: &mut Faults) -> Vec<MethodMatch> {
    let mut calls = Vec::new();
    let root = Path::SPEC.field("rules");
    for (index, rule) in route.spec.rules.iter().flatten().enumerate() {
        let path = root.index(index);
        let path = path.field("matches");
        for (number, found) in rule.matches.iter().flatten().enumerate() {
            let Some(method) = &found.method else { continue };
            let path = path.index(number);
            let read = faults.keep(path_of(method, &path.field("method")));
            if let Some(method) = only_method(method) {
                calls.push(MethodMatch { rule: index, found: number, method: method.to_owned() });
            }
            let place = spec.pointer_mut(&format!("/rules/{index}/matches/{number}"));
            if let Some(Value::Object(place)) = place {
                place.remove("method");
                place.extend(read.map(|read| ("path".to_owned(), read)));
            }
        }
    }
    calls
}

/// The method that is matched by its name, if no service is.
fn only_method(spec: &GrpcRouteRulesMatchesMethod) -> Option<&str> {
    let is_exact = spec.r#type != Some(MethodType::RegularExpression);
    let has_service = spec.service.as_ref().is_some_and(|service| !service.is_empty());
    spec.method.as_deref().filter(|method| is_exact && !has_service && !method.is_empty())
}

/// The match of a path that means the same as that of a method.
fn path_of(spec: &GrpcRouteRulesMatchesMethod, path: &Path<'_>) -> Result<Value, Fault> {
    let part = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service, method) = (part(&spec.service), part(&spec.method));
    let is_regex = spec.r#type == Some(MethodType::RegularExpression);
    for (name, text) in [("service", &service), ("method", &method)] {
        let Some(text) = text else { continue };
        let is_name =
            |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' && name == "service";
        if is_regex {
            pattern::parse(text).map_err(|_| {
                Fault::unsupported(&path.field(name), format_args!("{text:?} is no expression"))
            })?;
        } else if !text.bytes().all(is_name) {
            return Err(Fault::unsupported(&path.field(name), format_args!("{text:?} is no {name}")));
        }
    }
    let regex = |service: &str, method: &str| json!({"type": "RegularExpression", "value": format!("/(?:{service})/(?:{method})")});
    match (service, method) {
        (None, None) => Err(Fault::unsupported(path, "a service or a method is required")),
        (Some(service), Some(method)) if !is_regex => {
            Ok(json!({"type": "Exact", "value": format!("/{service}/{method}")}))
        }
        (Some(service), None) if !is_regex => {
            Ok(json!({"type": "PathPrefix", "value": format!("/{service}")}))
        }
        (None, Some(_)) if !is_regex => Ok(json!({"type": "PathPrefix", "value": "/"})),
        (service, method) => Ok(regex(service.as_deref().unwrap_or(ANY), method.as_deref().unwrap_or(ANY))),
    }
}
