//! Verification of the certificate of a backend, as its policy wants it.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::ir::{BackendTls, HostPattern, SubjectName};

/// Accepts what `roots` vouch for, and what the policy has named itself.
pub(super) struct BackendVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Certificates of the policy in DER.
    authorities: Vec<Vec<u8>>,
    /// One of them is enough, whatever name was asked for; that one if there are none.
    names: Vec<SubjectName>,
}

// === impl BackendVerifier ===

impl BackendVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
        policy: &BackendTls,
    ) -> Self {
        let authorities = policy.authorities.as_ref().map(|authorities| authorities.certificates.clone());
        let names = policy.subject_names.clone();
        Self { roots, algorithms, authorities: authorities.unwrap_or_default(), names }
    }

    /// Whether a certificate is one of the policy's, and holds now. To webpki an authority is no server, but
    /// what `openssl req -x509` makes is both.
    fn is_trusted_itself(&self, certificate: &EndEntityCert<'_>, now: UnixTime) -> bool {
        // What webpki has against it comes after the period.
        let verified =
            || certificate.verify_for_usage(&[], &[], &[], now, KeyUsage::server_auth(), None, None).err();
        self.authorities.iter().any(|authority| **authority == *certificate.der())
            && matches!(verified(), Some(webpki::Error::CaUsedAsEndEntity | webpki::Error::UnknownIssuer))
    }

    fn accepts(&self, certificate: &EndEntityCert<'_>) -> bool {
        self.names.iter().any(|name| match name {
            SubjectName::Uri(uri) => certificate.valid_uri_names().any(|own| own == uri),
            SubjectName::Hostname(HostPattern::Exact(host)) => ServerName::try_from(host.as_str())
                .is_ok_and(|host| certificate.verify_is_valid_for_subject_name(&host).is_ok()),
            SubjectName::Hostname(pattern) => {
                let spelt = pattern.to_string();
                certificate.valid_dns_names().any(|own| own.eq_ignore_ascii_case(&spelt))
            }
        })
    }
}

impl ServerCertVerifier for BackendVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        if !self.is_trusted_itself(&certificate, now) {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        }
        if self.names.is_empty() {
            verify_server_name(&parsed, asked)?;
        } else if !self.accepts(&certificate) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for BackendVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendVerifier").field("names", &self.names).finish_non_exhaustive()
    }
}
