//! TLS termination: the certificate, and what clients have to prove, are chosen by the server name that they
//! ask for.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rustls::{
    ServerConfig, SignatureScheme,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use webpki::EndEntityCert;

use super::{
    certificate::{self, CertificateRemark},
    client_verifier::client_verifier,
};
use crate::{
    ir::{ClientValidation, HostPattern, Listener, ListenerId, ObjectName},
    respond::ErrorChain,
    translate::status::declarer,
};

/// A certificate that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate of Secret {secret} cannot be served: {reason}")]
#[non_exhaustive]
pub(crate) struct InvalidCertificate {
    /// Whose certificate it is.
    pub(crate) listener: ListenerId,
    /// The Secret.
    pub(crate) secret: String,
    /// What is wrong with it.
    pub(crate) reason: String,
    /// Whether the last good one of the Secret is served.
    pub(crate) has_last_good: bool,
    /// Whether the listener has that one, or another one.
    pub(crate) has_stand_in: bool,
}

/// What is inside of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub(crate) enum TlsPayload {
    /// HTTP, whose version is negotiated.
    Http,
    /// Bytes for a backend; which protocol they are is not negotiated.
    Stream,
}

/// The TLS side of one socket.
#[derive(Debug, Clone)]
pub(crate) struct TlsServer {
    /// The hosts of the listeners, each with its place in `faces`.
    hosts: Arc<[(HostPattern, usize)]>,
    /// One for each validation of clients; at least one.
    profiles: Arc<[TlsProfile]>,
    /// The certificates that are served, by Secret.
    good: Arc<BTreeMap<ObjectName, Arc<CertifiedKey>>>,
    /// What clients have against some of them.
    remarks: Arc<[(ListenerId, ObjectName, CertificateRemark)]>,
    /// Seals the sessions of clients that have nothing to prove. rustls takes a session for the server name
    /// alone that it began with.
    tickets: Arc<dyn ProducesTickets>,
}

/// What listeners have in common that want the same of their clients.
#[derive(Debug)]
pub(super) struct TlsProfile {
    pub(super) config: Arc<ServerConfig>,
    /// What clients have to prove; `None` is nothing.
    pub(super) clients: Option<Arc<ClientValidation>>,
}

impl TlsServer {
    /// Serves the certificates of `listeners`. In the place of a broken one stands what `last` served of its
    /// Secret; the broken ones are returned. Sessions that `tickets` has sealed are resumed.
    ///
    /// # Errors
    /// When the provider offers none of the default protocol versions.
    pub(crate) fn new(
        listeners: &[&Listener],
        inside: TlsPayload,
        last: Option<&Self>,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<(Self, Vec<InvalidCertificate>), rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut faults = Vec::new();
        let (mut good, mut remarks) = (BTreeMap::new(), Vec::new());
        let now = UnixTime::now();
        let mut hosts = Vec::new();
        let mut groups: Vec<(Option<&ClientValidation>, Vec<ServedCertificate>)> = Vec::new();
        for listener in listeners {
            let clients = listener.client_validation.as_ref();
            let known = groups.iter().position(|(known, _)| *known == clients);
            let place = known.unwrap_or(groups.len());
            if known.is_none() {
                groups.push((clients, Vec::new()));
            }
            hosts.push((listener.hostname.clone(), place));
            let Some((_, served)) = groups.get_mut(place) else { continue };
            let (first_fault, first_served) = (faults.len(), served.len());
            for certificate in &listener.certificates {
                let secret = &certificate.secret;
                let key = match certified_key(&certificate.chain, &certificate.key.0, &provider) {
                    Ok(key) => Some(Arc::new(key)),
                    Err(reason) => {
                        let last_good = last.and_then(|last| last.good.get(secret).cloned());
                        faults.push(InvalidCertificate {
                            listener: listener.id.clone(),
                            secret: secret.to_string(),
                            reason,
                            has_last_good: last_good.is_some(),
                            has_stand_in: false,
                        });
                        last_good
                    }
                };
                if let Some(key) = key {
                    let told = certificate::remarks(&key, &listener.hostname, now).into_iter();
                    remarks.extend(told.map(|remark| (listener.id.clone(), secret.clone(), remark)));
                    good.insert(secret.clone(), Arc::clone(&key));
                    served.push(ServedCertificate { hostname: listener.hostname.clone(), key });
                }
            }
            let has_any = served.len() > first_served;
            faults.iter_mut().skip(first_fault).for_each(|fault| fault.has_stand_in = has_any);
        }
        let profiles = groups
            .into_iter()
            .map(|(clients, served)| TlsProfile::new(clients, served, inside, &provider, &tickets));
        let profiles = profiles.collect::<Result<_, _>>()?;
        let (hosts, good, remarks) = (hosts.into(), Arc::new(good), remarks.into());
        Ok((Self { hosts, profiles, good, remarks, tickets }, faults))
    }

    /// Warns of what clients have against the certificates that it serves, and had not against those of
    /// `last`.
    pub(crate) fn warn(&self, last: Option<&Self>) {
        let news =
            self.remarks.iter().filter(|remark| last.is_none_or(|last| !last.remarks.contains(remark)));
        for (listener, secret, remark) in news {
            let object = declarer(listener);
            tracing::warn!(
                "{object}: listener {}: the certificate of Secret {secret} {remark}",
                listener.name
            );
        }
    }

    /// The Secrets of its certificates, and the last second of each.
    pub(crate) fn not_after(&self) -> impl Iterator<Item = (ObjectName, u64)> + '_ {
        let last = |key: &CertifiedKey| certificate::not_after(key).map(|until| until.as_secs());
        self.good.iter().filter_map(move |(secret, key)| Some((secret.clone(), last(key)?)))
    }

    /// What seals its sessions.
    pub(crate) fn tickets(&self) -> Arc<dyn ProducesTickets> {
        Arc::clone(&self.tickets)
    }

    /// The listener that a client meets who asks for `name`, or for none.
    pub(super) fn profile(&self, name: Option<&str>) -> Option<&TlsProfile> {
        let covering = self.hosts.iter().filter(|(host, _)| name.is_some_and(|name| host.covers(name)));
        let best = covering.max_by_key(|(host, _)| host.specificity()).or_else(|| self.hosts.first());
        self.profiles.get(best?.1)
    }

    /// The only one, if all clients have to prove the same.
    pub(super) fn only_profile(&self) -> Option<&TlsProfile> {
        match &*self.profiles {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether a client that had to prove `clients` has proved what the listener of `host` wants.
    pub(super) fn admits(&self, clients: Option<&Arc<ClientValidation>>, host: &str) -> bool {
        if let [TlsProfile { clients: None, .. }] = &*self.profiles {
            return true;
        }
        let profile = self.profile(Some(host));
        profile.is_some_and(|profile| profile.clients.is_none() || profile.clients.as_ref() == clients)
    }
}

// === impl TlsProfile ===

impl TlsProfile {
    fn new(
        clients: Option<&ClientValidation>,
        served: Vec<ServedCertificate>,
        inside: TlsPayload,
        provider: &Arc<CryptoProvider>,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Self, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(client_verifier(clients, provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SniResolver { served }));
        if clients.is_some() {
            // rustls would go on with a certificate for as long as its session is renewed: beyond its end,
            // and after the client has another one.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            config.ticketer = Arc::clone(tickets);
        }
        if inside == TlsPayload::Http {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        Ok(Self { config: Arc::new(config), clients: clients.cloned().map(Arc::new) })
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
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
            "tls.key is not the key of the certificate in tls.crt".to_owned()
        }
        error => ErrorChain(&error).to_string(),
    })
}

/// A certificate and the host of its listener.
struct ServedCertificate {
    hostname: HostPattern,
    key: Arc<CertifiedKey>,
}

struct SniResolver {
    served: Vec<ServedCertificate>,
}

impl ServedCertificate {
    /// Whether the certificate itself names `host`.
    fn certifies(&self, host: &str) -> bool {
        let (Some(leaf), Ok(name)) = (self.key.cert.first(), ServerName::try_from(host)) else {
            return false;
        };
        EndEntityCert::try_from(leaf).is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    }
}

impl SniResolver {
    /// Of the most specific listener that covers the host, the certificate that names it, if possible one
    /// whose signatures the client can verify; else the first.
    fn choose(&self, host: &str, schemes: &[SignatureScheme]) -> Option<&ServedCertificate> {
        let covering = self.served.iter().filter(|served| served.hostname.covers(host));
        let best = covering.clone().map(|served| served.hostname.specificity()).max()?;
        let of_listener = covering.filter(|served| served.hostname.specificity() == best);
        let naming = of_listener.clone().filter(|served| served.certifies(host));
        let mut fitting = naming.clone().filter(|served| served.key.key.choose_scheme(schemes).is_some());
        fitting.next().or_else(|| naming.chain(of_listener).next())
    }
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = match hello.server_name() {
            Some(host) => self.choose(&host.to_ascii_lowercase(), hello.signature_schemes()),
            None => self.served.first(),
        };
        chosen.map(|served| Arc::clone(&served.key))
    }
}

impl fmt::Debug for SniResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.served.iter().map(|served| &served.hostname)).finish()
    }
}
