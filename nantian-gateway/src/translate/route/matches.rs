//! Matches: which requests a rule takes.

use gateway_api::experimental::httproutes::{
    HttpRouteRulesMatches, HttpRouteRulesMatchesHeaders, HttpRouteRulesMatchesHeadersType as HeaderType,
    HttpRouteRulesMatchesMethod as MethodSpec, HttpRouteRulesMatchesPath,
    HttpRouteRulesMatchesPathType as PathType, HttpRouteRulesMatchesQueryParams,
    HttpRouteRulesMatchesQueryParamsType as QueryType,
};
use http::{HeaderName, Method};

use super::filters::is_path;
use crate::{
    ir::{self, KeyMatch, PathMatch, RouteMatch, ValueMatch},
    pattern::Share,
    spelling,
    translate::fault::{Fault, Faults, Path},
};

/// Parts of a path by which a request could reach what a prefix or exact match seems to protect.
const UNNORMALISED: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];

/// Reads the matches of a rule; one without any takes every request.
pub(super) fn read(
    matches: &[HttpRouteRulesMatches],
    path: &Path<'_>,
    patterns: Share<'_>,
    refused: &mut Faults,
) -> Vec<RouteMatch> {
    if matches.is_empty() {
        return vec![RouteMatch::default()];
    }
    let matches = matches.iter().enumerate();
    matches.filter_map(|(index, spec)| refused.keep(read_one(spec, &path.index(index), patterns))).collect()
}

fn read_one(spec: &HttpRouteRulesMatches, path: &Path<'_>, patterns: Share<'_>) -> Result<RouteMatch, Fault> {
    Ok(RouteMatch {
        path: match &spec.path {
            Some(spec) => path_match(spec, &path.field("path"), patterns)?,
            None => RouteMatch::default().path,
        },
        method: spec.method.as_ref().map(|spec| method(spec, &path.field("method"))).transpose()?,
        headers: headers(spec.headers.as_deref().unwrap_or_default(), &path.field("headers"), patterns)?,
        query: query(spec.query_params.as_deref().unwrap_or_default(), &path.field("queryParams"), patterns)?,
        call: None,
    })
}

fn path_match(
    spec: &HttpRouteRulesMatchesPath,
    path: &Path<'_>,
    patterns: Share<'_>,
) -> Result<PathMatch, Fault> {
    let value = spec.value.as_deref().unwrap_or("/");
    let path = path.field("value");
    match spec.r#type.as_ref().unwrap_or(&PathType::PathPrefix) {
        PathType::RegularExpression => {
            check_pattern(value, value, patterns, &path)?;
            Ok(PathMatch::Regex(value.to_owned()))
        }
        PathType::Exact => plain_path(value, &path).map(PathMatch::Exact),
        PathType::PathPrefix => {
            let value = plain_path(value, &path)?;
            let prefix = value.strip_suffix('/').unwrap_or(&value);
            Ok(PathMatch::Prefix(if prefix.is_empty() { "/" } else { prefix }.to_owned()))
        }
    }
}

/// A path in the spelling that requests are brought to.
fn plain_path(value: &str, path: &Path<'_>) -> Result<String, Fault> {
    if !is_path(value) {
        return Err(Fault::unsupported(path, format_args!("{value:?} is not an absolute path")));
    }
    let refused = |error| Fault::unsupported(path, format_args!("{value:?}: {error}"));
    let unescaped = spelling::unescaped(value).map_err(refused)?;
    let unnormalised_part = unnormalised_part(value).or_else(|| unnormalised_part(&unescaped));
    if let Some(part) = unnormalised_part {
        return Err(Fault::unsupported(path, format_args!("{value:?} contains {part:?}")));
    }
    spelling::normal(&unescaped).map_err(refused)
}

fn unnormalised_part(value: &str) -> Option<&'static str> {
    let inside = UNNORMALISED.into_iter().find(|part| value.contains(part));
    inside.or_else(|| ["/..", "/."].into_iter().find(|end| value.ends_with(end)))
}

/// Of several entries whose names differ in the case of their letters only the first counts.
fn headers(
    specs: &[HttpRouteRulesMatchesHeaders],
    path: &Path<'_>,
    patterns: Share<'_>,
) -> Result<Vec<KeyMatch<HeaderName>>, Fault> {
    let mut matches: Vec<KeyMatch<HeaderName>> = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let path = path.index(index);
        refuse_twice(&spec.name, specs.iter().take(index).map(|earlier| &earlier.name), &path)?;
        let name = HeaderName::from_bytes(spec.name.as_bytes()).map_err(|_| {
            Fault::unsupported(&path.field("name"), format_args!("{:?} is not a header name", spec.name))
        })?;
        if matches.iter().any(|earlier| earlier.name == name) {
            continue;
        }
        let is_regex = spec.r#type == Some(HeaderType::RegularExpression);
        let value = value_match(&spec.name, &spec.value, is_regex, &path.field("value"), patterns)?;
        matches.push(KeyMatch { name, value });
    }
    Ok(matches)
}

fn query(
    specs: &[HttpRouteRulesMatchesQueryParams],
    path: &Path<'_>,
    patterns: Share<'_>,
) -> Result<Vec<KeyMatch<String>>, Fault> {
    let mut matches: Vec<KeyMatch<String>> = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let path = path.index(index);
        refuse_twice(&spec.name, specs.iter().take(index).map(|earlier| &earlier.name), &path)?;
        if spec.name.is_empty() {
            return Err(Fault::unsupported(&path.field("name"), "\"\" is not a parameter name"));
        }
        let is_regex = spec.r#type == Some(QueryType::RegularExpression);
        let value = value_match(&spec.name, &spec.value, is_regex, &path.field("value"), patterns)?;
        matches.push(KeyMatch { name: spec.name.clone(), value });
    }
    Ok(matches)
}

/// One of two entries with the same name would not count.
fn refuse_twice<'n>(
    name: &String,
    mut earlier: impl Iterator<Item = &'n String>,
    path: &Path<'_>,
) -> Result<(), Fault> {
    if earlier.any(|earlier| earlier == name) {
        return Err(Fault::unsupported(
            &path.field("name"),
            format_args!("{name:?} is the name of an earlier entry"),
        ));
    }
    Ok(())
}

fn value_match(
    name: &str,
    value: &str,
    is_regex: bool,
    path: &Path<'_>,
    patterns: Share<'_>,
) -> Result<ValueMatch, Fault> {
    if !is_regex {
        return Ok(ValueMatch::Exact(value.to_owned()));
    }
    let shown = if ir::is_sensitive(name) { ir::REDACTED } else { value };
    check_pattern(value, shown, patterns, path)?;
    Ok(ValueMatch::Regex(value.to_owned()))
}

fn method(spec: &MethodSpec, path: &Path<'_>) -> Result<Method, Fault> {
    Ok(match spec {
        MethodSpec::Get => Method::GET,
        MethodSpec::Head => Method::HEAD,
        MethodSpec::Post => Method::POST,
        MethodSpec::Put => Method::PUT,
        MethodSpec::Delete => Method::DELETE,
        // It has no path to be routed by.
        MethodSpec::Connect => return Err(Fault::unsupported(path, "CONNECT is not served")),
        MethodSpec::Options => Method::OPTIONS,
        MethodSpec::Trace => Method::TRACE,
        MethodSpec::Patch => Method::PATCH,
    })
}

/// Refuses what is no regular expression, which is `shown` in its place.
fn check_pattern(expression: &str, shown: &str, patterns: Share<'_>, path: &Path<'_>) -> Result<(), Fault> {
    patterns.whole_match(expression).map_err(|error| {
        // The last line of the error says what is wrong; those before it draw an arrow.
        let error = error.to_string();
        let error = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Fault::unsupported(path, format_args!("{shown:?}: {error}"))
    })
}
