//! The first message of a TLS connection: what it is for is said in it.

use std::io;

use bytes::BytesMut;
use rustls::server::{Accepted, Acceptor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::runtime::note_read;

/// The bytes in which it has to come, as of HAProxy and nginx. Clients say what they want in a tenth of that.
const LONGEST: usize = 16 * 1024;

/// The first message, and all bytes that were read for it.
pub(super) struct ClientHello {
    pub(super) accepted: Accepted,
    pub(super) bytes: BytesMut,
    /// Whether some of the bytes come after the message: whoever answers it has not seen them.
    pub(super) has_more: bool,
}

/// Why a connection does not begin as TLS does.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientHelloError {
    /// The connection broke, or ended.
    #[error("the connection ended before its ClientHello")]
    Ended(#[source] io::Error),
    /// What came is no TLS; the client was told.
    #[error("the connection does not begin with a ClientHello")]
    Malformed(#[source] rustls::Error),
    /// More than any client has to say.
    #[error("the ClientHello is longer than {LONGEST} bytes")]
    TooLong,
}

impl From<io::Error> for ClientHelloError {
    fn from(error: io::Error) -> Self {
        Self::Ended(error)
    }
}

/// Reads the first message of TLS, in as many records and pieces as it comes.
///
/// # Errors
/// [`ClientHelloError`]
///
/// # Cancellation
/// Dropping the future loses what was read.
pub(super) async fn read(stream: &mut TcpStream) -> Result<ClientHello, ClientHelloError> {
    let mut acceptor = Acceptor::default();
    let mut bytes = BytesMut::with_capacity(2048);
    loop {
        let known = bytes.len();
        if known >= LONGEST {
            return Err(ClientHelloError::TooLong);
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        note_read();
        let mut new = bytes.get(known..).unwrap_or_default();
        while !new.is_empty() {
            acceptor.read_tls(&mut new)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let has_more = !new.is_empty();
                    return Ok(ClientHello { accepted, bytes, has_more });
                }
                Err((error, mut alert)) => {
                    let mut said = Vec::new();
                    alert.write_all(&mut said)?;
                    stream.write_all(&said).await?;
                    return Err(ClientHelloError::Malformed(error));
                }
            }
        }
    }
}
