//! What is known of a stream beside its messages.

use std::net::SocketAddr;
use std::sync::Arc;

use super::filter_state::FilterState;
use super::upstream::UpstreamAddress;
use crate::module::Digest;

/// What the embedder knows about a stream and its messages do not say. All of it is unknown by default.
///
/// The layer takes it from the request's extensions, or asks for it
/// ([`WasmLayer::stream_info`](crate::WasmLayer::stream_info)); absent, nothing is known.
///
/// ```
/// # use nantian_wasm::{StreamInfo, WasmLayer};
/// # let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 80));
/// let info = StreamInfo::default().with_source(peer).with_route("shop");
/// let layer = WasmLayer::new([]).stream_info(move |_| info.clone());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// The client's address: `source.address`, `source.port`.
    pub source: Option<SocketAddr>,
    /// The address the client connected to: `destination.address`, `destination.port`.
    pub destination: Option<SocketAddr>,
    /// Whether the client's connection is encrypted: `:scheme` where the request does not say.
    pub tls: bool,
    /// Whether the client asks to leave HTTP: its headers do not end what it sends, whatever the body says.
    pub upgrade: bool,
    /// Where the request goes, from when it is known on: `upstream.address`, `upstream.port`.
    pub upstream: Option<UpstreamAddress>,
    /// A number of the client's connection: `connection.id`.
    pub connection_id: Option<u64>,
    /// The host name the client asked for in its TLS handshake: `connection.requested_server_name`.
    pub server_name: Option<Arc<str>>,
    /// Version of the client's TLS, such as `TLSv1.3`: `connection.tls_version`.
    pub tls_version: Option<Arc<str>>,
    /// The certificate that the client showed, if it was verified: `connection.mtls` says whether there is
    /// one.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// Name of the matched route: `xds.route_name`, `route_name`.
    pub route: Option<Arc<str>>,
    /// Name of the backend: `xds.cluster_name`, `cluster_name`.
    pub cluster: Option<Arc<str>>,
    /// What guests have set of the request in other streams, and will set in this one.
    pub filter_state: Option<FilterState>,
}

/// What guests are told of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// SHA-256 of the certificate as it is sent, in DER: `connection.sha256_peer_certificate_digest`.
    pub sha256: Digest,
    /// The first URI of its alternative names: `connection.uri_san_peer_certificate`.
    pub uri: Option<String>,
    /// The first host name of its alternative names: `connection.dns_san_peer_certificate`.
    pub dns: Option<String>,
}

// === impl StreamInfo ===

impl StreamInfo {
    /// Sets [`source`](Self::source).
    #[must_use]
    pub fn with_source(mut self, address: SocketAddr) -> Self {
        self.source = Some(address);
        self
    }

    /// Sets [`destination`](Self::destination).
    #[must_use]
    pub fn with_destination(mut self, address: SocketAddr) -> Self {
        self.destination = Some(address);
        self
    }

    /// Sets [`tls`](Self::tls).
    #[must_use]
    pub fn with_tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// Sets [`upgrade`](Self::upgrade).
    #[must_use]
    pub fn with_upgrade(mut self, upgrade: bool) -> Self {
        self.upgrade = upgrade;
        self
    }

    /// Sets [`upstream`](Self::upstream).
    #[must_use]
    pub fn with_upstream(mut self, upstream: UpstreamAddress) -> Self {
        self.upstream = Some(upstream);
        self
    }

    /// Sets [`connection_id`](Self::connection_id).
    #[must_use]
    pub fn with_connection_id(mut self, id: u64) -> Self {
        self.connection_id = Some(id);
        self
    }

    /// Sets [`server_name`](Self::server_name).
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Sets [`tls_version`](Self::tls_version).
    #[must_use]
    pub fn with_tls_version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.tls_version = Some(version.into());
        self
    }

    /// Sets [`client_certificate`](Self::client_certificate).
    #[must_use]
    pub fn with_client_certificate(mut self, certificate: impl Into<Arc<ClientCertificate>>) -> Self {
        self.client_certificate = Some(certificate.into());
        self
    }

    /// Sets [`route`](Self::route).
    #[must_use]
    pub fn with_route(mut self, name: impl Into<Arc<str>>) -> Self {
        self.route = Some(name.into());
        self
    }

    /// Sets [`cluster`](Self::cluster).
    #[must_use]
    pub fn with_cluster(mut self, name: impl Into<Arc<str>>) -> Self {
        self.cluster = Some(name.into());
        self
    }

    /// Sets [`filter_state`](Self::filter_state).
    #[must_use]
    pub fn with_filter_state(mut self, state: FilterState) -> Self {
        self.filter_state = Some(state);
        self
    }
}

// === impl ClientCertificate ===

impl ClientCertificate {
    /// A certificate of this digest, without alternative names.
    pub fn new(sha256: Digest) -> Self {
        Self { sha256, uri: None, dns: None }
    }

    /// Sets [`uri`](Self::uri).
    #[must_use]
    pub fn with_uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// Sets [`dns`](Self::dns).
    #[must_use]
    pub fn with_dns(mut self, name: impl Into<String>) -> Self {
        self.dns = Some(name.into());
        self
    }
}
