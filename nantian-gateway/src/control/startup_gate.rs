//! The plugins that a gateway which has just started is not ready without.

use std::time::Duration;

use tokio::time::Instant;

/// How long they are waited for: some compile for seconds, some can never be had.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far they have come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum StartupGate {
    #[default]
    Unknown,
    Until(Instant),
    /// They have run, or were not to be had: those that come later change nothing about readiness.
    Settled,
}

impl StartupGate {
    /// Until when the gateway is not ready, where one `is_to_come` yet.
    pub(super) fn until(&mut self, is_to_come: bool) -> Option<Instant> {
        *self = match *self {
            Self::Unknown if is_to_come => Self::Until(Instant::now() + PATIENCE),
            Self::Until(until) if is_to_come => Self::Until(until),
            Self::Unknown | Self::Until(_) | Self::Settled => Self::Settled,
        };
        match *self {
            Self::Until(until) => Some(until),
            Self::Unknown | Self::Settled => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_the_first_configuration_is_not_waited_for() {
        let mut gate = StartupGate::default();
        let until = gate.until(true);
        assert_eq!(until, Some(Instant::now() + PATIENCE));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(gate.until(true), until, "another reload does not prolong it");
        assert_eq!(gate.until(false), None);
        assert_eq!(gate.until(true), None);
    }
}
