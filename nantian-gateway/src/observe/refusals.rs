//! Requests that are refused before they have a route.

use std::{fmt::Display, net::IpAddr, sync::Arc, time::Duration};

use http::{StatusCode, request::Parts};

use super::{
    AccessLog,
    access_log::{Entry, LoggedRequest},
};
use crate::metrics::RouteMetrics;

/// Counts and logs requests that are refused before they have a route.
#[derive(Debug)]
pub(crate) struct Refusals {
    metrics: Arc<RouteMetrics>,
    worker: usize,
    log: Option<AccessLog>,
}

impl Refusals {
    /// Counts in the shard of `worker`.
    pub(crate) fn new(metrics: Arc<RouteMetrics>, worker: usize, log: Option<AccessLog>) -> Self {
        Self { metrics, worker, log }
    }

    /// Notes a refusal and why it is one; `request` is what could be read of the request, `bytes` the length
    /// of the answer.
    pub(crate) fn note(
        &self,
        request: Option<&Parts>,
        client: IpAddr,
        status: StatusCode,
        bytes: usize,
        why: &impl Display,
    ) {
        if let Some(shard) = self.metrics.shard(self.worker) {
            shard.begin();
            shard.end(Some(status), Duration::ZERO);
        }
        if let Some(log) = &self.log {
            let request = LoggedRequest::of_refused(request, client, why.to_string());
            log.write(&Entry {
                route: "",
                request: &request,
                status: Some(status.as_u16()),
                bytes: bytes as u64,
                took: Duration::ZERO,
            });
        }
    }
}
