//! Why the server is away.

#[cfg(feature = "redis-tls")]
use std::{error::Error, io, sync::Arc};

use redis::{ErrorKind, RedisError, ServerErrorKind};
#[cfg(feature = "redis-tls")]
use tokio_rustls::rustls;

/// Why the last attempt to reach the server failed. It shows neither an address nor a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    /// Nobody runs the [`RedisDriver`](super::RedisDriver) any more.
    #[error("the driver of the connection has been dropped")]
    NoDriver,
    /// Nobody listens at the address, or its host is not known.
    #[error("no connection can be opened")]
    Connect,
    /// TLS is not told how, or the server's certificate is not trusted, or it trusts none of this process, or
    /// it answers with something else.
    #[error("TLS cannot be agreed on")]
    Tls,
    /// What tells the password, or what TLS needs, has failed.
    #[error("the password or the certificates cannot be read")]
    Unreadable,
    /// The server has not answered in time. One that is waiting for commands without TLS does not answer to
    /// TLS either.
    #[error("no answer in time")]
    Timeout,
    /// The server wants other credentials, or permits the user too little.
    #[error("the credentials are refused")]
    Credentials,
    /// The server lets no script use some command that every server has, as servers that are managed may do.
    #[error("the server permits too little to scripts")]
    Scripts,
    /// The server has no database of that number.
    #[error("there is no such database")]
    Database,
    /// The server takes no writes: it is a replica, or has no memory or disk left.
    #[error("the server takes no writes")]
    ReadOnly,
    /// The server is still reading its data.
    #[error("the server is loading")]
    Loading,
    /// The cluster is down, or has no node for some keys.
    #[error("the cluster has no node for some keys")]
    Cluster,
    /// The connection broke off.
    #[error("the connection broke off")]
    Broken,
    /// An answer that a Redis or Valkey server does not give.
    #[error("the server answers something else")]
    Strange,
}

impl From<&RedisError> for StoreFault {
    fn from(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm), _)
            | (_, Some("NOAUTH" | "WRONGPASS")) => Self::Credentials,
            _ if is_forbidden(error) => Self::Credentials,
            _ if told(error).contains("not allowed from script") => Self::Scripts,
            _ if is_of_database(error) => Self::Database,
            (_, Some("MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN")) => Self::Cluster,
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) | (_, Some("OOM" | "MISCONF")) => {
                Self::ReadOnly
            }
            (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => Self::Loading,
            _ if is_of_tls(error) => Self::Tls,
            _ if error.is_timeout() => Self::Timeout,
            _ if error.is_connection_refusal() => Self::Connect,
            _ if error.is_connection_dropped() => Self::Broken,
            (ErrorKind::Io, _) => Self::Connect,
            _ => Self::Strange,
        }
    }
}

/// Whether a script was not permitted something, which is an error like others:
/// `ERR The user executing the script can't run this command`; or a client to choose a database, of which
/// the code is not told.
fn is_forbidden(error: &RedisError) -> bool {
    let told = told(error);
    ["user executing the script", "NOPERM", "no permissions", "Authentication required"]
        .iter()
        .any(|forbidden| told.contains(forbidden))
}

/// Whether there is no such database: `ERR DB index is out of range`, or
/// `ERR SELECT is not allowed in cluster mode`.
fn is_of_database(error: &RedisError) -> bool {
    let told = told(error);
    told.contains("DB index") || told.contains("SELECT is not allowed")
}

/// Whether TLS has failed on an open connection: by TLS 1.3 a client that is not trusted hears so from its
/// first read.
#[cfg(feature = "redis-tls")]
fn is_of_tls(error: &RedisError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    io.and_then(io::Error::get_ref).is_some_and(|cause| cause.is::<rustls::Error>())
}

#[cfg(not(feature = "redis-tls"))]
fn is_of_tls(_: &RedisError) -> bool {
    false
}

/// What the server says besides the code.
fn told(error: &RedisError) -> &str {
    error.detail().unwrap_or_default()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_scripts_have_no_time_is_told_apart_from_one_that_wants_other_credentials() {
        for (told, fault) in [
            (
                "-ERR This Redis command is not allowed from script script: 53aa, on @user_script:13.",
                StoreFault::Scripts,
            ),
            (
                "-ERR Error running script (call to f_a): @user_script:2: This Redis command is not allowed from scripts",
                StoreFault::Scripts,
            ),
            (
                "-ERR The user executing the script can't run this command or subcommand script: 53aa",
                StoreFault::Credentials,
            ),
        ] {
            let answer = redis::parse_redis_value(format!("{told}\r\n").as_bytes()).unwrap();
            assert_eq!(StoreFault::from(&answer.extract_error().unwrap_err()), fault, "{told}");
        }
    }
}
