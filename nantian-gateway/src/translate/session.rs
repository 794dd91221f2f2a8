//! Session persistence, of a rule and of a policy (GEP-1619).

use std::time::Duration;

use gateway_api::experimental::httproutes::{
    HttpRouteRulesSessionPersistence, HttpRouteRulesSessionPersistenceCookieConfigLifetimeType,
    HttpRouteRulesSessionPersistenceType,
};
use nantian_crd::{CookieLifetime, SessionPersistenceType};
use nantian_lb::session::SessionName;

use super::{
    conditions::Reason,
    fault::{Fault, Path},
};
use crate::ir::{SessionCarrier, SessionPersistence};

/// What both kinds say.
struct Spec<'a> {
    name: Option<&'a str>,
    is_header: bool,
    /// Whether there is a `cookieConfig`, and what it says.
    is_permanent: Option<bool>,
    /// The path of the cookie.
    path: Option<&'a str>,
    absolute_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
}

/// The longest name that the API allows.
const MAX_NAME: usize = 128;

/// Reads the session persistence of a rule.
pub(super) fn of_rule(
    spec: &HttpRouteRulesSessionPersistence,
    path: &Path<'_>,
) -> Result<SessionPersistence, Fault> {
    let timeout = |text: Option<&str>, path: &Path<'_>| {
        let Some(text) = text else { return Ok(None) };
        let timeout = text.parse::<nantian_crd::Duration>();
        timeout.map(|timeout| Some(timeout.as_std())).map_err(|error| Fault::unsupported(path, error))
    };
    let is_permanent = spec.cookie_config.as_ref().map(|cookie| {
        cookie.lifetime_type == Some(HttpRouteRulesSessionPersistenceCookieConfigLifetimeType::Permanent)
    });
    let spec = Spec {
        name: spec.session_name.as_deref(),
        is_header: spec.r#type == Some(HttpRouteRulesSessionPersistenceType::Header),
        is_permanent,
        path: None,
        absolute_timeout: timeout(spec.absolute_timeout.as_deref(), &path.field("absoluteTimeout"))?,
        idle_timeout: timeout(spec.idle_timeout.as_deref(), &path.field("idleTimeout"))?,
    };
    read(spec, Reason::UnsupportedValue, path)
}

/// Reads the session persistence of a policy.
pub(super) fn of_policy(
    spec: &nantian_crd::SessionPersistence,
    path: &Path<'_>,
) -> Result<SessionPersistence, Fault> {
    let (cookie, header) = (spec.cookie.as_ref(), spec.header.as_ref());
    // One of the two shapes; that both are not mixed is validated.
    let name = spec.session_name.as_deref();
    let name = name.or_else(|| cookie?.name.as_deref()).or_else(|| header?.name.as_deref());
    let lifetime = spec.cookie_config.as_ref().map(|cookie| cookie.lifetime_type);
    let lifetime = lifetime.or_else(|| Some(cookie?.lifetime_type));
    let spec = Spec {
        name,
        is_header: spec.type_ == SessionPersistenceType::Header,
        is_permanent: lifetime.map(|lifetime| lifetime == CookieLifetime::Permanent),
        path: cookie.and_then(|cookie| cookie.path.as_deref()),
        absolute_timeout: spec.absolute_timeout.as_ref().map(|timeout| timeout.value().as_std()),
        idle_timeout: spec.idle_timeout.as_ref().map(|timeout| timeout.value().as_std()),
    };
    read(spec, Reason::Invalid, path)
}

/// Zero timeouts are none, as everywhere in Gateway API.
fn read(spec: Spec<'_>, reason: Reason, path: &Path<'_>) -> Result<SessionPersistence, Fault> {
    let fault = |path: &Path<'_>, problem: &dyn std::fmt::Display| Fault::at(reason, path, problem);
    let path_of_name = path.field("sessionName");
    if let Some(name) = spec.name {
        if name.len() > MAX_NAME {
            let problem = format_args!("{} bytes, of which it may have {MAX_NAME}", name.len()).to_string();
            return Err(fault(&path_of_name, &problem));
        }
        SessionName::new(name).map_err(|error| fault(&path_of_name, &error))?;
    }
    if spec.is_header && spec.is_permanent.is_some() {
        return Err(fault(&path.field("cookieConfig"), &"is only allowed for type Cookie"));
    }
    let absolute_timeout = spec.absolute_timeout.filter(|timeout| !timeout.is_zero());
    let idle_timeout = spec.idle_timeout.filter(|timeout| !timeout.is_zero());
    let permanent = spec.is_permanent.unwrap_or(false);
    if permanent && absolute_timeout.is_none() {
        let problem = "is required for cookieConfig.lifetimeType Permanent";
        return Err(fault(&path.field("absoluteTimeout"), &problem));
    }
    if let (Some(idle), Some(absolute)) = (idle_timeout, absolute_timeout)
        && idle > absolute
    {
        let problem = format!("{idle:?} is longer than absoluteTimeout, {absolute:?}");
        return Err(fault(&path.field("idleTimeout"), &problem));
    }
    let carrier = if spec.is_header {
        SessionCarrier::Header
    } else {
        SessionCarrier::Cookie { permanent, path: spec.path.map(str::to_owned) }
    };
    Ok(SessionPersistence { name: spec.name.map(str::to_owned), carrier, absolute_timeout, idle_timeout })
}
