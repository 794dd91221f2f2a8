//! Certificates that sign themselves.

use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// A certificate that signs itself.
pub(crate) struct Certificate(CertifiedKey<KeyPair>);

impl Certificate {
    /// A certificate for these names.
    pub(crate) fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self(rcgen::generate_simple_self_signed(names).unwrap())
    }

    /// The certificate as it is on the wire.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.cert.der().clone()
    }

    /// The certificate as text.
    pub(crate) fn pem(&self) -> String {
        self.0.cert.pem()
    }

    /// The private key as text.
    pub(crate) fn key_pem(&self) -> String {
        self.0.signing_key.serialize_pem()
    }

    /// The Secret that holds it.
    pub(crate) fn secret(&self, name: &str) -> String {
        self.secret_with_key_of(name, self)
    }

    /// A Secret that holds it and the key of `other`.
    pub(crate) fn secret_with_key_of(&self, name: &str, other: &Self) -> String {
        let indent = |pem: String| pem.replace('\n', "\n    ");
        format!(
            "
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {{name: {name}, namespace: demo}}
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
",
            indent(self.pem()),
            indent(other.key_pem())
        )
    }

    /// A server that presents it.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der()], key);
        Arc::new(config.unwrap())
    }

    /// A client that trusts `certificates` and offers `protocols`.
    pub(crate) fn client(certificates: &[&Self], protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate.der()).unwrap();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}
