//! Session persistence, of a rule or of a BackendLBPolicy.

use nantian_lb::session::{
    CookieConfig, CookieLifetime, InvalidSession, SessionCarrier, SessionConfig, SessionKeys, SessionName,
    Sessions,
};

use crate::{compile::Place, ir};

/// Where sessions are kept: one rule of one route of one Gateway. Two rules share none.
#[derive(Debug)]
pub struct SessionScope {
    text: String,
    /// Whether clients come over TLS.
    is_secure: bool,
}

impl SessionScope {
    /// The rule with this number; one that has a name is known by that.
    pub fn new(place: &Place, rule: &ir::Rule, number: usize, is_secure: bool) -> Self {
        let rule = rule.name.clone().unwrap_or_else(|| format!("[{number}]"));
        Self { text: format!("{} {} {rule}", place.gateway, place.route), is_secure }
    }

    /// The sessions that are kept there as `spec` says.
    ///
    /// # Errors
    /// [`InvalidSession`] for what the translator refuses already.
    pub fn sessions(
        &self,
        spec: &ir::SessionPersistence,
        keys: &SessionKeys,
    ) -> Result<Sessions, InvalidSession> {
        let name = spec.name.as_deref().and_then(|name| SessionName::new(name).ok());
        let name = name.unwrap_or_else(|| SessionName::derived_from(&self.text));
        let carrier = match &spec.carrier {
            ir::SessionCarrier::Cookie { permanent, path } => {
                let lifetime = if *permanent { CookieLifetime::Permanent } else { CookieLifetime::Session };
                let cookie = CookieConfig::default().with_lifetime(lifetime).with_path(path.as_str());
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
