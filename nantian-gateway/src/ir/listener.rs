//! Sockets, listeners, and the routes attached to them.

use std::{fmt, net::IpAddr};

use serde::{Serialize, Serializer};

use super::{ClientValidation, HostPattern, ObjectName, Policies, RouteId, RouteKind, Secret};

/// One socket to bind; the listeners of every Gateway that share it. TCP and UDP have sockets of their own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Port {
    /// The address to bind; `None` binds all interfaces.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The port that clients know, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// What is spoken on the socket.
    pub protocol: SocketProtocol,
    /// The listeners, in the order of [`ListenerId`].
    pub listeners: Vec<Listener>,
}

/// What carries the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "Gateway API knows no other")]
pub enum Transport {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// What a socket speaks, as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum SocketProtocol {
    /// HTTP in clear text.
    Http,
    /// TLS: by the server name of a connection it is known which listener it is for.
    Tls,
    /// Connections of one route.
    Tcp,
    /// Datagrams of one route.
    Udp,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2 by prior knowledge.
    Http,
    /// The same behind TLS, HTTP/2 by ALPN.
    Https,
    /// Connections whose TLS ends here.
    Tls,
    /// Connections whose TLS is the backend's, `tls.mode: Passthrough`.
    #[serde(rename = "TLS passthrough")]
    TlsPassthrough,
    /// Connections as they are.
    Tcp,
    /// Datagrams as they are.
    Udp,
}

/// One listener of one Gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listener {
    /// Whose listener it is.
    pub id: ListenerId,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// The hosts it accepts.
    pub hostname: HostPattern,
    /// The certificates to choose from by SNI, in the order of the Gateway; empty where no TLS ends.
    pub certificates: Vec<Certificate>,
    /// What its clients have to prove; `None` is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_validation: Option<ClientValidation>,
    /// What is presented to backends that ask for a certificate; that of the Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<Certificate>,
    /// Policies on the Gateway, then on its ListenerSet if it has one, then on this listener.
    pub policies: Policies,
    /// The routes that this listener serves, in the order of [`super::Ir::routes`].
    pub routes: Vec<Attachment>,
}

// === impl SocketProtocol ===

impl SocketProtocol {
    /// What carries it.
    pub const fn transport(self) -> Transport {
        match self {
            Self::Http | Self::Tls | Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }
}

impl fmt::Display for SocketProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

// === impl ListenerProtocol ===

impl ListenerProtocol {
    /// What a socket speaks that has such a listener.
    pub const fn socket(self) -> SocketProtocol {
        match self {
            Self::Http => SocketProtocol::Http,
            Self::Https | Self::Tls | Self::TlsPassthrough => SocketProtocol::Tls,
            Self::Tcp => SocketProtocol::Tcp,
            Self::Udp => SocketProtocol::Udp,
        }
    }

    /// Whether TLS ends at the listener, which needs a certificate for it.
    pub const fn ends_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Whether the gateway speaks TLS itself to backends whose policy wants it, as opposed to passing on what
    /// is TLS already or no connection (GEP-1897).
    pub const fn begins_tls(self) -> bool {
        !matches!(self, Self::TlsPassthrough | Self::Udp)
    }

    /// The kinds of routes that it can have.
    pub const fn routes(self) -> &'static [RouteKind] {
        match self {
            Self::Http | Self::Https => &[RouteKind::Http, RouteKind::Grpc],
            Self::Tls | Self::TlsPassthrough => &[RouteKind::Tls],
            Self::Tcp => &[RouteKind::Tcp],
            Self::Udp => &[RouteKind::Udp],
        }
    }
}

impl fmt::Display for ListenerProtocol {
    /// As the Gateway spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tls | Self::TlsPassthrough => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Where a listener is declared, and its name there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId {
    /// The Gateway.
    pub gateway: ObjectName,
    /// The ListenerSet that declares it; `None` is the Gateway itself.
    pub set: Option<ObjectName>,
    /// `spec.listeners[].name`.
    pub name: String,
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            Some(set) => write!(f, "{}/ListenerSet {set}/{}", self.gateway, self.name),
            None => write!(f, "{}/{}", self.gateway, self.name),
        }
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
    /// The hosts, at least one and each once.
    pub hostnames: Vec<RouteHost>,
}

/// A host of a route on a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RouteHost {
    /// The intersection of the listener's host and that of the route.
    pub host: HostPattern,
    /// The most specific host of the route that gives it: by this its routes are told apart.
    #[serde(skip)]
    pub own: HostPattern,
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
