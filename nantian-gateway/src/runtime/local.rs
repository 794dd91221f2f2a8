//! A worker's view of a snapshot.

use std::{cell::OnceCell, ops::Deref, sync::Arc};

use http::Request;

use crate::{
    body::Body,
    compile::{CompiledRule, Context, RouteFuture, RouteService, stack},
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

impl LocalSnapshot {
    pub(super) fn new(shared: Arc<Snapshot>, context: Context) -> Self {
        let rules = shared.rules.iter().map(|_| OnceCell::new()).collect();
        let unmatched = stack::unmatched(&context);
        Self { shared, context, rules, unmatched }
    }

    /// The rule that `head` belongs to, or that of its listener for all others, if there is one, behind its
    /// service.
    ///
    /// # Errors
    /// [`TooMuchToRead`] where the rule is not known.
    pub(crate) fn find(
        &self,
        port: &Port,
        head: &RequestHead<'_>,
    ) -> Result<Option<(&RouteService, &CompiledRule)>, TooMuchToRead> {
        let index = port.router.find(head)?.or_else(|| port.router.unmatched(head.host));
        Ok(index.and_then(|index| self.found(index)))
    }

    fn found(&self, index: RuleIndex) -> Option<(&RouteService, &CompiledRule)> {
        let index = usize::try_from(index.0).ok()?;
        let rule: &CompiledRule = self.shared.rules.get(index)?;
        let service = self.rules.get(index)?.get_or_init(|| stack::rule(rule, &self.context));
        Some((service, rule))
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
