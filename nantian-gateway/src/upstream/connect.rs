//! Opening connections.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rustls::ClientConfig as TlsConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{ClientConfig, Destination, Security, UpstreamError, UpstreamTls};
use crate::{
    ir::{Address, Protocol},
    runtime::{lookup, note_read},
    socket::{keep_alive, limit_unanswered, limit_unsent},
    tenancy::Tenancy,
};

/// How long an address is tried alone before the next one of its name is tried, too.
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection in clear text or behind TLS.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens a connection to `destination` within the time of `config`, the TLS handshake included; a backend may
/// leave what is sent there `unanswered` for so long.
///
/// # Errors
/// [`UpstreamError::Refused`], [`UpstreamError::Connect`] and [`UpstreamError::ConnectTimeout`].
///
/// # Cancellation
/// Dropping the future closes what was opened.
pub(super) async fn connect(
    destination: &Destination,
    unanswered: Option<Duration>,
    config: &ClientConfig,
) -> Result<Io, UpstreamError> {
    let expected = expected(destination)?;
    let limit = config.connect_timeout;
    let opening = async {
        let stream = open_tcp(destination, config.tenancy).await?;
        limit_unanswered(&stream, unanswered)?;
        let Some(expected) = expected else { return Ok(Io::Plain(stream)) };
        let protocols = [alpn(destination.protocol).to_vec()];
        handshake(expected, expected.config().unwrap_or(&config.tls), &protocols, stream).await
    };
    within(limit, destination, opening).await
}

/// Opens a connection whose bytes are the client's to `destination` within `limit`, over TLS without ALPN if
/// it is to be TLS: what is spoken inside is not known.
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
        let stream = open_tcp(destination, tenancy).await?;
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

async fn open_tcp(destination: &Destination, tenancy: Tenancy) -> io::Result<TcpStream> {
    let stream = match &destination.address {
        Address::Ip(address) => {
            tenancy.judge_endpoint(address.ip())?;
            TcpStream::connect(address).await?
        }
        Address::Dns(name, port) => {
            let addresses = lookup(name, *port).await?;
            connect_to_any(addresses, tenancy).await?
        }
    };
    stream.set_nodelay(true)?;
    keep_alive(&stream)?;
    limit_unsent(&stream)?;
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

/// Connects to the first of `addresses` that may be dialled and answers. Each has a head start before the
/// next one, and all the time there is (RFC 8305, section 5): no number of addresses leaves one too little.
async fn connect_to_any(addresses: Vec<SocketAddr>, tenancy: Tenancy) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut attempts = FuturesUnordered::new();
    let mut others = addresses.into_iter();
    loop {
        match others.next().map(|address| (address, tenancy.judge(address.ip()))) {
            Some((_, Err(forbidden))) => {
                last = forbidden.into();
                continue;
            }
            Some((address, Ok(()))) => attempts.push(TcpStream::connect(address)),
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        match timeout(HEAD_START, attempts.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => last = error,
            Ok(None) | Err(_) => {}
        }
    }
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
        let read = match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        };
        if read.is_ready() {
            note_read();
        }
        read
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

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::respond::ErrorChain;

    fn config(tenancy: Tenancy) -> ClientConfig {
        ClientConfig { tenancy, ..ClientConfig::bare().unwrap() }
    }

    #[tokio::test]
    async fn what_stands_for_the_gateways_own_machine_is_dialled_for_an_operator_alone() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            let authority = format!("{host}:{port}").parse().unwrap();
            let destination = Destination::of_url(&authority, false).unwrap();
            connect(&destination, None, &config(Tenancy::Single)).await.unwrap();
            listener.accept().unwrap();
            let limit = Duration::from_secs(10);
            for error in [
                connect(&destination, None, &config(Tenancy::Shared)).await.unwrap_err(),
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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_backend_may_leave_bytes_unanswered_for_as_long_as_is_said() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
        let destination = Destination::of_url(&authority, false).unwrap();
        let limit = |io: &Io| socket2::SockRef::from(io.socket()).tcp_user_timeout().unwrap();
        for unanswered in [Some(Duration::from_secs(90)), None] {
            let io = connect(&destination, unanswered, &config(Tenancy::Single)).await.unwrap();
            assert_eq!(limit(&io), unanswered);
        }
    }

    #[tokio::test]
    async fn addresses_that_say_nothing_cost_one_that_answers_hardly_any_of_its_time() {
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let silent = silent.listen(0).unwrap();
        let full = silent.local_addr().unwrap();
        // Who is not accepted fills the queue, and whoever comes then is not answered.
        let mut waiting = Vec::new();
        while let Ok(stream) = timeout(HEAD_START, TcpStream::connect(full)).await {
            waiting.push(stream.unwrap());
        }
        let good = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // Its port is nobody else's, and nobody listens.
        let refusing = TcpSocket::new_v4().unwrap();
        refusing.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let refused = refusing.local_addr().unwrap();
        let forbidden = "169.254.169.254:80".parse().unwrap();
        let addresses = vec![full, refused, full, good.local_addr().unwrap()];
        let stream = timeout(HEAD_START * 20, connect_to_any(addresses, Tenancy::Single)).await.unwrap();
        assert_eq!(stream.unwrap().peer_addr().unwrap(), good.local_addr().unwrap());
        let error = connect_to_any(vec![refused, forbidden], Tenancy::Shared).await.unwrap_err();
        assert!(error.to_string().contains("169.254.169.254"), "{error}");
        assert!(connect_to_any(Vec::new(), Tenancy::Single).await.is_err());
    }

    #[tokio::test]
    async fn an_endpoint_that_is_a_metadata_server_is_not_dialled_in_a_cluster() {
        let address = Address::Ip("169.254.169.254:80".parse().unwrap());
        let destination = Destination { address, protocol: Protocol::Http1, security: Security::Plain };
        let error = connect(&destination, None, &config(Tenancy::Shared)).await.unwrap_err();
        assert_eq!(
            ErrorChain(&error).to_string(),
            "no connection to 169.254.169.254:80: 169.254.169.254 is not dialled: link-local, metadata and multicast \
             addresses are never asked"
        );
    }
}
