//! A connection to the first of a server's addresses that answers.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::fault::StoreFault;
use super::store::StoreState;
use super::url::Endpoint;

/// How long the server's name may take to resolve: a resolver gives its first server five seconds before it
/// asks the second.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Moves the bytes of a connection.
pub(super) type Io = Pin<Box<dyn Future<Output = ()> + Send>>;

// === impl StoreState ===

impl StoreState {
    /// Opens a connection, and says who asks. `first` is the server's address to begin with, counted round.
    ///
    /// # Errors
    /// The fault of the address that was asked last.
    ///
    /// # Cancellation
    /// Dropping it closes what it has opened.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        first: usize,
    ) -> Result<(MultiplexedConnection, Io), StoreFault> {
        let found = timeout(LOOKUP_TIMEOUT, lookup_host((endpoint.host.as_str(), endpoint.port))).await;
        let addresses = found.map_err(|_| StoreFault::Timeout)?.map_err(|_| StoreFault::Connect)?;
        self.connect_to_any(endpoint, beginning_at(first, addresses.collect()).into_iter()).await
    }

    /// Asks one address after the other: one that is silent costs its own time and not that of the next.
    async fn connect_to_any(
        &self,
        endpoint: &Endpoint,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Result<(MultiplexedConnection, Io), StoreFault> {
        let mut last = StoreFault::Connect;
        for address in addresses {
            let connected = timeout(self.connect_timeout, self.connect_to(endpoint, address)).await;
            match connected.unwrap_or(Err(StoreFault::Timeout)) {
                Err(fault) if fault != StoreFault::Credentials => last = fault,
                // Who knows these credentials for wrong ones speaks for all.
                decided => return decided,
            }
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
    ) -> Result<(MultiplexedConnection, Io), StoreFault> {
        let settings = self.transport.settings(&self.url)?;
        let stream = self.transport.connect(&self.url, endpoint, address).await?;
        // Whoever asks has a time of their own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connected = MultiplexedConnection::new_with_config(&settings, stream, config).await;
        let (connection, io) = connected.map_err(|error| StoreFault::from(&error))?;
        Ok((connection, Box::pin(io)))
    }
}

/// All addresses, the one with this number first, counted round.
fn beginning_at(first: usize, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = first.checked_rem(addresses.len()).unwrap_or_default();
    addresses.rotate_left(first);
    addresses
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::redis::RedisStore;

    /// A server that answers every command with this; without one it accepts connections and says nothing.
    async fn server(answer: Option<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(answer) = answer else {
                    silent.push(stream);
                    continue;
                };
                let mut commands = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut commands).await {
                    let count = commands[..count].iter().filter(|byte| **byte == b'*').count();
                    let _ = stream.write_all(answer.repeat(count).as_bytes()).await;
                }
            }
        });
        address
    }

    /// What comes of addresses of which each has half a second.
    async fn outcome(addresses: Vec<SocketAddr>) -> Result<(), StoreFault> {
        outcome_of("redis://:secret@store.test/0", addresses).await
    }

    async fn outcome_of(url: &str, addresses: Vec<SocketAddr>) -> Result<(), StoreFault> {
        let url = url.parse().unwrap();
        let (store, _driver) = RedisStore::builder(url).connect_timeout(Duration::from_millis(500)).build();
        store.0.connect_to_any(&store.0.url.endpoint, addresses.into_iter()).await.map(drop)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_leaves_time_for_the_next() {
        let silent = server(None).await;
        assert_eq!(outcome(vec![silent, server(Some("+OK\r\n")).await]).await, Ok(()));
        assert_eq!(outcome(vec![silent]).await, Err(StoreFault::Timeout));
        assert_eq!(outcome(Vec::new()).await, Err(StoreFault::Connect));
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_told_apart_from_one_that_is_not_permitted() {
        for (answer, fault) in [
            ("-ERR DB index is out of range\r\n", StoreFault::Database),
            (
                "-NOPERM User nantian has no permissions to run the 'select' command\r\n",
                StoreFault::Credentials,
            ),
        ] {
            let addresses = vec![server(Some(answer)).await];
            assert_eq!(outcome_of("redis://store.test/20", addresses).await, Err(fault));
        }
    }

    #[test]
    fn every_address_has_its_turn_to_be_the_first() {
        let all: Vec<SocketAddr> = (1..4).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let order = |first| beginning_at(first, all.clone()).iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!([0, 1, 2, 3].map(order), [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2], vec![1, 2, 3]]);
        assert!(beginning_at(7, Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn credentials_that_one_address_refuses_are_shown_to_no_other() {
        let refusing = server(Some("-WRONGPASS invalid username-password pair\r\n")).await;
        let addresses = vec![refusing, server(Some("+OK\r\n")).await];
        assert_eq!(outcome(addresses).await, Err(StoreFault::Credentials));
    }
}
