//! The beginning of a connection with TLS.

use std::sync::Arc;

use nantian_wasm::{ClientCertificate, Digest};
use rustls::ProtocolVersion;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::{Accept, StartHandshake, TlsAcceptor, server::TlsStream};
use webpki::EndEntityCert;

use super::{
    client_hello::{self, ClientHello},
    connection::Session,
    forward::TlsSession,
    socket::ClientSocket,
    tls::{TlsProfile, TlsServer},
};
use crate::body::BoxError;

type Secured = Result<Option<Box<TlsStream<ClientSocket>>>, BoxError>;

impl Session {
    /// Shakes hands as the listener wants it that the client asks for; `None` if the connection is to end before.
    pub(super) async fn secure(&mut self, server: &TlsServer, mut stream: TcpStream) -> Secured {
        if let Some(profile) = server.only_profile() {
            let accept = TlsAcceptor::from(Arc::clone(&profile.config)).accept(self.socket(stream));
            return self.handshake(accept, profile).await;
        }
        let hello = Box::pin(client_hello::read(&mut stream));
        let Some(hello) = self.registration.unless_ended(hello).await else { return Ok(None) };
        self.answer(server, hello?, stream).await
    }

    /// Goes on with a handshake whose first message was read.
    pub(super) async fn answer(
        &mut self,
        server: &TlsServer,
        hello: ClientHello,
        stream: TcpStream,
    ) -> Secured {
        if hello.has_more {
            return Err("the client speaks on before it was answered".into());
        }
        let name = hello.accepted.client_hello().server_name().map(str::to_ascii_lowercase);
        let Some(profile) = server.profile(name.as_deref()) else {
            return Err("no listener takes the client".into());
        };
        let start = StartHandshake::from_parts(hello.accepted, self.socket(stream));
        let accept = start.into_stream(Arc::clone(&profile.config));
        self.handshake(accept, profile).await
    }

    async fn handshake(&mut self, accept: Accept<ClientSocket>, profile: &TlsProfile) -> Secured {
        let Some(stream) = self.registration.unless_ended(Box::pin(accept)).await else { return Ok(None) };
        let stream = stream?;
        let (_, connection) = stream.get_ref();
        self.peer.server_name = connection.server_name().map(|name| name.to_ascii_lowercase().into());
        self.peer.session = Some(Arc::new(TlsSession {
            server_name: self.peer.server_name.clone(),
            version: connection.protocol_version().and_then(version).map(Arc::from),
            client: connection
                .peer_certificates()
                .filter(|_| profile.clients.as_ref().is_some_and(|clients| !clients.insecure_fallback))
                .and_then(|chain| Some(Arc::new(facts(chain.first()?)))),
        }));
        self.peer.clients.clone_from(&profile.clients);
        Ok(Some(Box::new(stream)))
    }
}

/// What is told of a client's certificate.
fn facts(certificate: &CertificateDer<'_>) -> ClientCertificate {
    let mut facts = ClientCertificate::default();
    facts.sha256 = Digest::of(certificate).to_string();
    if let Ok(certificate) = EndEntityCert::try_from(certificate) {
        facts.uri = certificate.valid_uri_names().next().map(str::to_owned);
        facts.dns = certificate.valid_dns_names().next().map(str::to_owned);
    }
    facts
}

/// A version as it is usually written.
fn version(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}
