//! Filters: what a rule or a backendRef does to a request and its response.

use std::collections::HashSet;

use http::{HeaderName, HeaderValue, StatusCode, uri::PathAndQuery};
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::{
    cors,
    filter_spec::{ExtensionSpec, FilterSpec, HeadersSpec, MirrorSpec, PathSpec, RedirectSpec, RewriteSpec},
};
use crate::{
    ir::{Filter, HeaderModifier, PathRewrite, Redirect, UrlRewrite},
    translate::{
        conditions::Reason,
        fault::{Fault, Faults, Path},
        hostname,
    },
};

/// Headers that frame a message or belong to one connection: the gateway alone sets them.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Where filters stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FilterPosition<'m> {
    Rule {
        /// The prefix of paths, without a `/` at its end, if the rule has exactly one match, of one.
        prefix: Option<&'m str>,
        /// Whether the rule sends requests anywhere.
        has_backends: bool,
    },
    Backend {
        prefix: Option<&'m str>,
        /// Whether the rule has rewritten the path already.
        is_rewritten: bool,
    },
}

/// A list of filters, read.
pub(super) struct Filters<'a> {
    pub(super) list: Vec<Filter>,
    /// The filters of other groups, with their positions in the list.
    pub(super) extensions: Vec<(usize, ExtensionSpec<'a>)>,
    /// The mirrors, with their positions in the list.
    pub(super) mirrors: Vec<(usize, MirrorSpec<'a>)>,
}

/// Reads a list of filters.
pub(super) fn read<'a, F>(
    filters: &'a [F],
    place: FilterPosition<'_>,
    path: &Path<'_>,
    refused: &mut Faults,
) -> Filters<'a>
where
    FilterSpec<'a>: From<&'a F>,
{
    let (mut extensions, mut mirrors) = (Vec::new(), Vec::new());
    let mut read: Vec<Filter> = Vec::with_capacity(filters.len());
    for (index, filter) in filters.iter().enumerate() {
        let path = path.index(index);
        let filter = match FilterSpec::from(filter) {
            FilterSpec::RequestHeaders(spec) => {
                headers(&spec, &path.field("requestHeaderModifier")).map(Filter::RequestHeaders)
            }
            FilterSpec::ResponseHeaders(spec) => {
                headers(&spec, &path.field("responseHeaderModifier")).map(Filter::ResponseHeaders)
            }
            FilterSpec::Redirect(spec) => {
                redirect(&spec, place, &path.field("requestRedirect")).map(Filter::Redirect)
            }
            FilterSpec::Rewrite(spec) => {
                rewrite(&spec, place, &path.field("urlRewrite")).map(Filter::UrlRewrite)
            }
            FilterSpec::Cors(spec) => cors::read(&spec, &path.field("cors")).map(Filter::Cors),
            FilterSpec::Extension(spec) => {
                extensions.push((index, spec));
                continue;
            }
            FilterSpec::Mirror(spec) => {
                mirrors.push((index, spec));
                continue;
            }
            FilterSpec::Unserved(kind) => {
                Err(Fault::unsupported(&path.field("type"), format_args!("{kind} is not served yet")))
            }
            FilterSpec::Absent(field) => {
                Err(Fault::unsupported(&path.field(field), "the filter's type requires it"))
            }
            FilterSpec::Stray(field) => {
                Err(Fault::unsupported(&path.field(field), "the filter has another type"))
            }
        };
        let filter = filter.and_then(|filter| match read.iter().find(|earlier| exclude(earlier, &filter)) {
            Some(earlier) => Err(incompatible(&path, &filter, earlier)),
            None => Ok(filter),
        });
        read.extend(refused.keep(filter));
    }
    Filters { list: read, extensions, mirrors }
}

/// A type may occur once, and a redirect leaves nothing to rewrite.
fn exclude(left: &Filter, right: &Filter) -> bool {
    let is_routing = |filter: &Filter| matches!(filter, Filter::Redirect(_) | Filter::UrlRewrite(_));
    name(left) == name(right) || is_routing(left) && is_routing(right)
}

fn incompatible(path: &Path<'_>, filter: &Filter, earlier: &Filter) -> Fault {
    let message = if name(filter) == name(earlier) {
        format!("{} may occur once", name(filter))
    } else {
        format!("{} excludes {}", name(filter), name(earlier))
    };
    Fault::at(Reason::IncompatibleFilters, path, message)
}

fn name(filter: &Filter) -> &'static str {
    match filter {
        Filter::RequestHeaders(_) => "RequestHeaderModifier",
        Filter::ResponseHeaders(_) => "ResponseHeaderModifier",
        Filter::Redirect(_) => "RequestRedirect",
        Filter::UrlRewrite(_) => "URLRewrite",
        Filter::Cors(_) => "CORS",
    }
}

fn headers(spec: &HeadersSpec<'_>, path: &Path<'_>) -> Result<HeaderModifier, Fault> {
    let path_of_remove = path.field("remove");
    let remove = spec.remove.iter().enumerate();
    let remove = remove.map(|(index, name)| header_name(name, &path_of_remove.index(index)));
    Ok(HeaderModifier {
        set: entries(&spec.set, &path.field("set"))?,
        add: entries(&spec.add, &path.field("add"))?,
        remove: remove.collect::<Result<_, _>>()?,
    })
}

fn entries(entries: &[(&str, &str)], path: &Path<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    let entries = entries.iter().enumerate();
    let read = entries.map(|(index, (name, value))| {
        let path = path.index(index);
        Ok((header_name(name, &path.field("name"))?, header_value(value, &path.field("value"))?))
    });
    let mut read = read.collect::<Result<Vec<_>, _>>()?;
    // The first of several equivalent names counts (Gateway API, HTTPHeader.name).
    let mut seen = HashSet::new();
    read.retain(|(name, _)| seen.insert(name.clone()));
    Ok(read)
}

/// What is wrong with a value is told without it: it may be a credential.
fn header_value(value: &str, path: &Path<'_>) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(value).map_err(|_| {
        let stray = value.bytes().enumerate().find(|(_, byte)| byte.is_ascii_control() && *byte != b'\t');
        let (position, byte) = stray.unwrap_or_default();
        Fault::unsupported(path, format_args!("no header value has a byte {byte:#04x}, as at {position}"))
    })
}

fn header_name(name: &str, path: &Path<'_>) -> Result<HeaderName, Fault> {
    let valid = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Fault::unsupported(path, format_args!("{name:?} is not a header name")))?;
    if FRAMING.contains(&valid.as_str()) {
        return Err(Fault::unsupported(
            path,
            format_args!("{valid} frames the message and cannot be modified"),
        ));
    }
    Ok(valid)
}

fn redirect(spec: &RedirectSpec<'_>, place: FilterPosition<'_>, path: &Path<'_>) -> Result<Redirect, Fault> {
    match place {
        FilterPosition::Rule { has_backends: true, .. } => {
            return Err(Fault::unsupported(path, "a rule that redirects has no backendRefs"));
        }
        FilterPosition::Rule { .. } | FilterPosition::Backend { .. } => {}
    }
    let port = spec.port.map(|port| match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Fault::unsupported(&path.field("port"), format_args!("{port} is not in 1..=65535"))),
    });
    let status = match spec.status {
        Some(301) => Ok(StatusCode::MOVED_PERMANENTLY),
        None | Some(302) => Ok(StatusCode::FOUND),
        Some(303) => Ok(StatusCode::SEE_OTHER),
        Some(307) => Ok(StatusCode::TEMPORARY_REDIRECT),
        Some(308) => Ok(StatusCode::PERMANENT_REDIRECT),
        Some(other) => Err(other),
    };
    let status = status.map_err(|status| {
        let message = format!("{status} is not one of 301, 302, 303, 307, 308");
        Fault::unsupported(&path.field("statusCode"), message)
    })?;
    Ok(Redirect {
        scheme: spec.scheme,
        hostname: host(spec.hostname, path)?,
        path: spec.path.map(|spec| path_rewrite(spec, place, &path.field("path"))).transpose()?,
        port: port.transpose()?,
        status,
    })
}

fn rewrite(spec: &RewriteSpec<'_>, place: FilterPosition<'_>, path: &Path<'_>) -> Result<UrlRewrite, Fault> {
    let hostname = host(spec.hostname, path)?;
    let hostname = hostname.map(|name| header_value(&name, &path.field("hostname")));
    Ok(UrlRewrite {
        hostname: hostname.transpose()?,
        path: spec.path.map(|spec| path_rewrite(spec, place, &path.field("path"))).transpose()?,
    })
}

fn host(hostname: Option<&str>, path: &Path<'_>) -> Result<Option<String>, Fault> {
    match hostname {
        Some(name) if !hostname::is_name(name) => {
            Err(Fault::unsupported(&path.field("hostname"), format_args!("{name:?} is not a host name")))
        }
        name => Ok(name.map(str::to_ascii_lowercase)),
    }
}

fn path_rewrite(
    spec: PathSpec<'_>,
    place: FilterPosition<'_>,
    path: &Path<'_>,
) -> Result<PathRewrite, Fault> {
    match spec {
        PathSpec::Full(full) if is_path(full) => Ok(PathRewrite::Full(escaped(full))),
        PathSpec::Full(full) => {
            Err(Fault::unsupported(&path.field("replaceFullPath"), format_args!("{full:?} is not a path")))
        }
        PathSpec::Prefix(replacement) => {
            prefix_rewrite(replacement, place, &path.field("replacePrefixMatch"))
        }
        PathSpec::Absent(field) => Err(Fault::unsupported(&path.field(field), "the path's type requires it")),
    }
}

fn prefix_rewrite(
    replacement: &str,
    place: FilterPosition<'_>,
    path: &Path<'_>,
) -> Result<PathRewrite, Fault> {
    let matched = match place {
        FilterPosition::Backend { is_rewritten: true, .. } => {
            let message = "the rule has rewritten the path already";
            return Err(Fault::at(Reason::IncompatibleFilters, path, message));
        }
        FilterPosition::Rule { prefix, .. } | FilterPosition::Backend { prefix, .. } => prefix,
    };
    let Some(matched) = matched else {
        return Err(Fault::unsupported(path, "needs a rule with exactly one match, of type PathPrefix"));
    };
    if !replacement.is_empty() && !is_path(replacement) {
        return Err(Fault::unsupported(path, format_args!("{replacement:?} is not a path")));
    }
    Ok(PathRewrite::Prefix { matched: matched.to_owned(), replacement: escaped(replacement) })
}

/// What is not ASCII as the escapes of its UTF-8, as it is in the paths of requests.
fn escaped(path: &str) -> String {
    utf8_percent_encode(path, CONTROLS).to_string()
}

/// Whether the text is an absolute path without query and fragment.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains(['?', '#']) && PathAndQuery::try_from(text).is_ok()
}
