//! A decision of the server that is seen through even if nobody waits for it any more.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::ask::NoAnswer;
use super::items::Items;
use super::node::{DriverTask, Route};
use super::policy_group::Report;
use super::script::{Answer, Order};
use super::settle::{Correction, difference};
use super::shared::SharedLimiter;
use super::shared_key::SharedKey;
use crate::cost::Cost;

type AnswerFuture = Pin<Box<dyn Future<Output = Result<Answer, NoAnswer>> + Send>>;

/// The server's answer to an order.
///
/// Dropping it leaves the rest to the driver, which gives back what was charged to nobody's use. If the
/// driver has more to do than fits, the charge stays and refills with time.
pub(super) struct PendingDecision {
    future: Option<AnswerFuture>,
    limiter: SharedLimiter,
    key: SharedKey,
    cost: Cost,
}

/// An answer that nobody waits for.
pub(super) struct AbandonedDecision {
    future: AnswerFuture,
    limiter: SharedLimiter,
    key: SharedKey,
    cost: Cost,
}

// === impl PendingDecision ===

impl PendingDecision {
    /// Asks for `cost`, and reports what the server was not told.
    pub(super) fn new(
        limiter: &SharedLimiter,
        route: Route,
        key: &SharedKey,
        cost: Cost,
        order: Order,
        report: Option<Report>,
    ) -> Self {
        let (store, name) = (limiter.store().clone(), key.name());
        let future = async move {
            let answer = store.0.ask(route, &name, &order).await;
            match report {
                Some(report) if answer.is_ok() => report.delivered(),
                undelivered => drop(undelivered),
            }
            answer
        };
        Self { future: Some(Box::pin(future)), limiter: limiter.clone(), key: key.clone(), cost }
    }
}

impl Future for PendingDecision {
    type Output = Result<Answer, NoAnswer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let answer = future.as_mut().poll(cx);
        if answer.is_ready() {
            self.future = None;
        }
        answer
    }
}

impl Drop for PendingDecision {
    fn drop(&mut self) {
        let Some(future) = self.future.take() else { return };
        let (limiter, key) = (self.limiter.clone(), self.key.clone());
        let abandoned = AbandonedDecision { future, limiter, key, cost: self.cost };
        // What does not fit stays charged.
        let _ = self.limiter.store().0.hand_over(&self.key, DriverTask::Finish(abandoned));
    }
}

// === impl AbandonedDecision ===

impl AbandonedDecision {
    /// Waits for the answer, at most the time that a decision may take, and takes the charge back if there
    /// was one.
    pub(super) async fn finish(self) -> Option<Correction> {
        let Self { future, limiter, key, cost } = self;
        let Ok(Answer { fits: true, .. }) = future.await else { return None };
        let current = limiter.group().current();
        let items = Items::new(current.limits().map(|limit| (limit, difference(0, limit.reserved(cost)))));
        (!items.is_empty()).then(|| Correction::new(Arc::clone(limiter.group()), key, items))
    }
}

impl fmt::Debug for AbandonedDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbandonedDecision").field("cost", &self.cost).finish_non_exhaustive()
    }
}
