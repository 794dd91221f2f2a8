//! The bytes between this process and the server: TCP, and TLS on it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use redis::RedisConnectionInfo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(feature = "redis-tls")]
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::fault::StoreFault;
use super::url::{Endpoint, RedisUrl};

/// Gives what a connection needs, anew for each.
pub(super) type Source<T> = Arc<dyn Fn() -> io::Result<T> + Send + Sync>;

/// How a server is reached.
#[derive(Clone, Default)]
pub(super) struct Transport {
    /// The password, in place of that of the address.
    pub(super) password: Option<Source<String>>,
    /// Whom to trust, and whom to be, where the address wants TLS.
    #[cfg(feature = "redis-tls")]
    pub(super) tls: Option<Source<Arc<ClientConfig>>>,
}

/// An open connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Transport {
    /// Who asks the server, and for which database.
    pub(super) fn settings(&self, url: &RedisUrl) -> Result<RedisConnectionInfo, StoreFault> {
        let settings = url.settings.clone();
        let Some(password) = &self.password else { return Ok(settings) };
        Ok(settings.set_password(password().map_err(|_| StoreFault::Unreadable)?))
    }

    /// Connects to one of the server's addresses.
    pub(super) async fn connect(
        &self,
        url: &RedisUrl,
        endpoint: &Endpoint,
        address: SocketAddr,
    ) -> Result<Box<dyn Stream>, StoreFault> {
        let stream = open(address).await.map_err(|error| StoreFault::from(&error.into()))?;
        if url.is_tls() { self.secure(url, endpoint, stream).await } else { Ok(Box::new(stream)) }
    }

    #[cfg(feature = "redis-tls")]
    async fn secure(
        &self,
        url: &RedisUrl,
        endpoint: &Endpoint,
        stream: TcpStream,
    ) -> Result<Box<dyn Stream>, StoreFault> {
        let config = self.tls.as_ref().ok_or(StoreFault::Tls)?().map_err(|_| StoreFault::Unreadable)?;
        let name = url.server_name(endpoint).to_owned();
        let name = ServerName::try_from(name).map_err(|_| StoreFault::Tls)?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|_| StoreFault::Tls)?))
    }

    #[cfg(not(feature = "redis-tls"))]
    #[expect(clippy::unused_async, reason = "it is what the other build awaits")]
    async fn secure(&self, _: &RedisUrl, _: &Endpoint, _: TcpStream) -> Result<Box<dyn Stream>, StoreFault> {
        Err(StoreFault::Tls)
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
