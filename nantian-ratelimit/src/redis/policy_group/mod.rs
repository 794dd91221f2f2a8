//! What all limiters over the same levels have in common, whichever policy each was made for.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::denials::{Denial, Denials};
use super::items::Items;
use super::script;
use super::settle::difference;
use super::shared_key::SharedKey;
use super::store::RedisStore;
use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::error::Denied;
use crate::key::Key;
use crate::limit::{Limit, Unit};
use crate::limit_column::Correction;
use crate::limiter::Limiter;
use crate::policy::Policy;
use crate::reservation::Reservation;

/// How long it takes until all replicas have heard of an edit.
const ROLLOUT: Duration = Duration::from_secs(60);

/// The levels of one policy through all its edits.
pub(super) struct PolicyGroup {
    pub(super) store: RedisStore,
    /// What the levels are called on the server.
    pub(super) id: Box<str>,
    current: ArcSwap<Current>,
    /// When all use that was not reported will have refilled.
    unreported_until: AtomicU64,
    /// Held while what is current is made anew, which takes long where there are many keys.
    change: Mutex<()>,
    /// Held for a moment while unreported use is taken, or corrected.
    report: Mutex<()>,
}

/// The newest policy, and what this process knows of its levels.
pub(super) struct Current {
    replicas: u32,
    /// The policy as it is, for its arithmetic; its buckets stay empty.
    pub(super) whole: Limiter,
    /// What this process decides alone; it sees the server's decisions too.
    pub(super) local: Limiter,
    /// What the server knows of that: what it has decided, and what it was told. It refills here as it does
    /// there, so that the server is to be told what `local` has beyond it, and nothing refills twice.
    told: Limiter,
    /// When the limits became these.
    since: Timestamp,
    pub(super) denials: Arc<Denials>,
}

/// Use that the server is being told of. Dropped before it was delivered, it is unreported again.
pub(super) struct Report {
    group: Arc<PolicyGroup>,
    key: SharedKey,
    items: Items,
}

// === impl PolicyGroup ===

impl PolicyGroup {
    pub(super) fn new(store: RedisStore, id: &str, policy: Policy) -> Self {
        let replicas = store.0.replicas();
        let of_one = policy.share_among(replicas);
        let whole = Limiter::new(policy);
        let current = Current {
            replicas,
            since: whole.now(),
            whole,
            local: Limiter::new(of_one.clone()),
            told: Limiter::new(of_one),
            denials: Arc::default(),
        };
        Self {
            store,
            id: id.into(),
            current: ArcSwap::from_pointee(current),
            unreported_until: AtomicU64::new(0),
            change: Mutex::new(()),
            report: Mutex::new(()),
        }
    }

    /// The newest policy, and this process's share of it by the present number of replicas.
    pub(super) fn current(&self) -> Arc<Current> {
        let current = self.current.load_full();
        if current.replicas == self.store.0.replicas() {
            return current;
        }
        // Whoever counts the levels anew takes long where there are many keys: nobody waits for that.
        let Ok(_change) = self.change.try_lock() else { return current };
        let current = self.current.load_full();
        if current.replicas == self.store.0.replicas() {
            return current;
        }
        let next = Arc::new(Current {
            denials: Arc::clone(&current.denials),
            ..self.shared(&current, self.store.0.replicas(), current.whole.clone())
        });
        self.current.store(Arc::clone(&next));
        next
    }

    /// Makes `policy` the newest, and returns its arithmetic.
    pub(super) fn change(&self, policy: Policy) -> Limiter {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let (current, now) = (self.current.load(), self.now());
        let is_same = current.whole.policy().limits() == policy.limits();
        let whole = current.whole.succeeded_by(now, policy, 1);
        let next = Current {
            since: if is_same { current.since } else { now },
            ..self.shared(&current, self.store.0.replicas(), whole.clone())
        };
        self.current.store(Arc::new(next));
        // Whoever wakes asks by what is current.
        whole.queues().notify_all();
        whole
    }

    /// The same levels by the policy of `whole`, or among another number of replicas. No denial is known yet.
    ///
    /// Of what it used beyond its new share this process is let off, unless the server has to be told of it.
    fn shared(&self, current: &Current, replicas: u32, whole: Limiter) -> Current {
        let (now, of_one) = (self.now(), whole.policy().share_among(replicas));
        let until = self.unreported_until.load(Ordering::Relaxed);
        let shares = if until <= now.as_nanos() { 1 } else { replicas };
        let next = Current {
            replicas,
            whole,
            local: current.local.succeeded_by(now, of_one.clone(), shares),
            told: current.told.succeeded_by(now, of_one, shares),
            since: current.since,
            denials: Arc::default(),
        };
        let left = Duration::from_nanos(until.saturating_sub(now.as_nanos()));
        if !left.is_zero() {
            let is_same = current.whole.policy().limits() == next.whole.policy().limits();
            // It refills at the rate of a share.
            let scaled = now.saturating_add(left.saturating_mul(replicas) / current.replicas).as_nanos();
            let order = Ordering::Relaxed;
            if !is_same || self.unreported_until.compare_exchange(until, scaled, order, order).is_err() {
                self.keep_unreported(now, &next);
            }
        }
        next
    }

    /// The time by which all its limiters count.
    pub(super) fn now(&self) -> Timestamp {
        self.current.load().whole.now()
    }

    /// The server must be told what `key` has used, from now on.
    pub(super) fn remember_unreported(self: &Arc<Self>, now: Timestamp, key: &SharedKey) {
        self.keep_unreported(now, &self.current.load());
        // By another name than the server's nothing can be told.
        if key.is_known_by(&self.store.0) {
            self.store.0.unreported.note(self, key);
        }
    }

    /// What was not reported counts as such until all of it has refilled in the share of `current`.
    fn keep_unreported(&self, now: Timestamp, current: &Current) {
        let until = now.saturating_add(current.longest_debt_of_share());
        self.unreported_until.fetch_max(until.as_nanos(), Ordering::Relaxed);
    }

    /// Takes the use of `key` that the server was not told of.
    pub(super) fn report(self: &Arc<Self>, now: Timestamp, key: &SharedKey) -> Option<Report> {
        let _report = self.hold_reports(now)?;
        let current = self.current.load();
        let items = current.untold(now, key.own());
        if items.is_empty() {
            return None;
        }
        current.told.correct_at(now, key.own(), |limit| Correction::Owed(items.of(limit).unsigned_abs()));
        Some(Report { group: Arc::clone(self), key: key.clone(), items })
    }

    /// Corrects by `settle` what this process alone has charged `key`, by what `items` say; returns what of
    /// that the server has to give back: it gives nothing that it was not told of.
    pub(super) fn take_back<T>(
        &self,
        key: &SharedKey,
        items: &Items,
        settle: impl FnOnce() -> T,
    ) -> (T, Items) {
        let _report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let (current, now) = (self.current.load(), self.now());
        let (untold, known) = (current.untold(now, key.own()), current.known(now, key.own()));
        let told = items.iter().map(|(limit, items)| {
            (limit, items.saturating_add(untold.of(limit)).max(-known.of(limit)).min(0))
        });
        let told = Items::new(told);
        let settled = settle();
        current.told.correct_at(now, key.own(), |limit| Correction::of(told.of(limit)));
        (settled, told)
    }

    /// Adds what `items` take to what the server has yet to be told; what they give back refills by itself.
    pub(super) fn add_unreported(self: &Arc<Self>, key: &SharedKey, items: &Items) {
        let now = self.now();
        self.current().told.correct_at(now, key.own(), |limit| Correction::of(-items.of(limit).max(0)));
        self.remember_unreported(now, key);
    }

    /// Takes note of what the server has charged, as [`Current::note`] does.
    pub(super) fn note(
        &self,
        current: &Current,
        now: Timestamp,
        key: Key,
        cost: Cost,
    ) -> Option<Reservation> {
        let _report = self.hold_reports(now);
        current.note(now, key, cost)
    }

    /// Lets nobody take unreported use, where there is any, while what the server knows and what this process
    /// does are apart.
    fn hold_reports(&self, now: Timestamp) -> Option<MutexGuard<'_, ()>> {
        let is_told = self.unreported_until.load(Ordering::Relaxed) <= now.as_nanos();
        (!is_told).then(|| self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of what the server gives `key` back, or takes more: up to a bucket and a window of the
    /// share of this process, which would pay far longer than the server for what the whole limit can owe.
    pub(super) fn note_correction(&self, now: Timestamp, key: &SharedKey, items: &Items) {
        let current = self.current();
        let _report = self.hold_reports(now);
        let levels = current.local.levels_at(now, key.own());
        let room = |limit: &Limit, used| difference(limit.most_noted(), used).max(0);
        let room = Items::new(levels.used().map(|(limit, used)| (limit, room(limit, used))));
        let noted = |limit: &Limit| Correction::of(items.of(limit).min(room.of(limit)));
        current.told.correct_at(now, key.own(), noted);
        current.local.correct_at(now, key.own(), noted);
    }
}

// === impl Current ===

impl Current {
    pub(super) fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.whole.policy().limits().iter()
    }

    /// How long it takes at most until all that was used has refilled.
    fn longest_debt(&self) -> Duration {
        let longest = self.limits().map(|limit| {
            // A bucket, rounded up, and its debt.
            let windows = u32::try_from(limit.capacity() / limit.max().max(1)).unwrap_or(u32::MAX);
            limit.window().saturating_mul(windows.saturating_add(2))
        });
        longest.max().unwrap_or_default()
    }

    /// The same of what was used of the share of this process, which may owe what the whole limit can, or a
    /// call as large as the bucket of that beside its own, and refills at its own rate.
    fn longest_debt_of_share(&self) -> Duration {
        self.longest_debt().saturating_mul(self.replicas.saturating_add(1))
    }

    /// How long ago it began to hold for what was used before that nobody owes more than the limits let him
    /// owe: since they became these, anew when all replicas will have heard of them, and then each time that
    /// all of that has refilled. Until then another replica may write first, by the limits before; and one
    /// may hear of these later, or be gone without having heard of them.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        let (since, round) = (now.since(self.since), self.longest_debt().as_nanos().max(1));
        let age = since.checked_sub(ROLLOUT).unwrap_or(since).as_nanos() % round;
        Duration::from_nanos(u64::try_from(age).unwrap_or(u64::MAX))
    }

    /// Takes note of what the server has charged; `None` if the share of this process has no room for it, or
    /// the key no bucket of its own: of one that it has later nothing of this could be given back.
    fn note(&self, now: Timestamp, key: Key, cost: Cost) -> Option<Reservation> {
        let local = self.charge(now, key, cost, Limit::noted).ok()?;
        if local.is_overflow() {
            return None;
        }
        self.told.correct_at(now, key, |limit| Correction::Owed(limit.noted(cost)));
        Some(local)
    }

    /// Charges the share of this process all of `cost`.
    pub(super) fn charge_alone(&self, now: Timestamp, key: Key, cost: Cost) -> Result<Reservation, Denied> {
        self.charge(now, key, cost, Limit::reserved)
    }

    /// Charges the share of this process what each limit is `charged` for `cost`: what has to find room
    /// there, and the rest as debt.
    fn charge(
        &self,
        now: Timestamp,
        key: Key,
        cost: Cost,
        charged: impl Fn(&Limit, Cost) -> u64,
    ) -> Result<Reservation, Denied> {
        let opening = self.opening(cost);
        let reservation = self.local.admit_at(now, key, opening)?.reserve();
        if opening == cost {
            return Ok(reservation);
        }
        let taken = |limit: &Limit| opening.of(limit.unit()).min(limit.capacity().max(1));
        let owed = |limit: &Limit| Correction::Owed(charged(limit, cost).saturating_sub(taken(limit)));
        self.local.correct_at(now, key, owed);
        Ok(reservation.enlarged(cost, self.local.levels_at(now, key)))
    }

    /// What of `cost` has to find room in the share of this process, of all limits of a unit the same. Where
    /// one has no bucket as large, it is half of the smallest such bucket, which others leave it sooner than
    /// a full one, and an item, so that two at once do not pass by one bucket.
    fn opening(&self, cost: Cost) -> Cost {
        let room = |unit: Unit| {
            let limits = self.local.policy().limits().iter().filter(|limit| limit.unit() == unit);
            let exceeded = limits.filter(|limit| limit.reserved(cost) > limit.capacity().max(1));
            exceeded.map(|limit| limit.capacity() / 2 + 1).min().unwrap_or(cost.of(unit))
        };
        Cost::new(room(Unit::Requests), room(Unit::Tokens))
    }

    /// The denial of who comes too late in its queue, as far as the share of this process tells.
    pub(super) fn denial(&self, key: Key, cost: Cost) -> Denied {
        self.local.denial(key, self.opening(cost))
    }

    /// What of `key` is in use by what the server knows.
    fn known(&self, now: Timestamp, key: Key) -> Items {
        let told = self.told.levels_at(now, key);
        Items::new(told.used().map(|(limit, told)| (limit, difference(told, 0))))
    }

    /// What of `key` is in use here that the server was not told of.
    fn untold(&self, now: Timestamp, key: Key) -> Items {
        let (local, known) = (self.local.levels_at(now, key), self.known(now, key));
        let untold = |limit, used| difference(used, 0).saturating_sub(known.of(limit)).max(0);
        Items::new(local.used().map(|(limit, used)| (limit, untold(limit, used))))
    }

    /// What a client is told who is denied `cost` as the server has denied no more than that.
    pub(super) fn denied(&self, now: Timestamp, denial: &Denial, cost: Cost) -> Denied {
        let (column, until) = script::worst(self.limits(), &denial.used, cost, denial.at);
        let levels = self.whole.levels_of(denial.at, &denial.used).later(now);
        Denied::new(levels, column, Some(until.since(now)))
    }

    /// Forgets what was denied to `key` if `items` give back some of what it lacked. Else it is denied still:
    /// a request that comes back because its tokens were denied must not make the next one ask for them.
    pub(super) fn give_back(&self, key: u128, items: &Items) {
        self.denials.remove_if(key, |denial| {
            // Whatever was asked for, the levels also tell whether a token is left.
            let cost = Cost { tokens: denial.cost.tokens.max(1), ..denial.cost };
            let mut limits = self.limits().zip(&denial.used);
            limits.any(|(limit, used)| items.of(limit) < 0 && script::lacks(limit, *used, cost))
        });
    }
}

// === impl Report ===

impl Report {
    pub(super) fn items(&self) -> &Items {
        &self.items
    }

    /// The server has answered.
    pub(super) fn delivered(self) {
        self.into_items();
    }

    /// What is to be reported, for whoever sees to it.
    pub(super) fn into_items(mut self) -> Items {
        mem::take(&mut self.items)
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.items.is_empty() {
            self.group.add_unreported(&self.key, &self.items);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
