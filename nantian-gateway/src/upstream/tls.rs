//! TLS towards backends and providers.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::verifier::BackendVerifier;
use crate::ir::{Authorities, BackendTls};

/// Sessions with one backend that can be resumed.
const SESSIONS: usize = 64;

/// Who is expected behind TLS, and what proves it.
#[derive(Clone)]
pub(crate) struct UpstreamTls {
    name: Arc<str>,
    /// `None` is that of the client.
    config: Option<Arc<ClientConfig>>,
}

/// What the gateway presents to backends that ask for a certificate.
#[derive(Clone)]
pub(crate) struct ClientIdentity(Arc<SingleCertAndKey>);

/// The roots that the operating system trusts, read once.
#[derive(Clone)]
pub(crate) struct Roots(Arc<RootCertStore>);

/// TLS that cannot be set up.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("TLS to {hostname} cannot be set up")]
pub(crate) struct InvalidTls {
    /// The name that would be asked for.
    pub(crate) hostname: String,
    /// Why.
    #[source]
    pub(crate) source: rustls::Error,
}

/// A configuration that trusts the roots of the operating system.
///
/// # Errors
/// When the provider offers none of the default protocol versions.
pub(crate) fn client_config(roots: &Roots) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(&roots.0))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The same, with a certificate for servers that ask for one.
///
/// # Errors
/// When the key is not that of the certificate, or the provider offers none of the default protocol versions.
pub(crate) fn client_config_presenting(
    roots: &Roots,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(&roots.0))
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

// === impl Roots ===

impl Roots {
    /// No roots: nobody is trusted.
    pub(crate) fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// Reads those of the operating system; what cannot be read is left out and logged.
    pub(crate) fn of_system() -> Self {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a root certificate cannot be read");
        }
        let (_, ignored) = roots.add_parsable_certificates(found.certs);
        if ignored > 0 {
            tracing::debug!(ignored, "root certificates that cannot be parsed");
        }
        Self(Arc::new(roots))
    }

    /// These and no others.
    ///
    /// # Errors
    /// When one can vouch for nobody.
    pub(crate) fn of<'a>(
        certificates: impl IntoIterator<Item = CertificateDer<'a>>,
    ) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate)?;
        }
        Ok(Self(Arc::new(roots)))
    }

    fn or(&self, authorities: Option<&Authorities>) -> Result<Arc<RootCertStore>, rustls::Error> {
        let Some(authorities) = authorities else { return Ok(Arc::clone(&self.0)) };
        let certificates = authorities.certificates.iter().map(Vec::as_slice).map(CertificateDer::from);
        Ok(Self::of(certificates)?.0)
    }
}

// === impl UpstreamTls ===

impl UpstreamTls {
    /// Expects a certificate for `name` that the roots of the client vouch for.
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.into(), config: None }
    }

    /// Verifies the backend as its policy wants it.
    ///
    /// # Errors
    /// When an authority is none, or the provider offers none of the default protocol versions.
    pub(crate) fn of_backend(policy: &BackendTls, system: &Roots) -> Result<Self, InvalidTls> {
        let config = || {
            let roots = system.or(policy.authorities.as_ref())?;
            let provider = provider();
            let algorithms = provider.signature_verification_algorithms;
            let verifier = Arc::new(BackendVerifier::new(roots, algorithms, policy));
            let builder =
                ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
            let mut config = builder.with_no_client_auth();
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Ok(config)
        };
        let config = config().map_err(|source| InvalidTls { hostname: policy.hostname.clone(), source })?;
        Ok(Self { name: policy.hostname.as_str().into(), config: Some(Arc::new(config)) })
    }

    /// The same, with a certificate for backends that ask for one.
    #[must_use]
    pub(crate) fn presenting(&self, identity: &ClientIdentity) -> Self {
        let config = self.config.as_ref().map(|config| {
            let mut config = ClientConfig::clone(config);
            config.client_auth_cert_resolver = Arc::clone(&identity.0) as _;
            // A session is that of who began it.
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Arc::new(config)
        });
        Self { name: Arc::clone(&self.name), config }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn config(&self) -> Option<&Arc<ClientConfig>> {
        self.config.as_ref()
    }
}

impl PartialEq for UpstreamTls {
    /// Connections may be shared only where both name and verification are the same.
    fn eq(&self, other: &Self) -> bool {
        let is_same_config = match (&self.config, &other.config) {
            (Some(this), Some(that)) => Arc::ptr_eq(this, that),
            (None, None) => true,
            _ => false,
        };
        is_same_config && self.name == other.name
    }
}

impl Eq for UpstreamTls {}

impl Hash for UpstreamTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpstreamTls").field(&self.name).finish()
    }
}

// === impl ClientIdentity ===

impl From<Arc<CertifiedKey>> for ClientIdentity {
    fn from(key: Arc<CertifiedKey>) -> Self {
        Self(Arc::new(SingleCertAndKey::from(key)))
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity")
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roots").field(&self.0.len()).finish()
    }
}
