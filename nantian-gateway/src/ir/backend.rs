//! Upstream Services and their endpoints.

use std::{fmt, net::SocketAddr};

use http::HeaderName;
use serde::{Serialize, Serializer};

use super::{BackendTransport, ObjectName, Policies, SessionPersistence, Transport, shown};

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// The Service.
    pub service: ObjectName,
    /// The Service's port number.
    pub port: u16,
    /// What it is reached by: a Service may have the same number for both.
    pub transport: Transport,
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)?;
        match self.transport {
            Transport::Tcp => Ok(()),
            Transport::Udp => f.write_str("/udp"),
        }
    }
}

impl Serialize for BackendId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a Service is spoken to and balanced.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Backend {
    /// The protocol, from `appProtocol`.
    pub protocol: Protocol,
    /// What is below that, from its BackendTLSPolicy.
    #[serde(skip_serializing_if = "BackendTransport::is_plain")]
    pub transport: BackendTransport,
    /// Balancing, from its BackendLBPolicy.
    pub load_balancing: LoadBalancing,
    /// TokenPolicies and WasmPlugins on the Service.
    pub policies: Policies,
}

/// What a backend speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1, upgrades included (`kubernetes.io/ws` too).
    #[default]
    Http1,
    /// HTTP/2 without HTTP/1.1 (`kubernetes.io/h2c`, `h2c`, `http2`, `grpc`): with prior knowledge in clear
    /// text, by ALPN over TLS.
    H2c,
}

/// Balancing over the endpoints of a backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LoadBalancing {
    /// How an endpoint is chosen.
    pub strategy: Strategy,
    /// `circuitBreaker.maxInflightRequests`, for each endpoint; `None` is no bound.
    pub max_inflight_requests: Option<u32>,
    /// How clients stay with their endpoints, where the rule does not say it; `None` is not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionPersistence>,
}

impl LoadBalancing {
    /// Whether endpoints are placed by the client's address.
    pub fn asks_for_client(&self) -> bool {
        matches!(&self.strategy, Strategy::ConsistentHash(hash) if hash.key == HashKey::SourceIp)
    }

    /// Whether it can take the place of `other` without any route being built anew.
    pub fn is_in_place_of(&self, other: &Self) -> bool {
        self.asks_for_client() == other.asks_for_client() && self.session == other.session
    }
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Strategy {
    /// In turn.
    #[default]
    RoundRobin,
    /// At random.
    Random,
    /// The less loaded of two random endpoints.
    LeastRequest,
    /// By a key of the request.
    ConsistentHash(ConsistentHash),
}

/// Consistent hashing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum HashKey {
    /// The client's address.
    SourceIp,
    /// The value of this header.
    Header(#[serde(serialize_with = "shown::display")] HeaderName),
    /// The host of the request.
    Hostname,
}

/// One endpoint of a backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endpoint {
    /// A stable identity: the pod's name where there is one, else the address.
    pub id: String,
    /// Where it listens.
    pub address: Address,
    /// It is about to end and still serves: it keeps its sessions, and is the last resort for other requests.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// How near it is, from 0 on: endpoints of a lower tier are preferred.
    #[serde(skip_serializing_if = "is_nearest")]
    pub tier: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_nearest(tier: &u8) -> bool {
    *tier == 0
}

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Address {
    /// An IP address and port, of an EndpointSlice.
    Ip(SocketAddr),
    /// The host of a URL or an `externalName`, which is resolved when a connection is opened, and a port.
    Dns(String, u16),
}
