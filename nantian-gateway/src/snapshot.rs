//! One generation of the data path, immutable and shared by all workers.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    compile::CompiledRule,
    ir::RouteId,
    listen::{Order, PortKey, TlsServer},
    route::{Router, ServerNames},
    stream::StreamRoute,
};

/// One generation of the data path.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Its number; later ones are higher.
    pub(crate) generation: u64,
    pub(crate) ports: BTreeMap<PortKey, Port>,
    pub(crate) rules: Vec<Arc<CompiledRule>>,
    /// Some plugin may look at the headers of messages.
    pub(crate) has_plugins: bool,
}

/// One socket.
#[derive(Debug)]
pub(crate) struct Port {
    /// The port that clients know.
    pub(crate) number: u16,
    pub(crate) router: Router,
    pub(crate) spoken: PortProtocol,
    /// The routes of connections and datagrams that are attached to it.
    pub(crate) streams: Vec<RouteId>,
}

/// What is spoken on a socket.
#[derive(Debug, Clone)]
pub(crate) enum PortProtocol {
    /// HTTP in clear text.
    Http,
    /// HTTP behind TLS.
    Https(TlsServer),
    /// TLS, of which the server name tells whose it is.
    Tls(Arc<TlsNames>),
    /// Bytes of one route, if there is one.
    Stream(Option<Arc<StreamRoute>>),
    /// TLS is asked for and cannot be had: nothing is served in its place.
    Unusable,
}

/// A socket with listeners that do different things with TLS.
#[derive(Debug)]
pub(crate) struct TlsNames {
    /// What the listeners with HTTP inside do.
    pub(crate) https: TlsServer,
    pub(crate) names: ServerNames<TlsMode, Arc<StreamRoute>>,
}

/// What a listener does with TLS.
#[derive(Debug)]
pub(crate) enum TlsMode {
    /// HTTP is inside.
    Https(TlsServer),
    /// It ends here.
    Terminate(TlsServer),
    /// It is the backend's.
    PassThrough,
}

/// Where a connection that is not looked into came in, and the route that it belongs to.
#[derive(Debug)]
pub(crate) struct StreamBinding {
    pub(crate) key: PortKey,
    pub(crate) local: IpAddr,
    pub(crate) route: RouteId,
}

impl Snapshot {
    /// What becomes of the order of headers.
    pub(crate) fn order(&self) -> Order {
        if self.has_plugins { Order::Kept } else { Order::Any }
    }

    /// The socket of a connection to `local` that was accepted on `key`: that one, or the one that took its
    /// place.
    pub(crate) fn port_of(&self, key: &PortKey, local: IpAddr) -> Option<&Port> {
        let at = |address| self.ports.get(&PortKey { address, ..*key });
        self.ports.get(key).or_else(|| at(Some(local))).or_else(|| at(None))
    }

    /// Whether the route of a connection that came in at `place` is attached there.
    pub(crate) fn carries(&self, place: &StreamBinding) -> bool {
        self.port_of(&place.key, place.local).is_some_and(|port| port.streams.contains(&place.route))
    }

    /// Every socket.
    pub(crate) fn port_keys(&self) -> impl Iterator<Item = PortKey> + '_ {
        self.ports.keys().copied()
    }
}

impl Port {
    /// What TLS with HTTP inside does, if there is any.
    pub(crate) fn https(&self) -> Option<&TlsServer> {
        match &self.spoken {
            PortProtocol::Https(server) => Some(server),
            PortProtocol::Tls(names) => Some(&names.https),
            PortProtocol::Http | PortProtocol::Stream(_) | PortProtocol::Unusable => None,
        }
    }

    /// Whether its clients speak TLS.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.spoken, PortProtocol::Https(_) | PortProtocol::Tls(_))
    }
}
