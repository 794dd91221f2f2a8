//! The keys that tokens are sealed with.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// The keys of tokens, the newest first: the first seals, all open.
///
/// To change keys, put the new one in front and take the last one away when no session is older than the new
/// one. A key can seal 2^32 tokens of one place; who starts a thousand sessions a second there has a new key
/// at least once a month.
#[derive(Clone)]
pub struct SessionKeys {
    keys: Arc<[Zeroizing<[u8; 32]>]>,
}

/// There is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no session key")]
#[non_exhaustive]
pub struct NoSessionKeys;

/// The system has no random numbers to make a key of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random numbers for a session key")]
#[non_exhaustive]
pub struct NoRandomness;

// === impl SessionKeys ===

impl SessionKeys {
    /// Seals with the first key and opens with all.
    ///
    /// # Errors
    ///
    /// [`NoSessionKeys`] if there is none.
    pub fn new(keys: impl IntoIterator<Item = [u8; 32]>) -> Result<Self, NoSessionKeys> {
        let keys: Arc<[_]> = keys.into_iter().map(Zeroizing::new).collect();
        if keys.is_empty() { Err(NoSessionKeys) } else { Ok(Self { keys }) }
    }

    /// One key that nobody knows: its sessions end with it.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`] if the system has no random numbers.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|_| NoRandomness)?;
        Ok(Self { keys: Arc::new([key]) })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.keys.iter().map(|key| &**key)
    }
}

impl PartialEq for SessionKeys {
    /// Not for what a stranger sends: it takes longer the more is equal.
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

impl Eq for SessionKeys {}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKeys({})", self.keys.len())
    }
}
