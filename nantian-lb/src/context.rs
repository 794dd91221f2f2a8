//! What one pick depends on besides the set.

use std::fmt;

use crate::endpoint::EndpointId;
use crate::key::KeySource;
use crate::session::Session;
use crate::thread_cache::Rng;

/// What one pick depends on besides the set: a random number, the request for strategies that hash a part of
/// it, the session that the request belongs to, and the endpoints that were tried before.
#[derive(Clone, Copy)]
pub struct PickContext<'a> {
    /// Drawn when it is needed, if it is not given.
    pub(crate) random: Option<u64>,
    pub(crate) keys: Option<&'a dyn KeySource>,
    pub(crate) session: Option<&'a Session>,
    pub(crate) tried: &'a [EndpointId],
    pub(crate) may_return: bool,
}

// === impl PickContext ===

impl<'a> PickContext<'a> {
    /// A pick that knows nothing of the request. If the strategy wants a random number, the balancer draws
    /// it.
    #[must_use]
    pub const fn new() -> Self {
        Self { random: None, keys: None, session: None, tried: &[], may_return: true }
    }

    /// A pick with the given random number: the same number and the same state of the balancer give the same
    /// endpoint.
    #[must_use]
    pub const fn seeded(random: u64) -> Self {
        Self { random: Some(random), ..Self::new() }
    }

    /// Lets the pick hash a part of this request.
    #[must_use]
    pub const fn with_keys(mut self, keys: &'a dyn KeySource) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Goes to the endpoint of this session, if it is there and well; a session wins over a hash and over the
    /// strategy.
    #[must_use]
    pub const fn with_session(mut self, session: &'a Session) -> Self {
        self.session = Some(session);
        self
    }

    /// Passes over the endpoints that were tried for the request before, unless there is no other.
    #[must_use]
    pub const fn with_tried(mut self, tried: &'a [EndpointId]) -> Self {
        self.tried = tried;
        self
    }

    /// The random number of the pick.
    #[inline]
    pub(crate) fn random(&self, rng: &mut Rng) -> u64 {
        match self.random {
            Some(random) => random,
            None => rng.next_u64(),
        }
    }

    /// Whether nothing but the strategy decides.
    pub(crate) const fn is_plain(&self) -> bool {
        self.session.is_none() && self.tried.is_empty()
    }

    /// Fails rather than go to one that was tried before.
    #[must_use]
    pub const fn without_return(mut self) -> Self {
        self.may_return = false;
        self
    }
}

impl Default for PickContext<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PickContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickContext")
            .field("random", &self.random)
            .field("keys", &self.keys.is_some())
            .field("session", &self.session)
            .field("tried", &self.tried)
            .field("may_return", &self.may_return)
            .finish()
    }
}
