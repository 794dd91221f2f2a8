//! Certificates that sign themselves.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedKey, IsCa, KeyPair, SanType, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme, crypto::aws_lc_rs,
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// A certificate that signs itself.
pub(crate) struct Certificate(CertifiedKey<KeyPair>);

impl Certificate {
    /// A certificate for these names.
    pub(crate) fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self(rcgen::generate_simple_self_signed(names).unwrap())
    }

    /// A certificate for these names whose key is of this kind.
    pub(crate) fn of_key(names: &[&str], kind: &'static rcgen::SignatureAlgorithm) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let signing_key = KeyPair::generate_for(kind).unwrap();
        let cert = CertificateParams::new(names).unwrap().self_signed(&signing_key).unwrap();
        Self(CertifiedKey { cert, signing_key })
    }

    /// A certificate for these names that was valid until 2020.
    pub(crate) fn expired(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(2020, 1, 1);
        let signing_key = KeyPair::generate().unwrap();
        Self(CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key })
    }

    /// A certificate for this name that may issue others, as `openssl req -x509` makes them.
    pub(crate) fn of_authority(name: &str) -> Self {
        Self::of_authority_until(name, 4096)
    }

    /// The same, valid until 2020.
    pub(crate) fn of_authority_expired(name: &str) -> Self {
        Self::of_authority_until(name, 2020)
    }

    fn of_authority_until(name: &str, year: i32) -> Self {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(year, 1, 1);
        let signing_key = KeyPair::generate().unwrap();
        Self(CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key })
    }

    /// A certificate for a URI.
    pub(crate) fn of_uri(uri: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let signing_key = KeyPair::generate().unwrap();
        Self(CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key })
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

    /// The ConfigMap of authorities that it is the only one of.
    pub(crate) fn authority(&self, name: &str) -> String {
        let pem = self.pem().replace('\n', "\n    ");
        format!(
            "\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: demo}}\ndata:\n  ca.crt: |\n    {pem}\n"
        )
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

    /// A server that presents it and speaks one of `protocols`.
    pub(crate) fn server_offering(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.server());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A server that presents it to clients whose certificate is `client`, and to no others.
    pub(crate) fn server_for(&self, client: &Self) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(client.der()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
        let key = PrivateKeyDer::from_pem_slice(self.key_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![self.der()], key);
        Arc::new(config.unwrap())
    }

    /// The same client, which has this certificate for servers that ask for one.
    pub(crate) fn presented_by(&self, client: &ClientConfig) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem().as_bytes()).unwrap();
        let provider = aws_lc_rs::default_provider();
        let key = rustls::sign::CertifiedKey::from_der(vec![self.der()], key, &provider).unwrap();
        let mut client = client.clone();
        client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
        Arc::new(client)
    }

    /// A client that trusts `certificates` and offers `protocols`.
    pub(crate) fn client(certificates: &[&Self], protocols: &[&str]) -> Arc<ClientConfig> {
        Self::client_of(certificates, protocols, aws_lc_rs::default_provider())
    }

    /// A client that trusts `certificates` and can verify signatures of one kind alone.
    pub(crate) fn client_verifying(certificates: &[&Self], scheme: SignatureScheme) -> Arc<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        let known = provider.signature_verification_algorithms.mapping.iter().copied();
        let mapping: Vec<_> = known.filter(|(known, _)| *known == scheme).collect();
        provider.signature_verification_algorithms.mapping = mapping.leak();
        Self::client_of(certificates, &[], provider)
    }

    fn client_of(
        certificates: &[&Self],
        protocols: &[&str],
        provider: rustls::crypto::CryptoProvider,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate.der()).unwrap();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}
