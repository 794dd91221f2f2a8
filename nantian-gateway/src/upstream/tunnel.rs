//! Upgraded connections: bytes in both directions until both sides have closed.

use std::future::poll_fn;
use std::task::Poll;

use http::{HeaderMap, HeaderValue, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::http1::Http1;
use crate::{listen::TunnelGuard, runtime::spawn_local};

/// The client's wish to leave HTTP, kept with the request while its hop-by-hop headers are gone.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// The protocols that the client offers.
    pub protocol: HeaderValue,
    /// The client's connection, once it has been told that the protocol changes.
    pub client: OnUpgrade,
    /// Counts the connection as open until the tunnel ends.
    pub guard: TunnelGuard,
}

// === impl Upgrade ===

impl Upgrade {
    /// Asks the backend for what the client asked for.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }
}

/// Starts the tunnel for a response with status 101.
pub(super) fn start(mut connection: Box<Http1>, upstream: OnUpgrade, upgrade: Upgrade) {
    spawn_local(async move {
        poll_fn(|cx| {
            connection.drive(cx);
            if connection.has_ended() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let Upgrade { client, guard, .. } = upgrade;
        let (client, upstream) = match (client.await, upstream.await) {
            (Ok(client), Ok(upstream)) => (client, upstream),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "an upgrade was not completed");
                return;
            }
        };
        let copied = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await;
        if let Err(error) = copied {
            tracing::debug!(%error, "a tunnel broke");
        }
        drop(guard);
    });
}
