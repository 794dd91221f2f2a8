//! What the balancer chooses from.

use std::fmt;
use std::sync::Arc;

/// The identity of an endpoint: what its state is kept by and what it is placed by.
///
/// Two endpoints of one set have different ids. An id is to outlive a change of weight, order or strategy,
/// and of the address if the workload keeps its name: `namespace/pod` or a host name is a good id, `ip:port`
/// a fair one, an index in a list is not one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(Arc<str>);

/// One server that requests can be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint<T> {
    /// Stable identity.
    pub id: EndpointId,
    /// Where the embedder sends the request: an address, a URL, a connection pool.
    ///
    /// It is cloned at each pick, so that it ought to be cheap to clone.
    pub target: T,
    /// Share of the requests, relative to the other endpoints of the set.
    ///
    /// Unit: none. Range: any; 0 receives no new request. Default: 1.
    pub weight: u32,
    /// Whether it takes requests.
    ///
    /// Default: [`Readiness::Ready`].
    pub readiness: Readiness,
    /// How near it is: endpoints of a lower tier are preferred, as
    /// [`BalanceConfig::tiers`](crate::BalanceConfig::tiers) says.
    ///
    /// Default: 0.
    pub tier: u8,
}

/// Whether an endpoint takes requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Readiness {
    /// It does.
    #[default]
    Ready,
    /// It is about to end, and still serves: it keeps its sessions, and takes other requests if nothing else
    /// is left.
    Draining,
    /// It does not.
    NotReady,
}

// === impl EndpointId ===

impl EndpointId {
    /// Names an endpoint.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn text(&self) -> &Arc<str> {
        &self.0
    }
}

impl From<&str> for EndpointId {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}

impl From<String> for EndpointId {
    fn from(id: String) -> Self {
        Self::new(id)
    }
}

impl AsRef<str> for EndpointId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

// === impl Endpoint ===

impl<T> Endpoint<T> {
    /// An endpoint of weight 1.
    pub fn new(id: impl Into<EndpointId>, target: T) -> Self {
        Self { id: id.into(), target, weight: 1, readiness: Readiness::Ready, tier: 0 }
    }

    /// Sets the [`weight`](Self::weight).
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }
    /// Sets the [`readiness`](Self::readiness).
    #[must_use]
    pub fn with_readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Sets the [`tier`](Self::tier).
    #[must_use]
    pub fn with_tier(mut self, tier: u8) -> Self {
        self.tier = tier;
        self
    }
}
