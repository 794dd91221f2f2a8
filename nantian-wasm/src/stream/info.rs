//! What is known of a stream beside its messages.

use std::net::SocketAddr;
use std::sync::Arc;

use super::upstream::UpstreamAddress;

/// What the embedder knows about a stream and its messages do not say.
///
/// The layer takes it from the request's extensions, or asks for it
/// ([`WasmLayer::stream_info`](crate::WasmLayer::stream_info)); absent, nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// The client's address: `source.address`, `source.port`.
    pub source: Option<SocketAddr>,
    /// The address the client connected to: `destination.address`, `destination.port`.
    pub destination: Option<SocketAddr>,
    /// Whether the client's connection is encrypted: `:scheme` where the request does not say.
    pub tls: bool,
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
}

/// What guests are told of a client's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// SHA-256 of the certificate, in lower-case hexadecimal digits:
    /// `connection.sha256_peer_certificate_digest`.
    pub sha256: String,
    /// The first URI of its alternative names: `connection.uri_san_peer_certificate`.
    pub uri: Option<String>,
    /// The first host name of its alternative names: `connection.dns_san_peer_certificate`.
    pub dns: Option<String>,
}
