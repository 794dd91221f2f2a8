//! One generation of the data path, immutable and shared by all workers.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    compile::CompiledRule,
    listen::{PortKey, TlsServer},
    route::{Router, RuleIndex},
};

/// One generation of the data path.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) ports: BTreeMap<PortKey, Port>,
    pub(crate) rules: Vec<Arc<CompiledRule>>,
}

/// One socket.
#[derive(Debug)]
pub struct Port {
    /// The port that clients know.
    pub(crate) number: u16,
    pub(crate) router: Router,
    pub(crate) transport: Transport,
}

/// What is below HTTP.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain,
    Tls(TlsServer),
    /// TLS is asked for and cannot be had: nothing is served in its place.
    Unusable,
}

impl Snapshot {
    /// Its number; later ones are higher.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The socket of a connection to `local` that was accepted on `key`: that one, or the one that took its place.
    pub fn port_of(&self, key: &PortKey, local: IpAddr) -> Option<&Port> {
        let at = |address| self.ports.get(&PortKey { address, ..*key });
        self.ports.get(key).or_else(|| at(Some(local))).or_else(|| at(None))
    }

    /// The socket of this address and port.
    pub fn port(&self, key: &PortKey) -> Option<&Port> {
        self.ports.get(key)
    }

    /// Every socket.
    pub fn port_keys(&self) -> impl Iterator<Item = PortKey> + '_ {
        self.ports.keys().copied()
    }

    pub(crate) fn rule(&self, index: RuleIndex) -> Option<&Arc<CompiledRule>> {
        self.rules.get(usize::try_from(index.0).ok()?)
    }
}

impl Port {
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Whether its clients speak TLS.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }
}
