//! A decision of the server that is seen through even if nobody waits for it any more.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::family::{Items, Report};
use super::script::{self, Answer, Order};
use super::settle::{Correction, difference};
use super::shared::{SharedKey, SharedLimiter};
use super::store::{Errand, Link, Silence};
use crate::cost::Cost;

type Asking = Pin<Box<dyn Future<Output = Result<Answer, Silence>> + Send>>;

/// The server's answer to an order.
///
/// Dropping it leaves the rest to the driver, which gives back what was charged to nobody's use. If the driver has more to do than
/// fits, the charge stays and refills with time.
pub(super) struct Flight {
    asking: Option<Asking>,
    limiter: SharedLimiter,
    key: SharedKey,
    cost: Cost,
}

/// An answer that nobody waits for.
pub(super) struct Orphan {
    asking: Asking,
    limiter: SharedLimiter,
    key: SharedKey,
    cost: Cost,
}

// === impl Flight ===

impl Flight {
    /// Asks for `cost`, and reports what the server was not told.
    pub(super) fn new(
        limiter: &SharedLimiter,
        link: Arc<Link>,
        key: &SharedKey,
        cost: Cost,
        order: Order,
        report: Option<Report>,
    ) -> Self {
        let (store, name) = (limiter.store().clone(), key.name());
        let asking = async move {
            let answer = store.0.ask(&link, &name, &order).await;
            match report {
                Some(report) if answer.is_ok() => report.delivered(),
                undelivered => drop(undelivered),
            }
            answer
        };
        Self { asking: Some(Box::pin(asking)), limiter: limiter.clone(), key: key.clone(), cost }
    }
}

impl Future for Flight {
    type Output = Result<Answer, Silence>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(asking) = &mut self.asking else { return Poll::Pending };
        let answer = asking.as_mut().poll(cx);
        if answer.is_ready() {
            self.asking = None;
        }
        answer
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(asking) = self.asking.take() else { return };
        let (limiter, key) = (self.limiter.clone(), self.key.clone());
        let orphan = Orphan { asking, limiter, key, cost: self.cost };
        // What does not fit stays charged.
        let _ = self.limiter.store().0.hand_over(Errand::SeeThrough(orphan));
    }
}

// === impl Orphan ===

impl Orphan {
    /// Waits for the answer, at most the time that a decision may take, and takes the charge back if there was one.
    pub(super) async fn landed(self) -> Option<Correction> {
        let Self { asking, limiter, key, cost } = self;
        let Ok(Answer { fits: true, .. }) = asking.await else { return None };
        let current = limiter.family().current();
        let items =
            Items::new(current.limits().map(|limit| (limit, difference(0, script::charge(limit, cost)))));
        (!items.is_empty()).then(|| Correction::new(Arc::clone(limiter.family()), key, items))
    }
}

impl fmt::Debug for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orphan").field("cost", &self.cost).finish_non_exhaustive()
    }
}
