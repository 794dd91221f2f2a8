//! Opening connections.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ClientConfig as TlsConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{ClientConfig, Destination, Security, UpstreamError, UpstreamTls};
use crate::{
    ir::{Address, Protocol},
    socket::{keep_alive, limit_unanswered},
    tenancy::Tenancy,
};

/// A connection in clear text or behind TLS.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens a connection to `destination` within the time of `config`, the TLS handshake included.
///
/// # Errors
/// [`UpstreamError::Refused`], [`UpstreamError::Connect`] and [`UpstreamError::ConnectTimeout`].
///
/// # Cancellation
/// Dropping the future closes what was opened.
pub(super) async fn connect(destination: &Destination, config: &ClientConfig) -> Result<Io, UpstreamError> {
    let expected = expected(destination)?;
    let limit = config.connect_timeout;
    let opening = async {
        let stream = open_tcp(destination, limit, config.tenancy).await?;
        if destination.protocol == Protocol::H2c {
            // Many requests share it, and a vanished backend is not to take them all for as long as the kernel sends again.
            limit_unanswered(&stream)?;
        }
        let Some(expected) = expected else { return Ok(Io::Plain(stream)) };
        let protocols = [alpn(destination.protocol).to_vec()];
        handshake(expected, expected.config().unwrap_or(&config.tls), &protocols, stream).await
    };
    within(limit, destination, opening).await
}

/// Opens a connection whose bytes are the client's to `destination` within `limit`, over TLS without ALPN if it is to be TLS:
/// what is spoken inside is not known.
///
/// # Errors
/// [`UpstreamError::Refused`], [`UpstreamError::Connect`] and [`UpstreamError::ConnectTimeout`].
///
/// # Cancellation
/// Dropping the future closes what was opened.
pub(crate) async fn connect_stream(
    destination: &Destination,
    limit: Duration,
    tenancy: Tenancy,
) -> Result<Io, UpstreamError> {
    let expected = expected(destination)?;
    let opening = async {
        let stream = open_tcp(destination, limit, tenancy).await?;
        match expected.map(|expected| (expected, expected.config())) {
            None => Ok(Io::Plain(stream)),
            Some((expected, Some(config))) => handshake(expected, config, &[], stream).await,
            Some((_, None)) => Err(io::Error::other("nothing says whom to trust there")),
        }
    };
    within(limit, destination, opening).await
}

/// Who is expected at `destination`, if it is spoken to over TLS.
fn expected(destination: &Destination) -> Result<Option<&UpstreamTls>, UpstreamError> {
    match &destination.security {
        Security::Plain => Ok(None),
        Security::Tls(tls) => Ok(Some(tls)),
        Security::Refused => Err(UpstreamError::Refused { destination: destination.to_string() }),
    }
}

/// What opening a connection came to, if it did within `limit`.
async fn within(
    limit: Duration,
    destination: &Destination,
    opening: impl Future<Output = io::Result<Io>>,
) -> Result<Io, UpstreamError> {
    match timeout(limit, opening).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(source)) => Err(UpstreamError::Connect { destination: destination.to_string(), source }),
        Err(_) => Err(UpstreamError::ConnectTimeout { destination: destination.to_string(), limit }),
    }
}

async fn open_tcp(destination: &Destination, limit: Duration, tenancy: Tenancy) -> io::Result<TcpStream> {
    let stream = match &destination.address {
        Address::Ip(address) => {
            tenancy.judge_endpoint(address.ip())?;
            TcpStream::connect(address).await?
        }
        Address::Dns(name, port) => connect_by_name(name, *port, limit, tenancy).await?,
    };
    stream.set_nodelay(true)?;
    keep_alive(&stream)?;
    Ok(stream)
}

async fn handshake(
    expected: &UpstreamTls,
    config: &Arc<TlsConfig>,
    protocols: &[Vec<u8>],
    stream: TcpStream,
) -> io::Result<Io> {
    let name = ServerName::try_from(expected.name().to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.with_alpn(protocols.to_vec()).connect(name, stream).await?;
    Ok(Io::Tls(Box::new(stream)))
}

/// What is going to be spoken, as it is called in a handshake (RFC 7301).
fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"http/1.1",
        Protocol::H2c => b"h2",
    }
}

/// Tries the addresses of `name` that may be dialled in the order in which the resolver gives them, each for its share of the
/// time.
async fn connect_by_name(name: &str, port: u16, limit: Duration, tenancy: Tenancy) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address"));
    let addresses: Vec<_> = lookup_host((name, port)).await?.collect();
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        if let Err(forbidden) = tenancy.judge(address.ip()) {
            last = forbidden.into();
            continue;
        }
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

// === impl Io ===

impl Io {
    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(io) => io,
            Self::Tls(io) => io.get_ref().0,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        hops::Hop,
        respond::ErrorChain,
        upstream::{Roots, tls_client_config},
    };

    fn config(tenancy: Tenancy) -> ClientConfig {
        ClientConfig {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            tunnel_idle_timeout: None,
            tls: tls_client_config(&Roots::none()).unwrap(),
            tenancy,
            hop: Hop::default(),
        }
    }

    #[tokio::test]
    async fn what_stands_for_the_gateways_own_machine_is_dialled_for_an_operator_alone() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            let authority = format!("{host}:{port}").parse().unwrap();
            let destination = Destination::of_url(&authority, false).unwrap();
            connect(&destination, &config(Tenancy::Single)).await.unwrap();
            listener.accept().unwrap();
            let limit = Duration::from_secs(10);
            for error in [
                connect(&destination, &config(Tenancy::Shared)).await.unwrap_err(),
                connect_stream(&destination, limit, Tenancy::Shared).await.unwrap_err(),
            ] {
                let told = ErrorChain(&error).to_string();
                let reason = "no reference in a cluster leads to the gateway's own machine";
                assert!(told.starts_with(&format!("no connection to {host}:{port}: ")), "{told}");
                assert!(told.ends_with(reason), "{told}");
            }
        }
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody else has come");
    }

    #[tokio::test]
    async fn an_endpoint_that_is_a_metadata_server_is_not_dialled_in_a_cluster() {
        let address = Address::Ip("169.254.169.254:80".parse().unwrap());
        let destination = Destination { address, protocol: Protocol::Http1, security: Security::Plain };
        let error = connect(&destination, &config(Tenancy::Shared)).await.unwrap_err();
        assert_eq!(
            ErrorChain(&error).to_string(),
            "no connection to 169.254.169.254:80: 169.254.169.254 is not dialled: link-local, metadata and multicast \
             addresses are never asked"
        );
    }
}
