//! What listeners present over TLS, kept while it is the same.

use std::collections::BTreeMap;

use rustls::crypto::aws_lc_rs::Ticketer;

use crate::{
    ir::{Certificate, ClientValidation, HostPattern, Listener, ListenerId, ObjectName},
    listen::{InvalidCertificate, PortKey, TlsPayload, TlsServer},
};

/// The TLS side of each socket.
#[derive(Debug, Default)]
pub(super) struct TlsPorts(BTreeMap<(PortKey, TlsPayload), TlsPort>);

#[derive(Debug)]
struct TlsPort {
    /// What decides about the configuration.
    listeners: Vec<TlsListener>,
    server: TlsServer,
    faults: Vec<InvalidCertificate>,
}

/// What decides about the TLS of a listener.
#[derive(Debug, PartialEq)]
struct TlsListener {
    id: ListenerId,
    hostname: HostPattern,
    certificates: Vec<Certificate>,
    clients: Option<ClientValidation>,
}

// === impl TlsPorts ===

impl TlsPorts {
    /// Forgets other sockets.
    pub(super) fn retain(&mut self, ports: &[PortKey]) {
        self.0.retain(|(key, _), _| ports.contains(key));
    }

    /// The TLS side of a socket; kept as it is while its certificates are the same. Sessions are resumed also
    /// after these were renewed.
    ///
    /// # Errors
    /// As of [`TlsServer::new`], or when there are no random bytes for keys.
    pub(super) fn server(
        &mut self,
        key: PortKey,
        inside: TlsPayload,
        listeners: &[&Listener],
    ) -> Result<(TlsServer, Vec<InvalidCertificate>), rustls::Error> {
        let wanted: Vec<_> = listeners.iter().map(|listener| TlsListener::of(listener)).collect();
        let last = self.0.get(&(key, inside));
        if let Some(port) = last.filter(|port| port.listeners == wanted) {
            return Ok((port.server.clone(), port.faults.clone()));
        }
        let renewed = last.filter(|last| {
            wanted.len() == last.listeners.len()
                && wanted.iter().zip(&last.listeners).all(|(one, last)| one.renews(last))
        });
        let tickets = renewed.map_or_else(Ticketer::new, |last| Ok(last.server.tickets()))?;
        let (server, faults) = TlsServer::new(listeners, inside, last.map(|last| &last.server), tickets)?;
        server.warn(last.map(|last| &last.server));
        let port = TlsPort { listeners: wanted, server: server.clone(), faults: faults.clone() };
        self.0.insert((key, inside), port);
        Ok((server, faults))
    }

    /// The Secrets whose certificates are served, and the last second of each.
    pub(super) fn not_after(&self) -> BTreeMap<ObjectName, u64> {
        self.0.values().flat_map(|port| port.server.not_after()).collect()
    }
}

// === impl TlsListener ===

impl TlsListener {
    fn of(listener: &Listener) -> Self {
        Self {
            id: listener.id.clone(),
            hostname: listener.hostname.clone(),
            certificates: listener.certificates.clone(),
            clients: listener.client_validation.clone(),
        }
    }

    /// Whether nothing but the content of the Secrets of `last` is another one.
    fn renews(&self, last: &Self) -> bool {
        let secrets = |it: &Self| -> Vec<ObjectName> {
            it.certificates.iter().map(|certificate| certificate.secret.clone()).collect()
        };
        (&self.id, &self.hostname, &self.clients) == (&last.id, &last.hostname, &last.clients)
            && secrets(self) == secrets(last)
    }
}
