//! TLS termination: the certificate is chosen by the server name that the client asks for.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use webpki::EndEntityCert;

use crate::{
    ir::{HostPattern, Listener, ListenerId, ObjectName},
    respond::Chain,
};

/// A certificate that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate of Secret {secret} cannot be served: {reason}")]
#[non_exhaustive]
pub struct InvalidCertificate {
    /// Whose certificate it is.
    pub listener: ListenerId,
    /// The Secret.
    pub secret: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What is inside of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Inside {
    /// HTTP, whose version is negotiated.
    Http,
    /// Bytes for a backend; which protocol they are is not negotiated.
    Stream,
}

/// The TLS side of one socket.
#[derive(Debug, Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    /// The certificates that are served, by Secret.
    good: Arc<BTreeMap<ObjectName, Arc<CertifiedKey>>>,
}

impl TlsServer {
    /// Serves the certificates of `listeners`. In the place of a broken one stands what `last` served of its Secret;
    /// the broken ones are returned.
    ///
    /// # Errors
    /// When the provider offers none of the default protocol versions.
    pub fn new(
        listeners: &[&Listener],
        inside: Inside,
        last: Option<&Self>,
    ) -> Result<(Self, Vec<InvalidCertificate>), rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut faults = Vec::new();
        let mut served = Vec::new();
        let mut good = BTreeMap::new();
        for listener in listeners {
            for certificate in &listener.certificates {
                let secret = &certificate.secret;
                let key = match certified_key(&certificate.chain, &certificate.key.0, &provider) {
                    Ok(key) => Some(Arc::new(key)),
                    Err(reason) => {
                        let listener = listener.id.clone();
                        faults.push(InvalidCertificate { listener, secret: secret.to_string(), reason });
                        last.and_then(|last| last.good.get(secret).cloned())
                    }
                };
                if let Some(key) = key {
                    good.insert(secret.clone(), Arc::clone(&key));
                    served.push(Served { hostname: listener.hostname.clone(), key });
                }
            }
        }
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(BySni { served }));
        if inside == Inside::Http {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        Ok((Self { config: Arc::new(config), good: Arc::new(good) }, faults))
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// A certificate that can be presented.
///
/// # Errors
/// What is wrong with it, without a word of the key.
pub(crate) fn certified_key(
    chain: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("tls.crt holds no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key holds no private key".to_owned())?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| Chain(&error).to_string())
}

/// A certificate and the host of its listener.
struct Served {
    hostname: HostPattern,
    key: Arc<CertifiedKey>,
}

struct BySni {
    served: Vec<Served>,
}

impl Served {
    /// Whether the certificate itself names `host`.
    fn certifies(&self, host: &str) -> bool {
        let (Some(leaf), Ok(name)) = (self.key.cert.first(), ServerName::try_from(host)) else {
            return false;
        };
        EndEntityCert::try_from(leaf).is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    }
}

/// The more specific, the greater.
fn specificity(pattern: &HostPattern) -> (u8, usize) {
    match pattern {
        HostPattern::Any => (0, 0),
        HostPattern::Suffix(suffix) => (1, suffix.len()),
        HostPattern::Exact(name) => (2, name.len()),
    }
}

impl BySni {
    /// Of the most specific listener that covers the host, the certificate that names it, else the first.
    fn choose(&self, host: &str) -> Option<&Served> {
        let covering = self.served.iter().filter(|served| served.hostname.covers(host));
        let best = covering.clone().map(|served| specificity(&served.hostname)).max()?;
        let mut of_listener = covering.filter(|served| specificity(&served.hostname) == best);
        let first = of_listener.clone().next();
        of_listener.find(|served| served.certifies(host)).or(first)
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = match hello.server_name() {
            Some(host) => self.choose(&host.to_ascii_lowercase()),
            None => self.served.first(),
        };
        chosen.map(|served| Arc::clone(&served.key))
    }
}

impl fmt::Debug for BySni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.served.iter().map(|served| &served.hostname)).finish()
    }
}
