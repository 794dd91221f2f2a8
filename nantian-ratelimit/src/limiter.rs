//! The synchronous core: a policy bound to the levels of its callers.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::{Clock, MonotonicClock, Timestamp};
use crate::cost::Cost;
use crate::error::Denied;
use crate::key::{Key, KeyHasher, Secret};
use crate::ledger::{Ledger, LedgerHistory, Tats, Verdict};
use crate::levels::Levels;
use crate::policy::{MAX_LIMITS, Policy};
use crate::reservation::Reservation;
use crate::wait_queue::WaitQueues;
#[cfg(feature = "redis")]
use crate::{limit::Limit, limit_column::Correction, typical::Typical};

/// Decides all limits of a policy at once, for any number of keys, without a lock for keys that it knows.
///
/// A limiter is an immutable policy over shared state. Clones share both; [`Limiter::successor`] gives a
/// limiter with another policy over the same state. Whichever limiter of such a family is asked, the amounts
/// of the newest policy hold; scope and reaction are those of the limiter's own policy.
///
/// ```
/// use std::time::Duration;
/// use nantian_ratelimit::{Cost, Limit, Limiter, Policy, clock::Timestamp};
///
/// let limit = Limit::requests_per_minute(2);
/// let limiter = Limiter::new(Policy::builder().limit(limit).build()?);
/// let alice = limiter.key(b"alice");
/// let now = Timestamp::ORIGIN;
/// assert!(limiter.admit_at(now, alice, Cost::REQUEST).is_ok());
/// assert!(limiter.admit_at(now, alice, Cost::REQUEST).is_ok());
/// let denied = limiter.admit_at(now, alice, Cost::REQUEST).unwrap_err();
/// assert_eq!(denied.retry_after(), Some(Duration::from_secs(30)));
/// assert!(limiter.admit_at(now, limiter.key(b"bob"), Cost::REQUEST).is_ok());
/// # Ok::<_, nantian_ratelimit::InvalidPolicy>(())
/// ```
#[derive(Clone)]
pub struct Limiter(Arc<BoundPolicy>);

/// Makes a [`Limiter`] with other than default settings.
#[derive(Debug)]
#[must_use]
pub struct LimiterBuilder {
    policy: Policy,
    max_keys: usize,
    clock: Arc<dyn Clock>,
    secret: Secret,
}

/// A request that was charged; dropping it leaves the charge as it is.
pub struct Admitted<'a> {
    ledger: Cow<'a, Arc<Ledger>>,
    now: Timestamp,
    tats: Tats,
    key: Key,
    cost: Cost,
    policy: &'a Policy,
    /// The key had no bucket of its own.
    is_overflow: bool,
}

/// A policy and the ledger that was the latest when it was bound.
struct BoundPolicy {
    policy: Policy,
    ledger: Arc<Ledger>,
    secret: Secret,
    history: Arc<LedgerHistory>,
}

// === impl Limiter ===

impl Limiter {
    /// A limiter for up to [`LimiterBuilder::DEFAULT_MAX_KEYS`] keys on a [`MonotonicClock`].
    pub fn new(policy: Policy) -> Self {
        Self::builder(policy).build()
    }

    /// Starts a limiter with other settings.
    pub fn builder(policy: Policy) -> LimiterBuilder {
        LimiterBuilder {
            policy,
            max_keys: LimiterBuilder::DEFAULT_MAX_KEYS,
            clock: Arc::new(MonotonicClock::new()),
            secret: Secret::random(),
        }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// The time on this limiter's clock.
    pub fn now(&self) -> Timestamp {
        self.0.history.now()
    }

    /// Starts the digest of a scope's values.
    #[inline]
    pub fn hasher(&self) -> KeyHasher {
        self.0.secret.hasher()
    }

    /// The digest of a single value.
    ///
    /// Keys mean something only to the limiter that made them, and to those over the same state.
    #[inline]
    pub fn key(&self, value: &[u8]) -> Key {
        let mut hasher = self.hasher();
        hasher.value(Some(value));
        hasher.finish()
    }

    /// Charges `cost` to every limit of the policy, or to none.
    ///
    /// Tokens are thereby reserved: [`Admitted::reserve`] to settle them when the real usage is known, or
    /// leave it at that. A cost above a limit's bucket is admitted when that bucket is full and takes all of
    /// it; its settlement goes into debt. A cost of 0 is not checked.
    ///
    /// What follows a denial is the caller's: see [`Policy::on_limit`]. A layer waits for a turn or lets the
    /// request pass, where the policy says so; here all are denied.
    ///
    /// Of two requests that race for the last room one is denied; in rare interleavings of several limits
    /// both are, and a retry passes. Never are both admitted.
    ///
    /// # Errors
    ///
    /// [`Denied`] when a limit lacks room; nothing was charged then.
    #[inline]
    pub fn admit_at(&self, now: Timestamp, key: Key, cost: Cost) -> Result<Admitted<'_>, Denied> {
        let BoundPolicy { ledger, policy, .. } = &*self.0;
        let mut tats = [0; MAX_LIMITS];
        match ledger.admit(now, key, cost, &mut tats) {
            Verdict::Admitted { is_overflow } => {
                Ok(Admitted { ledger: Cow::Borrowed(ledger), now, tats, key, cost, policy, is_overflow })
            }
            Verdict::Denied => Err(denied(ledger, now, &tats, cost)),
            Verdict::Retired => self.admit_by_latest(now, key, cost),
        }
    }

    /// [`Limiter::admit_at`] where the limiter's own ledger answers no more.
    #[cold]
    fn admit_by_latest(&self, now: Timestamp, key: Key, cost: Cost) -> Result<Admitted<'_>, Denied> {
        let policy = self.policy();
        loop {
            let ledger = self.0.history.latest();
            let mut tats = [0; MAX_LIMITS];
            match ledger.admit(now, key, cost, &mut tats) {
                Verdict::Admitted { is_overflow } => {
                    let ledger = Cow::Owned(ledger);
                    return Ok(Admitted { ledger, now, tats, key, cost, policy, is_overflow });
                }
                Verdict::Denied => return Err(denied(&ledger, now, &tats, cost)),
                Verdict::Retired => {}
            }
        }
    }

    /// [`Limiter::admit_at`] the time on the limiter's clock: its recent time where that is enough to admit.
    ///
    /// # Errors
    ///
    /// [`Denied`] when a limit lacks room; nothing was charged then.
    #[inline]
    pub fn admit(&self, key: Key, cost: Cost) -> Result<Admitted<'_>, Denied> {
        if let Some(now) = self.0.history.recent() {
            let BoundPolicy { ledger, policy, .. } = &*self.0;
            let mut tats = [0; MAX_LIMITS];
            let verdict = ledger.admit(now, key, cost, &mut tats);
            if let Verdict::Admitted { is_overflow } = verdict {
                let ledger = Cow::Borrowed(ledger);
                return Ok(Admitted { ledger, now, tats, key, cost, policy, is_overflow });
            }
            if matches!(verdict, Verdict::Denied)
                && let Some(denied) = self.denied_still(&tats, cost)
            {
                return Err(denied);
            }
        }
        self.admit_at(self.now(), key, cost)
    }

    /// Whether a request that was denied at a recent time is denied now.
    #[cold]
    fn denied_still(&self, tats: &Tats, cost: Cost) -> Option<Denied> {
        let (ledger, now) = (&self.0.ledger, self.now());
        let (_, until) = ledger.refusal(tats, now, cost);
        until.is_none_or(|until| until > now).then(|| denied(ledger, now, tats, cost))
    }

    /// Where the limits stand for `key` now; charges nothing.
    pub fn levels(&self, key: Key) -> Levels {
        self.levels_at(self.now(), key)
    }

    /// [`Limiter::levels`] at a given time, which may be ahead of the clock.
    pub fn levels_at(&self, now: Timestamp, key: Key) -> Levels {
        let mut ledger = self.ledger();
        loop {
            if let Some(tats) = ledger.peek(now, key) {
                return Levels::new(ledger.into_owned(), now, tats);
            }
            ledger = Cow::Owned(self.0.history.latest());
        }
    }

    /// The denial of who comes too late in its queue: with the time until there is room, or a second.
    pub(crate) fn denial(&self, key: Key, cost: Cost) -> Denied {
        const NEXT_TURN: Duration = Duration::from_secs(1);
        let levels = self.levels(key);
        let needed = || levels.iter().position(|level| cost.of(level.limit.unit()) > 0).unwrap_or(0);
        let (column, wait) = levels.shortage(cost).unwrap_or_else(|| (needed(), Some(NEXT_TURN)));
        Denied::new(levels, column, wait)
    }

    /// Where requests wait.
    pub(crate) fn queues(&self) -> &Arc<WaitQueues> {
        self.0.history.queues()
    }

    /// Puts `policy` in force for all clones, and gives a limiter with its scope and reaction.
    ///
    /// A limit whose unit and window the old policy had keeps what every key has used, in its unit, whatever
    /// the amounts; use beyond the new bucket is debt. Others start full. The same again changes nothing.
    pub fn successor(&self, policy: Policy) -> Self {
        self.successor_at(self.now(), policy)
    }

    /// [`Limiter::successor`] at a given time.
    pub fn successor_at(&self, now: Timestamp, policy: Policy) -> Self {
        let next = self.succeeded_by(now, policy, 1);
        next.queues().notify_all();
        next
    }

    /// [`Limiter::successor_at`], for whoever wakes those that wait. Levels may owe what so many like it can
    /// owe together.
    pub(crate) fn succeeded_by(&self, now: Timestamp, policy: Policy, shares: u32) -> Self {
        let history = &self.0.history;
        history.queues().restore();
        let ledger = history.succeed(now, &policy, shares);
        let (secret, history) = (self.0.secret.clone(), Arc::clone(history));
        Self(Arc::new(BoundPolicy { policy, ledger, secret, history }))
    }

    /// Lets all requests pass that wait for this limiter or one of its family, or would from now on
    /// ([`OnLimit::Queue`](crate::OnLimit::Queue)): uncounted, because their policy is gone. A
    /// [`successor`](Self::successor) lets them wait again.
    pub fn lift(&self) {
        self.queues().lift();
    }

    /// Levels at which these items of each limit are in use.
    #[cfg(feature = "redis")]
    pub(crate) fn levels_of(&self, now: Timestamp, used: &[f64]) -> Levels {
        let ledger = &self.0.ledger;
        let mut tats = [0; MAX_LIMITS];
        for ((tat, column), used) in tats.iter_mut().zip(ledger.columns()).zip(used) {
            *tat = column.tat(*used, now);
        }
        Levels::new(Arc::clone(ledger), now, tats)
    }

    /// Corrects the levels of `key`.
    #[cfg(feature = "redis")]
    pub(crate) fn correct_at(&self, now: Timestamp, key: Key, correction: impl Fn(&Limit) -> Correction) {
        for column in self.0.ledger.columns() {
            let correction = correction(column.limit());
            if correction != Correction::Debit(0) && correction != Correction::Owed(0) {
                self.0.ledger.correct_lastingly(now, key, column, correction);
            }
        }
    }

    /// Keys whose buckets are not all full, counted now. Takes time in proportion to the table.
    pub fn live_keys(&self) -> usize {
        self.live_keys_at(self.now())
    }

    /// [`Limiter::live_keys`] at a given time.
    pub fn live_keys_at(&self, now: Timestamp) -> usize {
        self.ledger().live_keys(now)
    }

    /// Decisions so far about keys that found no room and share a bucket with others: see
    /// [`LimiterBuilder::max_keys`].
    pub fn overflows(&self) -> u64 {
        self.0.ledger.overflows()
    }

    /// What four of five recent requests used at most, in tokens; 0 as long as nothing was settled.
    pub fn typical_tokens(&self) -> u64 {
        self.0.ledger.typical().tokens()
    }

    /// Where it learns what requests use.
    #[cfg(feature = "redis")]
    pub(crate) fn typical(&self) -> &Typical {
        self.0.ledger.typical()
    }

    fn ledger(&self) -> Cow<'_, Arc<Ledger>> {
        if self.0.ledger.is_retired() {
            Cow::Owned(self.0.history.latest())
        } else {
            Cow::Borrowed(&self.0.ledger)
        }
    }
}

/// What the caller is told of a refusal.
#[inline(never)]
fn denied(ledger: &Arc<Ledger>, now: Timestamp, tats: &Tats, cost: Cost) -> Denied {
    let (column, until) = ledger.refusal(tats, now, cost);
    Denied::new(Levels::new(Arc::clone(ledger), now, *tats), column, until.map(|until| until.since(now)))
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}

// === impl Admitted ===

impl Admitted<'_> {
    /// Where the limits stand after the charge.
    pub fn levels(&self) -> Levels {
        Levels::new(Arc::clone(&self.ledger), self.now, self.tats)
    }

    /// The charge as a reservation, to be settled with the real usage.
    pub fn reserve(self) -> Reservation {
        let levels = Levels::new(self.ledger.into_owned(), self.now, self.tats);
        Reservation::new(levels, self.key, self.cost, self.policy.cached_token_weight(), self.is_overflow)
    }
}

impl fmt::Debug for Admitted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, cost, levels) = (self.key, self.cost, self.levels());
        f.debug_struct("Admitted").field("key", &key).field("cost", &cost).field("levels", &levels).finish()
    }
}

// === impl LimiterBuilder ===

impl LimiterBuilder {
    /// Keys that a limiter tells apart by default.
    pub const DEFAULT_MAX_KEYS: usize = 1 << 17;

    /// Sets how many keys can be in use at once, each with its own bucket.
    ///
    /// A key is in use while some of its buckets is not full. Memory grows with the keys in use and is
    /// bounded: a slot takes 16 bytes for one limit, 32 for up to three, 64 for up to seven, and there are
    /// one and a half slots for a key. Keys that find no slot share one more bucket per shard (there are up
    /// to 64 shards) until one is free; no key ever loses its bucket to another. What such a bucket was
    /// charged is not given back, by a settlement or because another limiter denied the request: it refills.
    ///
    /// Unit: keys. Range: 1 to 2^30. Default: 131 072.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys.clamp(1, 1 << 30);
        self
    }

    /// Sets the clock. Default: a [`MonotonicClock`].
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The limiter; nobody has used anything yet.
    pub fn build(self) -> Limiter {
        let history = Arc::new_cyclic(|history: &Weak<LedgerHistory>| {
            let ledger = Ledger::new(self.policy.limits(), self.max_keys, Weak::clone(history));
            LedgerHistory::new(ledger, self.max_keys, self.clock)
        });
        let ledger = history.latest();
        Limiter(Arc::new(BoundPolicy { policy: self.policy, ledger, secret: self.secret, history }))
    }
}
