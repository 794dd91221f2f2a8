//! Where the server is.

use std::fmt;
#[cfg(feature = "redis-tls")]
use std::net::IpAddr;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};

/// The address of a server, with database and credentials:
/// `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`.
///
/// `rediss://` is the same over TLS (feature `redis-tls`). The port is 6379 and the database 0 unless told.
/// Of a cluster any node will do, or a name that all of them have.
/// `Display` and `Debug` show no credentials.
///
/// ```
/// use nantian_ratelimit::redis::RedisUrl;
///
/// let url: RedisUrl = "redis://:s3cret@limits.example:6380/2".parse()?;
/// assert_eq!(url.to_string(), "redis://limits.example:6380/2");
/// assert!("limits.example:6379".parse::<RedisUrl>().is_err());
/// # Ok::<_, nantian_ratelimit::redis::InvalidRedisUrl>(())
/// ```
#[derive(Clone)]
pub struct RedisUrl {
    pub(super) endpoint: Endpoint,
    is_tls: bool,
    pub(super) settings: RedisConnectionInfo,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

/// An address that names no server. The text never repeats the address, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRedisUrl {
    /// Another scheme, or none.
    #[error("the address does not begin with redis:// or rediss://")]
    Scheme,
    /// TLS, in a build without it.
    #[error("rediss:// needs a build with the feature redis-tls")]
    Tls,
    /// The rest does not parse.
    #[error("the address is not redis://HOST:PORT/DATABASE, or rediss:// instead")]
    Syntax,
    /// The database is no number from 0.
    #[error("the database is not a number from 0")]
    Database,
}

impl RedisUrl {
    /// Whether the server is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Who a server there must prove to be. Nodes of a cluster that are told by their addresses alone have
    /// certificates for the name that all are reached by.
    #[cfg(feature = "redis-tls")]
    pub(super) fn server_name<'a>(&'a self, endpoint: &'a Endpoint) -> &'a str {
        let is_address = |host: &str| host.parse::<IpAddr>().is_ok();
        let is_told = !is_address(&endpoint.host) || is_address(&self.endpoint.host);
        if is_told { &endpoint.host } else { &self.endpoint.host }
    }
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidRedisUrl::Scheme)?;
        let is_tls = match scheme {
            "redis" => false,
            "rediss" if cfg!(feature = "redis-tls") => true,
            "rediss" => return Err(InvalidRedisUrl::Tls),
            _ => return Err(InvalidRedisUrl::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(InvalidRedisUrl::Syntax);
        }
        let database = rest.split_once('/').map_or("", |(_, database)| database);
        if !database.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidRedisUrl::Database);
        }
        let plain = format!("redis://{rest}");
        let info: ConnectionInfo = plain.into_connection_info().map_err(|_| InvalidRedisUrl::Syntax)?;
        let ConnectionAddr::Tcp(host, port) = info.addr().clone() else {
            return Err(InvalidRedisUrl::Syntax);
        };
        if host.is_empty() {
            return Err(InvalidRedisUrl::Syntax);
        }
        let settings = info.redis_settings().clone().set_lib_name("nantian", env!("CARGO_PKG_VERSION"));
        Ok(Self { endpoint: Endpoint { host, port }, is_tls, settings })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}/{}", self.endpoint, self.settings.db())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Reads where a server says that a key is, `HOST:PORT`: an address of IPv6 has no brackets there, and
    /// who says no host means its own.
    pub(super) fn of_redirect(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { &asked.host } else { host };
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_shown_without_its_credentials() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://user:hidden@h:1/15", "redis://h:1/15"),
            ("redis://[::1]:6379/1", "redis://[::1]:6379/1"),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("hidden"));
        }
    }

    #[test]
    #[cfg(feature = "redis-tls")]
    fn an_address_with_tls_is_shown_as_one() {
        let url: RedisUrl = "rediss://:hidden@h/3".parse().unwrap();
        assert!(url.is_tls());
        assert_eq!(url.to_string(), "rediss://h:6379/3");
        for (node, name) in [("node.test", "node.test"), ("10.0.0.2", "h"), ("::1", "h")] {
            let endpoint = Endpoint { host: node.to_owned(), port: 1 };
            assert_eq!(url.server_name(&endpoint), name);
            let url: RedisUrl = "rediss://10.0.0.1".parse().unwrap();
            assert_eq!(url.server_name(&endpoint), node);
        }
        for wrong in ["rediss://", "rediss://:hidden@h:1/0#insecure"] {
            assert_eq!(wrong.parse::<RedisUrl>().unwrap_err(), InvalidRedisUrl::Syntax, "{wrong}");
        }
    }

    #[test]
    #[cfg(not(feature = "redis-tls"))]
    fn tls_in_a_build_without_it_is_refused() {
        assert_eq!("rediss://h:1/0".parse::<RedisUrl>().unwrap_err(), InvalidRedisUrl::Tls);
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for (text, error) in [
            ("", InvalidRedisUrl::Scheme),
            ("127.0.0.1:6379", InvalidRedisUrl::Scheme),
            ("unix://h:1/0", InvalidRedisUrl::Scheme),
            ("redis://", InvalidRedisUrl::Syntax),
            ("redis://hidden:99999/0", InvalidRedisUrl::Syntax),
            ("redis://h:1/hidden", InvalidRedisUrl::Database),
            ("redis://h:1/-1", InvalidRedisUrl::Database),
            ("redis://h:1/0?hidden=1", InvalidRedisUrl::Syntax),
        ] {
            let found = text.parse::<RedisUrl>().unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("hidden"));
        }
    }
}
