//! Connections that are passed on as they are, and those of which the server name tells what to do with them.

use tokio::net::TcpStream;

use super::{
    client_hello::ClientHello,
    connection::{ClientConnection, Served},
    handshake::HandshakeError,
};
use crate::{
    snapshot::{StreamBinding, TlsMode, TlsNames},
    stream::{Socket, StreamRoute, reset},
};

impl ClientConnection {
    /// Serves a connection as the listener of its server name does.
    pub(super) async fn serve_by_name(mut self, mut stream: TcpStream, names: &TlsNames) -> Served {
        let hello = self.hello(&mut stream).await;
        let Some(ClientHello { accepted, bytes, has_more }) = self.note(hello) else { return Ok(()) };
        let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
        self.peer.server_name = name.as_deref().map(Into::into);
        let (server, route) = match names.names.find(name.as_deref()) {
            Some((TlsMode::PassThrough, Some(route))) => {
                drop(accepted);
                return self.pass_on(stream, &bytes, route).await;
            }
            Some((TlsMode::Https(server), _)) => (server, None),
            Some((TlsMode::Terminate(server), Some(route))) => (server, Some(route)),
            Some((TlsMode::Terminate(_) | TlsMode::PassThrough, None)) | None => {
                reset(&stream);
                self.note::<()>(Err(HandshakeError::UnknownName));
                return Ok(());
            }
        };
        let hello = ClientHello { accepted, bytes, has_more };
        let secured = self.answer(server, hello, stream).await;
        let Some(stream) = self.note(secured) else { return Ok(()) };
        match route {
            Some(route) => self.pass_on(stream, &[], route).await,
            None => self.serve_tls(stream).await,
        }
    }

    /// Passes a connection on, of which `first` was read.
    pub(super) async fn pass_on(self, stream: impl Socket, first: &[u8], route: &StreamRoute) -> Served {
        let Self { key, worker, registration, client, local, peer } = self;
        let state = &registration.state;
        let local = local.ip().to_canonical();
        state.becomes_stream(StreamBinding { key, local, route: route.id.clone() });
        let carried = worker.proxy().begin(route, client, peer.server_name.as_deref());
        let carrying = Box::pin(carried.carry(stream, first, || state.note_activity()));
        let outcome = registration.unless_aborted(carrying).await;
        carried.end(outcome);
        Ok(())
    }
}
