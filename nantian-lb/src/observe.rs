//! What can be seen of a balancer from outside.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::BalanceConfig;
use crate::endpoint::{EndpointId, Readiness};
use crate::health::Health;
use crate::members::Member;

/// An endpoint as it stands: for metrics and admin pages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStatus<T> {
    /// Stable identity.
    pub id: EndpointId,
    /// Where requests for it are sent.
    pub target: T,
    /// Share of the requests, relative to the other endpoints; 0 receives no new request.
    pub weight: u32,
    /// The part of the weight that it has, in percent; less than 100 while it starts slowly.
    pub weight_percent: u32,
    /// Whether it takes requests.
    pub readiness: Readiness,
    /// How near it is.
    pub tier: u8,
    /// How it is doing.
    pub health: Health,
    /// Requests that it is working on.
    pub in_flight: usize,
    /// How often it was ejected.
    pub ejections: u64,
    /// Its usual response time, where the strategy asks for it.
    pub latency: Option<Duration>,
}

// === impl EndpointStatus ===

impl<T: Clone> EndpointStatus<T> {
    pub(crate) fn of(member: &Member<T>, now: Timestamp, config: &BalanceConfig) -> Self {
        let health = member.handle.health();
        let snapshot = health.snapshot(now, config.slow_start.as_ref());
        Self {
            id: member.handle.id().clone(),
            target: member.target.clone(),
            weight: member.weight,
            weight_percent: snapshot.percent,
            readiness: member.readiness,
            tier: member.tier,
            health: snapshot.health,
            in_flight: member.handle.in_flight(),
            ejections: health.ejections(),
            latency: health.latency.average(),
        }
    }
}
