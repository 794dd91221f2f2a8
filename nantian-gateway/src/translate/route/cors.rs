//! The CORS filter.

use http::{HeaderName, HeaderValue, Method};

use super::filter_spec::CorsSpec;
use crate::{
    ir::{Cors, Names, OriginPattern},
    translate::fault::{Fault, Path},
};

/// How long a preflight may be remembered if the filter does not say, in seconds.
const MAX_AGE: u32 = 5;

/// Reads a CORS filter.
pub(super) fn read(spec: &CorsSpec<'_>, path: &Path<'_>) -> Result<Cors, Fault> {
    let path_of_origins = path.field("allowOrigins");
    let origins = spec.origins.iter().enumerate().map(|(index, text)| {
        OriginPattern::parse(text).ok_or_else(|| {
            let message = format_args!("{text:?} is neither * nor an origin of http or https").to_string();
            Fault::unsupported(&path_of_origins.index(index), message)
        })
    });
    let is_header = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
    let max_age = match spec.max_age.map(u32::try_from) {
        None => MAX_AGE,
        Some(Ok(seconds)) if seconds > 0 => seconds,
        Some(_) => return Err(Fault::unsupported(&path.field("maxAge"), "must be at least 1")),
    };
    Ok(Cors {
        origins: origins.collect::<Result<_, _>>()?,
        credentials: spec.credentials,
        methods: names(spec.methods, &path.field("allowMethods"), "method", is_method)?,
        headers: names(spec.headers, &path.field("allowHeaders"), "header", is_header)?,
        exposed: names(spec.exposed, &path.field("exposeHeaders"), "header", is_header)?,
        max_age_seconds: max_age,
    })
}

fn is_method(name: &str) -> bool {
    Method::from_bytes(name.as_bytes()).is_ok()
}

/// Reads a list in which `*` stands for everything and then stands alone.
fn names(
    names: &[String],
    path: &Path<'_>,
    what: &str,
    is_valid: impl Fn(&str) -> bool,
) -> Result<Names, Fault> {
    if names.iter().any(|name| name == "*") {
        return match names {
            [_] => Ok(Names::Any),
            _ => Err(Fault::unsupported(path, "* stands alone")),
        };
    }
    match names.iter().position(|name| !is_valid(name)) {
        None if names.is_empty() => Ok(Names::default()),
        None => {
            let list = HeaderValue::try_from(names.join(", "));
            Ok(Names::Listed(Some(list.map_err(|error| Fault::unsupported(path, error))?)))
        }
        Some(index) => {
            let message =
                format!("{:?} is not the name of a {what}", names.get(index).map_or("", |name| name));
            Err(Fault::unsupported(&path.index(index), message))
        }
    }
}
