//! Session persistence, of a rule or of a BackendLBPolicy.

use std::{collections::HashMap, sync::Arc};

use nantian_lb::session::{
    CookieConfig, CookieLifetime, InvalidSession, SessionCarrier, SessionConfig, SessionKeys, SessionName,
    Sessions,
};

use crate::{
    compile::RulePosition,
    ir::{self, HostPattern, RouteHost},
};

/// Where sessions are kept: one rule of one route of one Gateway. Two rules share none.
#[derive(Debug)]
pub(crate) struct SessionScope {
    text: String,
    gateway: Arc<str>,
    /// Whether clients come over TLS.
    is_secure: bool,
}

/// Which rule has the cookie of a name, at each host.
///
/// To a browser two cookies with one name and path are one, and two rules share no session.
#[derive(Debug, Default)]
pub(crate) struct CookieNames<'a>(HashMap<Cookie<'a>, String>);

/// What tells cookies of a browser apart, of one Gateway.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Cookie<'a> {
    gateway: Arc<str>,
    host: &'a HostPattern,
    name: &'a str,
    path: &'a str,
}

/// The path of cookies of which nothing else is said (GEP-1619): what is in front of the gateway may have
/// rewritten those of the rule.
const EVERY_PATH: &str = "/";

// === impl SessionScope ===

impl SessionScope {
    /// The rule with this number; one that has a name is known by that.
    pub(crate) fn new(place: &RulePosition, rule: &ir::Rule, number: usize, is_secure: bool) -> Self {
        let name = rule.name.clone().unwrap_or_else(|| format!("[{number}]"));
        let text = format!("{} {} {name}", place.gateway, place.route);
        Self { text, gateway: Arc::clone(&place.gateway), is_secure }
    }

    /// The sessions that are kept there as `spec` says, under this name.
    ///
    /// # Errors
    /// [`InvalidSession`] for what the translator refuses already.
    pub(crate) fn sessions(
        &self,
        spec: &ir::SessionPersistence,
        name: SessionName,
        keys: &SessionKeys,
    ) -> Result<Sessions, InvalidSession> {
        let carrier = match &spec.carrier {
            ir::SessionCarrier::Cookie { permanent, path } => {
                let lifetime = if *permanent { CookieLifetime::Permanent } else { CookieLifetime::Session };
                let path = path.as_deref().unwrap_or(EVERY_PATH);
                let cookie = CookieConfig::default().with_lifetime(lifetime).with_path(path);
                SessionCarrier::Cookie(cookie.with_secure(self.is_secure))
            }
            ir::SessionCarrier::Header => SessionCarrier::Header,
        };
        let mut config = SessionConfig::new(name, carrier);
        config.absolute_timeout = spec.absolute_timeout;
        config.idle_timeout = spec.idle_timeout;
        Sessions::new(config, &self.text, keys)
    }
}

// === impl CookieNames ===

impl<'a> CookieNames<'a> {
    /// The name of the sessions that are kept at `scope`, a rule for `hosts`, as `spec` says: one of its own
    /// if it says none, or if an earlier rule has a cookie of that name.
    pub(crate) fn name(
        &mut self,
        scope: &SessionScope,
        hosts: &'a [RouteHost],
        spec: &'a ir::SessionPersistence,
    ) -> SessionName {
        let name = spec.name.as_deref().filter(|name| self.is_free(scope, hosts, name, &spec.carrier));
        let name = name.and_then(|name| SessionName::new(name).ok());
        name.unwrap_or_else(|| SessionName::derived_from(&scope.text))
    }

    fn is_free(
        &mut self,
        scope: &SessionScope,
        hosts: &'a [RouteHost],
        name: &'a str,
        carrier: &'a ir::SessionCarrier,
    ) -> bool {
        let ir::SessionCarrier::Cookie { path, .. } = carrier else { return true };
        let path = path.as_deref().unwrap_or(EVERY_PATH);
        let cookie =
            |at: &'a RouteHost| Cookie { gateway: Arc::clone(&scope.gateway), host: &at.host, name, path };
        let is_own = |owner: &String| *owner == scope.text;
        let is_free = hosts.iter().all(|at| self.0.get(&cookie(at)).is_none_or(is_own));
        if is_free {
            self.0.extend(hosts.iter().map(|at| (cookie(at), scope.text.clone())));
        }
        is_free
    }
}
