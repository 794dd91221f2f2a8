//! The reservation of a request that is on its way, for whoever learns what it used.

use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes};
use http::{Extensions, HeaderMap, Response};

use crate::decide::Charge;
use crate::error::Denied;
use crate::headers;
use crate::layer::Settings;
use crate::levels::Levels;
use crate::limit::{Limit, Unit};
use crate::policy::OnLimit;
use crate::reservation::{CachedSettlement, Settlement};
use crate::sync::{AtomicBool, Ordering};
use crate::usage_meter::{Metering, ResponseEnd};

/// Settles the tokens of the request in whose extensions it is found.
///
/// It is found where tokens have been charged: not where no limit of the policy counts them, nor in a request
/// that passes without a charge, such as one that a policy merely warns of. So take an `Option` of it.
///
/// Clones settle the same reservation, which is settled once: the first settlement holds, later ones do
/// nothing. If nobody settles, the end of the response does, by the [`UsageMeter`](crate::UsageMeter) of the
/// layer, or where that knows nothing:
///
/// - a 5xx response other than 504 as [`Settlement::NotServed`]: whoever fails does not bill,
/// - everything else as [`RateLimitLayer::if_unsettled`](crate::RateLimitLayer::if_unsettled) says, which is
///   [`Settlement::AsReserved`] by default: served responses, requests that are given up, 504, and calls that
///   end in an error. Behind a timeout somebody has the prompt and may have used the tokens, and an error
///   does not tell whether it is one. Whoever knows that nothing was sent, as when no connection was made,
///   settles as [`Settlement::NotServed`].
///
/// Under several limiters it settles the reservations of all of them.
#[derive(Debug, Clone)]
pub struct ReservationHandle(Arc<Handle>);

/// In the extensions of a response: somebody has been asked before the request was refused further in.
///
/// Limiters around do not take their charge back then. Whoever asks one backend after another puts it there
/// once one was asked: else the one that stands in and refuses would make all that the others were asked
/// free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct Attempted;

/// Settles a reservation when the response ends, however it ends.
#[derive(Debug)]
pub(crate) struct SettleGuard {
    handle: ReservationHandle,
    /// What was taken before the body was read.
    begun: Option<ReservationHandle>,
    /// The client is one of Anthropic's.
    is_of_anthropic: bool,
    metering: Option<Metering>,
    /// What the end settles if nobody knows better.
    end: Settlement,
}

#[derive(Debug)]
struct Handle {
    charge: Charge,
    is_settled: AtomicBool,
    /// An attempt at the request has used tokens.
    is_used: AtomicBool,
    settings: Arc<Settings>,
    /// The handle of the limiter around this one, once the request has come here from there.
    outer: OnceLock<ReservationHandle>,
}

// === impl ReservationHandle ===

impl ReservationHandle {
    pub(crate) fn new(charge: Charge, settings: Arc<Settings>) -> Self {
        let [is_settled, is_used] = [(); 2].map(|()| AtomicBool::new(false));
        Self(Arc::new(Handle { charge, is_settled, is_used, settings, outer: OnceLock::new() }))
    }

    /// Takes its place in a request, within the limiter around.
    pub(crate) fn enter(&self, request: &mut Extensions) {
        if let Some(outer) = request.insert(self.clone()) {
            // It enters once.
            let _ = self.0.outer.set(outer);
        }
    }

    /// Settles the request's tokens now, unless they are settled.
    pub fn settle(&self, settlement: impl Into<CachedSettlement>) {
        let settlement = settlement.into();
        self.outwards().for_each(|handle| handle.settle_own(settlement));
    }

    /// Settles by a guess that nobody will correct, such as by the length of a body that cannot be read: as
    /// [`Settlement::AtLeast`] so many `tokens`, of which each limiter charges no more than half of the
    /// smallest bucket of tokens of its policy: one request must not put all others in debt by it.
    pub fn settle_guess(&self, tokens: u64) {
        self.outwards()
            .for_each(|handle| handle.settle_own(Settlement::AtLeast(handle.bounded(tokens)).into()));
    }

    /// Settles only what was reserved for this attempt at the request, by the limiters that are
    /// [`of_attempt`](crate::RateLimitLayer::of_attempt), up to the first that is not: for an attempt that
    /// failed where another one follows. The reservations around it are settled by that one; if nobody does,
    /// they count as used unless all attempts were settled as [`Settlement::NotServed`].
    pub fn settle_attempt(&self, settlement: impl Into<CachedSettlement>) {
        let settlement = settlement.into();
        let mut is_of_attempt = true;
        for handle in self.outwards() {
            is_of_attempt &= handle.0.settings.of_attempt;
            if is_of_attempt {
                handle.settle_own(settlement);
            } else if !settlement.is_not_served() {
                handle.0.is_used.store(true, Ordering::Release);
            }
        }
    }

    /// Tokens that were estimated for the request, the most that any limiter around it did.
    pub fn reserved_tokens(&self) -> u64 {
        self.outwards().map(|handle| handle.0.charge.cost().tokens).max().unwrap_or_default()
    }

    pub(crate) fn levels(&self) -> &Levels {
        self.0.charge.levels()
    }

    /// This handle, then that of the limiter around it, and so on.
    fn outwards(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |handle| handle.0.outer.get())
    }

    fn settle_own(&self, settlement: CachedSettlement) {
        let settings = &self.0.settings;
        if self.take() && settings.counts_tokens() {
            let settled =
                self.0.charge.settle_once(settlement.under(settings.decider.policy().cached_token_weight()));
            settings.observer.settled(&settled);
        }
    }

    /// So many tokens, but no more than half of the smallest bucket of them.
    fn bounded(&self, tokens: u64) -> u64 {
        let limits = self.0.settings.decider.policy().limits().iter();
        let buckets = limits.filter(|limit| limit.unit() == Unit::Tokens).map(Limit::capacity);
        buckets.min().map_or(tokens, |bucket| tokens.min(bucket.div_ceil(2)))
    }

    /// Takes the charge back, unless it is settled.
    pub(crate) fn cancel_own(&self) {
        if self.take() {
            self.0.charge.cancel_once();
        }
    }

    /// Takes the charge back because more than it was denied; returns the denial as it is without it.
    pub(crate) fn cancel_beside(&self, denied: Denied) -> Denied {
        self.cancel_own();
        self.0.charge.denied_beside(denied)
    }

    /// Whether the reservation is the caller's to settle.
    fn take(&self) -> bool {
        !self.0.is_settled.swap(true, Ordering::AcqRel)
    }
}

// === impl SettleGuard ===

impl SettleGuard {
    pub(crate) fn new(
        handle: ReservationHandle,
        begun: Option<ReservationHandle>,
        metering: Option<Metering>,
        request: &HeaderMap,
    ) -> Self {
        let (end, is_of_anthropic) = (handle.0.settings.if_unsettled, headers::is_of_anthropic(request));
        Self { handle, begun, is_of_anthropic, metering, end }
    }

    /// Shows the meter the head of the response.
    pub(crate) fn meter_head<B>(&mut self, response: Response<B>) -> Response<B> {
        let Some(metering) = &mut self.metering else { return response };
        let (parts, body) = response.into_parts();
        metering.head(&parts);
        Response::from_parts(parts, body)
    }

    /// Shows the meter a piece of the body, which is given back.
    pub(crate) fn meter_data<D: Buf + From<Bytes>>(&mut self, data: D) -> D {
        match &mut self.metering {
            Some(metering) => metering.data(data),
            None => data,
        }
    }

    /// Notes how the response has ended, for its meter.
    pub(crate) fn mark_end(&mut self, end: ResponseEnd) {
        if let Some(metering) = &mut self.metering {
            metering.mark_end(end);
        }
    }

    /// The request was not served: its end refunds the tokens, unless somebody settled otherwise.
    pub(crate) fn fail(&mut self) {
        self.end = Settlement::NotServed;
    }

    /// The request was refused further in: it costs nothing.
    pub(crate) fn cancel(mut self) {
        self.metering = None;
        self.handle.cancel_own();
        if let Some(begun) = &self.begun {
            begun.cancel_own();
        }
    }

    /// Tells the client where the limits stand, if it is to know.
    pub(crate) fn report_levels<B>(&self, response: &mut Response<B>) {
        let settings = &self.handle.0.settings;
        if !settings.report_levels {
            return;
        }
        // Clients pace themselves by what they are told, which no rehearsal is to change, and no guess.
        if settings.decider.policy().on_limit() == OnLimit::Warn || !self.handle.0.charge.knows_levels() {
            headers::strip_once(response);
        } else {
            headers::admitted(response, self.handle.levels(), self.is_of_anthropic);
        }
    }
}

impl Drop for SettleGuard {
    fn drop(&mut self) {
        let is_used = self.handle.0.is_used.load(Ordering::Acquire);
        let learned = self.metering.take().and_then(Metering::end);
        // What the last of several attempts says of itself makes the others no less.
        if let Some(settlement) = learned.filter(|learned| !(is_used && learned.is_not_served())) {
            if self.handle.0.settings.of_attempt {
                self.handle.settle_attempt(settlement);
            } else {
                self.handle.settle(settlement);
            }
        }
        self.handle.settle_own(if is_used { Settlement::AsReserved } else { self.end }.into());
    }
}
