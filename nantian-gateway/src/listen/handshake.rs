//! The beginning of a connection with TLS.

use std::{io, sync::Arc};

use nantian_wasm::{ClientCertificate, Digest};
use rustls::{CertificateError, ProtocolVersion};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::{Accept, StartHandshake, TlsAcceptor, server::TlsStream};
use webpki::EndEntityCert;

use super::{
    client_hello::{self, ClientHello, ClientHelloError},
    connection::ClientConnection,
    forward::TlsSession,
    socket::ClientSocket,
    state::ConnectionCommand,
    tls::{TlsProfile, TlsServer},
};
use crate::{metrics::HandshakeFailure, respond::ErrorChain};

type Secured = Result<Option<Box<TlsStream<ClientSocket>>>, HandshakeError>;

/// Why a connection is not secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// Of its first message.
    #[error(transparent)]
    Hello(#[from] ClientHelloError),
    /// It goes on before it knows how.
    #[error("the client speaks on before it was answered")]
    SpeaksOn,
    /// It asks for a name that nobody has.
    #[error("no listener takes the client")]
    UnknownName,
    /// It has not finished in time.
    #[error("the client is too slow")]
    TooSlow,
    /// The connection broke, or one side refuses the other.
    #[error(transparent)]
    Exchange(#[from] io::Error),
}

impl ClientConnection {
    /// Shakes hands as the listener wants it that the client asks for; `None` if the connection is to end
    /// before.
    pub(super) async fn secure(&mut self, server: &TlsServer, mut stream: TcpStream) -> Secured {
        if let Some(profile) = server.only_profile() {
            let accept = TlsAcceptor::from(Arc::clone(&profile.config)).accept(self.socket(stream));
            return self.handshake(accept, profile).await;
        }
        let Some(hello) = self.hello(&mut stream).await? else { return Ok(None) };
        self.answer(server, hello, stream).await
    }

    /// The first message; `None` if the connection is to end before.
    pub(super) async fn hello(&self, stream: &mut TcpStream) -> Result<Option<ClientHello>, HandshakeError> {
        match self.registration.unless_ended(Box::pin(client_hello::read(stream))).await {
            Some(hello) => Ok(Some(hello?)),
            None => self.ended(),
        }
    }

    /// Goes on with a handshake whose first message was read.
    pub(super) async fn answer(
        &mut self,
        server: &TlsServer,
        hello: ClientHello,
        stream: TcpStream,
    ) -> Secured {
        if hello.has_more {
            return Err(HandshakeError::SpeaksOn);
        }
        let name = hello.accepted.client_hello().server_name().map(str::to_ascii_lowercase);
        let Some(profile) = server.profile(name.as_deref()) else {
            return Err(HandshakeError::UnknownName);
        };
        let start = StartHandshake::from_parts(hello.accepted, self.socket(stream));
        let accept = start.into_stream(Arc::clone(&profile.config));
        self.handshake(accept, profile).await
    }

    async fn handshake(&mut self, accept: Accept<ClientSocket>, profile: &TlsProfile) -> Secured {
        let Some(stream) = self.registration.unless_ended(Box::pin(accept)).await else {
            return self.ended();
        };
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

    /// Nothing, where the connection ends with all others; else its client has taken too long.
    fn ended<T>(&self) -> Result<Option<T>, HandshakeError> {
        match self.registration.order() {
            ConnectionCommand::Abort => Err(HandshakeError::TooSlow),
            _ => Ok(None),
        }
    }

    /// What came of a part of the handshake; one that failed is counted.
    pub(super) fn note<T>(&self, result: Result<Option<T>, HandshakeError>) -> Option<T> {
        result.unwrap_or_else(|error| {
            let why = error.reason();
            let (client, port, reason) = (self.client, self.key, why.as_str());
            tracing::debug!(%client, %port, reason, error = %ErrorChain(&error), "a TLS handshake failed");
            self.worker.metrics().handshake_failed(why);
            None
        })
    }
}

// === impl HandshakeError ===

impl HandshakeError {
    fn reason(&self) -> HandshakeFailure {
        match self {
            Self::Hello(ClientHelloError::Malformed(error)) => of_rustls(error),
            Self::Hello(ClientHelloError::TooLong) | Self::SpeaksOn => HandshakeFailure::Malformed,
            Self::Hello(ClientHelloError::Ended(_)) => HandshakeFailure::Closed,
            Self::UnknownName => HandshakeFailure::UnknownName,
            Self::TooSlow => HandshakeFailure::Timeout,
            Self::Exchange(error) => {
                let of_tls = error.get_ref().and_then(|error| error.downcast_ref());
                of_tls.map_or(HandshakeFailure::Closed, of_rustls)
            }
        }
    }
}

fn of_rustls(error: &rustls::Error) -> HandshakeFailure {
    use rustls::Error;
    match error {
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => HandshakeFailure::Malformed,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => HandshakeFailure::Incompatible,
        Error::NoCertificatesPresented => HandshakeFailure::NoClientCertificate,
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            HandshakeFailure::ExpiredClientCertificate
        }
        Error::InvalidCertificate(_) => HandshakeFailure::InvalidClientCertificate,
        Error::AlertReceived(_) => HandshakeFailure::ClientAlert,
        // So it says that no certificate was chosen.
        Error::General(words) if words.contains("certificate chain") => HandshakeFailure::UnknownName,
        _ => HandshakeFailure::Other,
    }
}

/// What is told of a client's certificate.
fn facts(certificate: &CertificateDer<'_>) -> ClientCertificate {
    let mut facts = ClientCertificate::new(Digest::of(certificate));
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
