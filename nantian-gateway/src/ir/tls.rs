//! TLS to backends, and what certificates are verified against.

use serde::Serialize;

use super::{HostPattern, ObjectName};

/// How connections to a backend are opened.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum BackendTransport {
    /// In clear text.
    #[default]
    Plain,
    /// Over TLS, from its BackendTLSPolicy.
    Tls(BackendTls),
    /// Not at all for requests: the port speaks TLS, and nothing says how a certificate is verified. What
    /// clients of a TCPRoute, or of a TLSRoute whose TLS is passed through, say in TLS of their own is passed
    /// on as it is.
    Passthrough,
    /// Not at all: TLS is asked for, and nothing says how a certificate is verified.
    Refused,
}

impl BackendTransport {
    /// Whether it is clear text.
    pub fn is_plain(&self) -> bool {
        *self == Self::Plain
    }
}

/// How the certificate of a backend is verified.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTls {
    /// The name that is asked for (SNI), and that the certificate has to cover where `subject_names` is
    /// empty.
    pub hostname: String,
    /// Who may have issued it; `None` is who the operating system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<Authorities>,
    /// Names of which the certificate has to have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_names: Vec<SubjectName>,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SubjectName {
    /// A host name, or a wildcard that the certificate has to spell.
    Hostname(HostPattern),
    /// A URI, compared as it is written.
    Uri(String),
}

/// Authorities that may have issued a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorities {
    /// The ConfigMaps that they came from.
    pub config_maps: Vec<ObjectName>,
    /// Their certificates in DER; at least one.
    #[serde(skip)]
    pub certificates: Vec<Vec<u8>>,
}

/// What the clients of a listener have to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    /// Who may have issued their certificates.
    pub authorities: Authorities,
    /// Whether one is served, too, that has none, or another one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure_fallback: bool,
}
