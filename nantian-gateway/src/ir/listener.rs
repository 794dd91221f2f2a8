//! Sockets, listeners, and the routes attached to them.

use std::{fmt, net::IpAddr};

use serde::{Serialize, Serializer};

use super::{HostPattern, ObjectName, Policies, RouteId, Secret};

/// One socket to bind; the listeners of every Gateway that share it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Port {
    /// The address to bind; `None` binds all interfaces.
    pub address: Option<IpAddr>,
    /// The TCP port.
    pub port: u16,
    /// The port that clients know, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// What is spoken on the socket; the same for all its listeners.
    pub protocol: ListenerProtocol,
    /// The listeners, in the order of [`ListenerId`].
    pub listeners: Vec<Listener>,
}

/// What a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2 by prior knowledge.
    Http,
    /// The same behind TLS, HTTP/2 by ALPN.
    Https,
}

impl fmt::Display for ListenerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
        })
    }
}

/// One listener of one Gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listener {
    /// Whose listener it is.
    pub id: ListenerId,
    /// The hosts it accepts.
    pub hostname: HostPattern,
    /// The certificates to choose from by SNI, in the order of the Gateway; empty for plain HTTP.
    pub certificates: Vec<Certificate>,
    /// Policies on the Gateway, then on this listener.
    pub policies: Policies,
    /// The routes that this listener serves, in the order of [`super::Ir::routes`].
    pub routes: Vec<Attachment>,
}

/// The Gateway and the listener's name in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId {
    /// The Gateway.
    pub gateway: ObjectName,
    /// `Gateway.spec.listeners[].name`.
    pub name: String,
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.gateway, self.name)
    }
}

impl Serialize for ListenerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A route on a listener, for the hosts that both name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attachment {
    /// The route, one of [`super::Ir::routes`].
    pub route: RouteId,
    /// The hosts, at least one; the intersection of the listener's host and the route's hosts.
    pub hostnames: Vec<HostPattern>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Certificate {
    /// The Secret it came from.
    pub secret: ObjectName,
    /// `tls.crt`: the chain in PEM, leaf first.
    #[serde(skip)]
    pub chain: Vec<u8>,
    /// `tls.key`: the private key in PEM.
    pub key: Secret,
}
