//! What the levels of a request are called.

use std::fmt;
use std::sync::Arc;

use super::agreed_secret::AgreedSecret;
use super::layout::slot_of;
use super::store::StoreState;
use crate::key::Key;

/// Whose levels a request uses: one digest for this process, another that all replicas have in common.
///
/// Make it for each request, with [`SharedLimiter::key_of`](super::SharedLimiter::key_of) or
/// [`SharedLimiter::key`](super::SharedLimiter::key), and do not keep it: it is hashed under the secret on
/// which the replicas of a server agree. The server is never asked for a key that was made before they had,
/// such as one from before the first connection; as during an outage, [`OnOutage`](super::OnOutage) decides,
/// and nothing is shared. It outlives connections otherwise.
#[derive(Clone)]
pub struct SharedKey {
    own: Key,
    /// The name of the levels on the server, and what it was hashed under.
    remote: u128,
    agreed: Arc<AgreedSecret>,
}

/// The name of levels on the server, whole within its hash tag. Its number is that of their packing, so that
/// processes of another release do not misread them.
pub(super) fn name_of(levels: u128) -> String {
    format!("nrl3:{{{levels:032x}}}")
}

// === impl SharedKey ===

impl SharedKey {
    pub(super) fn new(own: Key, remote: u128, agreed: Arc<AgreedSecret>) -> Self {
        Self { own, remote, agreed }
    }

    /// The digest for this process.
    pub(crate) fn own(&self) -> Key {
        self.own
    }

    /// The name of the levels on the server.
    pub(super) fn name(&self) -> String {
        name_of(self.remote)
    }

    pub(super) fn remote(&self) -> u128 {
        self.remote
    }

    /// Which part of a cluster has the levels.
    pub(super) fn slot(&self) -> u16 {
        slot_of(&self.name())
    }

    /// Whether the other replicas call the levels by the same name.
    pub(super) fn is_known_by(&self, store: &StoreState) -> bool {
        self.agreed.bytes == store.agreed.load().bytes
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedKey").field(&self.own).finish()
    }
}
