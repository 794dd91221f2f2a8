//! What Gateways present to backends that ask for a certificate.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use rustls::crypto::aws_lc_rs;

use crate::{
    ir::{Certificate, Ir, ObjectName, Target},
    listen::certified_key,
    upstream::{ClientIdentity, UpstreamTls},
};

/// The certificates for backends, by Secret.
#[derive(Debug, Default)]
pub(super) struct Identities {
    by_secret: BTreeMap<ObjectName, CachedIdentity>,
}

#[derive(Debug)]
struct CachedIdentity {
    certificate: Certificate,
    fault: Option<String>,
    /// The last good one.
    identity: Option<ClientIdentity>,
    /// TLS to each backend without and with it: made once, so that connections are shared and outlive
    /// reloads.
    presented: HashMap<Target, (UpstreamTls, UpstreamTls)>,
}

// === impl Identities ===

impl Identities {
    /// Gets a certificate ready to be presented.
    ///
    /// # Errors
    /// What is wrong with it; what its Secret held before, if anything, is presented on.
    pub(super) fn identify(&mut self, certificate: &Certificate) -> Result<(), String> {
        let known = match self.by_secret.get_mut(&certificate.secret) {
            Some(known) if known.certificate == *certificate => known,
            Some(known) => {
                known.certificate.clone_from(certificate);
                known.read();
                known
            }
            None => {
                let new = CachedIdentity {
                    certificate: certificate.clone(),
                    fault: None,
                    identity: None,
                    presented: HashMap::new(),
                };
                let known = self.by_secret.entry(certificate.secret.clone()).or_insert(new);
                known.read();
                known
            }
        };
        known.fault.clone().map_or(Ok(()), Err)
    }

    /// `tls`, to a backend, with the certificate of `secret`.
    pub(super) fn presenting(
        &mut self,
        secret: &ObjectName,
        target: &Target,
        tls: &UpstreamTls,
    ) -> Option<UpstreamTls> {
        let known = self.by_secret.get_mut(secret)?;
        if let Some((_, presented)) = known.presented.get(target).filter(|(of, _)| of == tls) {
            return Some(presented.clone());
        }
        let presented = tls.presenting(known.identity.as_ref()?);
        known.presented.insert(target.clone(), (tls.clone(), presented.clone()));
        Some(presented)
    }

    /// Forgets what no Gateway presents, and the backends that are gone.
    pub(super) fn retain(&mut self, ir: &Ir) {
        let listeners = ir.ports.iter().flat_map(|port| &port.listeners);
        let certificates = listeners.filter_map(|listener| listener.client_certificate.as_ref());
        let secrets: HashSet<_> = certificates.map(|certificate| &certificate.secret).collect();
        self.by_secret.retain(|secret, _| secrets.contains(secret));
        for known in self.by_secret.values_mut() {
            known.presented.retain(|target, _| match target {
                Target::Backend(id) => ir.backends.contains_key(id),
                Target::AiService(name) => ir.ai_services.contains_key(name),
                _ => false,
            });
        }
    }
}

// === impl CachedIdentity ===

impl CachedIdentity {
    fn read(&mut self) {
        let Certificate { chain, key, .. } = &self.certificate;
        match certified_key(chain, &key.0, &aws_lc_rs::default_provider()) {
            Ok(key) => {
                self.identity = Some(Arc::new(key).into());
                self.presented.clear();
                self.fault = None;
            }
            Err(fault) => self.fault = Some(fault),
        }
    }
}
