//! A route of connections or datagrams, ready to be used.

use std::{
    net::IpAddr,
    sync::{Arc, Weak},
};

use http::HeaderName;
use nantian_lb::{Balancer, KeySource};

use crate::{
    ir::RouteId,
    metrics::StreamMetrics,
    upstream::{Destination, Security, UpstreamTls},
    weighted::Weighted,
};

/// A route of connections or datagrams, shared by all workers.
#[derive(Debug)]
pub(crate) struct StreamRoute {
    /// The route.
    pub(crate) id: RouteId,
    /// The route as metrics and logs name it.
    pub(crate) name: Arc<str>,
    pub(crate) metrics: Arc<StreamMetrics>,
    /// `None` is a reference that does not resolve.
    pub(crate) backends: Weighted<Option<StreamBackend>>,
}

/// One of a route's backends.
#[derive(Debug)]
pub(crate) struct StreamBackend {
    pub(crate) balancer: Balancer<Destination>,
    /// What connections go on behind.
    pub(crate) security: StreamSecurity,
    /// Gone when the backend is none any more: nobody brings its balancer up to date from then on.
    pub(crate) registration: Weak<()>,
}

/// What connections to a backend go on behind.
#[derive(Debug)]
pub(crate) enum StreamSecurity {
    /// The TLS of the client, which goes on as it is and verifies the backend itself.
    OfClient,
    /// What the endpoints want, over the TLS that takes the place of theirs if there is any.
    OfBackend(Option<UpstreamTls>),
}

/// Who connects, as far as a balancer asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamClient<'a> {
    /// The client.
    pub(crate) address: IpAddr,
    /// The server name of TLS that it asked for.
    pub(crate) server_name: Option<&'a str>,
}

// === impl StreamSecurity ===

impl StreamSecurity {
    /// An endpoint as it is reached.
    pub(super) fn apply(&self, mut destination: Destination) -> Destination {
        match self {
            Self::OfClient => destination.security = Security::Plain,
            Self::OfBackend(Some(tls)) => destination.over(tls),
            Self::OfBackend(None) => {}
        }
        destination
    }
}

// === impl StreamRoute ===

impl StreamRoute {
    /// One of its backends; `None` where there is none to go to.
    pub(crate) fn choose(&self) -> Option<&StreamBackend> {
        self.backends.choose()?.as_ref()
    }
}

// === impl StreamClient ===

impl KeySource for StreamClient<'_> {
    fn header(&self, _: &HeaderName) -> Option<&[u8]> {
        None
    }

    fn host(&self) -> Option<&str> {
        self.server_name
    }

    fn client_ip(&self) -> Option<IpAddr> {
        Some(self.address)
    }
}
