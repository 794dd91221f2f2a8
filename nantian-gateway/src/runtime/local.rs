//! A worker's view of a snapshot.

use std::{cell::OnceCell, ops::Deref, sync::Arc};

use http::Request;

use crate::{
    body::Body,
    compile::{Context, RouteFuture, RouteService, stack},
    route::{RequestHead, RuleIndex, TooMuchToRead},
    snapshot::{Port, Snapshot},
};

/// A snapshot and the services that this worker has built from it, each when its rule was first asked for.
pub(crate) struct LocalSnapshot {
    shared: Arc<Snapshot>,
    context: Context,
    rules: Vec<OnceCell<RouteService>>,
    unmatched: RouteService,
}

/// The rule of a request.
pub(crate) struct Found<'a> {
    pub(crate) service: &'a RouteService,
    /// Whether some stage asks for a [`RequestInfo`](crate::listen::RequestInfo).
    pub(crate) needs_info: bool,
    /// Whether it is one of a GRPCRoute.
    pub(crate) is_of_calls: bool,
}

impl LocalSnapshot {
    pub(super) fn new(shared: Arc<Snapshot>, context: Context) -> Self {
        let rules = shared.rules.iter().map(|_| OnceCell::new()).collect();
        let unmatched = stack::unmatched(&context);
        Self { shared, context, rules, unmatched }
    }

    /// The rule that `head` belongs to, or that of its listener for all others, if there is one.
    ///
    /// # Errors
    /// [`TooMuchToRead`] where the rule is not known.
    pub(crate) fn find(
        &self,
        port: &Port,
        head: &RequestHead<'_>,
    ) -> Result<Option<Found<'_>>, TooMuchToRead> {
        let index = port.router.find(head)?.or_else(|| port.router.unmatched(head.host));
        Ok(index.and_then(|index| self.found(index)))
    }

    fn found(&self, index: RuleIndex) -> Option<Found<'_>> {
        let rule = self.shared.rule(index)?;
        let cell = self.rules.get(usize::try_from(index.0).ok()?)?;
        let service = cell.get_or_init(|| stack::rule(rule, &self.context));
        Some(Found { service, needs_info: rule.needs_info(), is_of_calls: rule.is_of_calls() })
    }

    /// Answers a request that no rule matches.
    pub(crate) fn unmatched(&self, request: Request<Body>) -> RouteFuture {
        self.unmatched.call(request)
    }
}

impl Deref for LocalSnapshot {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.shared
    }
}
