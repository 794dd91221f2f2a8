//! Session persistence, of a rule or of a BackendLBPolicy.

use nantian_lb::session::{
    CookieConfig, CookieLifetime, InvalidSession, SessionCarrier, SessionConfig, SessionKeys, SessionName,
    Sessions,
};

use crate::{
    compile::RulePosition,
    ir::{self, PathMatch, RouteMatch},
};

/// Where sessions are kept: one rule of one route of one Gateway. Two rules share none.
#[derive(Debug)]
pub(crate) struct SessionScope {
    text: String,
    /// The path of its cookies.
    path: String,
    /// Whether clients come over TLS.
    is_secure: bool,
}

impl SessionScope {
    /// The rule with this number; one that has a name is known by that.
    pub(crate) fn new(place: &RulePosition, rule: &ir::Rule, number: usize, is_secure: bool) -> Self {
        let name = rule.name.clone().unwrap_or_else(|| format!("[{number}]"));
        let text = format!("{} {} {name}", place.gateway, place.route);
        Self { text, path: common_path(&rule.matches), is_secure }
    }

    /// The sessions that are kept there as `spec` says.
    ///
    /// # Errors
    /// [`InvalidSession`] for what the translator refuses already.
    pub(crate) fn sessions(
        &self,
        spec: &ir::SessionPersistence,
        keys: &SessionKeys,
    ) -> Result<Sessions, InvalidSession> {
        let name = spec.name.as_deref().and_then(|name| SessionName::new(name).ok());
        let name = name.unwrap_or_else(|| SessionName::derived_from(&self.text));
        let carrier = match &spec.carrier {
            ir::SessionCarrier::Cookie { permanent, path } => {
                let lifetime = if *permanent { CookieLifetime::Permanent } else { CookieLifetime::Session };
                let path = path.as_deref().unwrap_or(&self.path);
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

/// The path that all paths of a rule begin with, whole segments (GEP-1619): two rules for different paths whose cookies have
/// one name do not take each other's place.
fn common_path(matches: &[RouteMatch]) -> String {
    let mut paths = matches.iter().map(|one| literal(&one.path));
    let Some(first) = paths.next() else { return "/".to_owned() };
    let common = paths.fold(first.split('/').collect::<Vec<_>>(), |common, path| {
        let same = common.into_iter().zip(path.split('/')).take_while(|(one, other)| one == other);
        same.map(|(segment, _)| segment).collect()
    });
    let path = common.join("/");
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    if path.starts_with('/') && path.bytes().all(fits) { path } else { "/".to_owned() }
}

/// What a path that matches begins with.
fn literal(path: &PathMatch) -> &str {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path,
        // Of several alternatives only one matches.
        PathMatch::Regex(expression) if expression.contains('|') => "/",
        PathMatch::Regex(expression) => {
            let expression = expression.strip_prefix('^').unwrap_or(expression);
            let end = expression.find(|c: char| !c.is_ascii_alphanumeric() && !"/-_~%".contains(c));
            let plain = expression.get(..end.unwrap_or(expression.len())).unwrap_or("/");
            // The last character may be repeated or left out.
            plain.rsplit_once('/').map_or("/", |(segments, _)| segments)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[PathMatch]) -> String {
        let matches: Vec<_> =
            paths.iter().map(|path| RouteMatch { path: path.clone(), ..RouteMatch::default() }).collect();
        common_path(&matches)
    }

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.to_owned())
    }

    #[test]
    fn the_path_of_a_cookie_is_what_the_paths_of_its_rule_have_in_common() {
        for (paths, expected) in [
            (vec![], "/"),
            (vec![prefix("/")], "/"),
            (vec![prefix("/shop")], "/shop"),
            (vec![PathMatch::Exact("/shop/cart".to_owned())], "/shop/cart"),
            (vec![prefix("/shop/cart"), prefix("/shop/order")], "/shop"),
            (vec![prefix("/shop"), prefix("/shopping")], "/"),
            (vec![prefix("/shop"), prefix("/shop/cart")], "/shop"),
            (vec![prefix("/a;b")], "/"),
        ] {
            assert_eq!(of(&paths), expected, "{paths:?}");
        }
    }

    #[test]
    fn of_an_expression_it_is_the_segments_before_what_varies() {
        for (expression, expected) in [
            ("/p1/p2/[^/]+/p3", "/p1/p2"),
            ("^/p1/p2/.*", "/p1/p2"),
            ("/shops?/.*", "/"),
            ("/shop/(a|b)", "/"),
            ("/shop/cart", "/shop"),
            ("(?i)/shop/.*", "/"),
            (".*", "/"),
        ] {
            assert_eq!(of(&[PathMatch::Regex(expression.to_owned())]), expected, "{expression}");
        }
    }
}
