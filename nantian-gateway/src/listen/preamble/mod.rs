//! What a proxy says of its client before the client says anything: the PROXY protocol, versions 1 and 2.

mod parse;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr};

use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{accept::PortKey, connections::Registration, state::ConnectionCommand};
use crate::{metrics::PreambleFailure, respond::ErrorChain, runtime::Worker};

/// The bytes in which version 2 has to come, as of HAProxy: a client's certificate may be among them.
const LONGEST: usize = 16 * 1024;
/// The bytes that are looked at first: all, but of a preamble with much beside the addresses.
const USUAL: usize = 256;

/// The ends of a connection, as its client knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    /// Where the client has connected to.
    pub(super) destination: SocketAddr,
}

/// Why a connection has no preamble.
#[derive(Debug, thiserror::Error)]
pub(super) enum PreambleError {
    /// The connection broke, or ended.
    #[error("the connection ended before its PROXY protocol header did")]
    Ended(#[from] io::Error),
    /// Something else comes first, or it breaks the rules.
    #[error("the connection does not begin with a PROXY protocol header")]
    Malformed,
    /// More than any proxy has to say.
    #[error("the PROXY protocol header is longer than {LONGEST} bytes")]
    TooLong,
    /// It has not come in time.
    #[error("the PROXY protocol header takes too long")]
    TooSlow,
}

/// The ends of a connection: `own`, or what a proxy says that is to say it first; `None` if the connection is
/// to end. A fault is counted.
///
/// # Cancellation
/// Dropping the future loses what was read.
pub(super) async fn ends(
    stream: &mut TcpStream,
    own: Ends,
    port: PortKey,
    worker: &Worker,
    registration: &Registration,
) -> Option<Ends> {
    if !worker.config.proxy_protocol_from.contains(own.client.ip()) {
        return Some(own);
    }
    let told = match registration.unless_ended(Box::pin(read(stream))).await {
        Some(told) => told,
        None if registration.order() == ConnectionCommand::Abort => Err(PreambleError::TooSlow),
        None => return None,
    };
    match told {
        Ok(told) => Some(told.unwrap_or(own)),
        Err(error) => {
            let (why, proxy) = (error.reason(), own.client);
            let (reason, error) = (why.as_str(), ErrorChain(&error));
            tracing::debug!(%proxy, %port, reason, %error, "a connection has no PROXY protocol header");
            worker.metrics().preamble_failed(why);
            None
        }
    }
}

/// Reads the preamble, and no byte of what follows.
async fn read(stream: &mut TcpStream) -> Result<Option<Ends>, PreambleError> {
    let mut bytes = vec![0; USUAL];
    let mut known = 0;
    loop {
        if known == bytes.len() {
            bytes.resize(LONGEST, 0);
        }
        let seen = known + stream.peek(bytes.get_mut(known..).unwrap_or_default()).await?;
        if seen == known {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let whole = parse::parse(bytes.get(..seen).unwrap_or_default())?;
        let end = whole.as_ref().map_or(seen, |preamble| preamble.length);
        stream.read_exact(bytes.get_mut(known..end).unwrap_or_default()).await?;
        if let Some(preamble) = whole {
            return Ok(preamble.ends);
        }
        known = end;
    }
}

// === impl PreambleError ===

impl PreambleError {
    fn reason(&self) -> PreambleFailure {
        match self {
            Self::Ended(_) => PreambleFailure::Closed,
            Self::Malformed | Self::TooLong => PreambleFailure::Malformed,
            Self::TooSlow => PreambleFailure::Timeout,
        }
    }
}
