//! How many replicas there are, by what greetings tell.

use std::time::Duration;

use tokio::time::Instant;

/// How long fewer replicas must be told of before they are believed: a server that was away, or has lost its
/// data, counts from one on again, and those who believed it would take more than their shares if it went
/// away once more.
const FEWER_AFTER: Duration = Duration::from_secs(10);

/// What was told of the number of replicas.
#[derive(Debug, Default)]
pub(super) struct ReplicaCount {
    believed: u32,
    fewer_since: Option<Instant>,
}

impl ReplicaCount {
    /// The number to believe, where the server tells of so many.
    pub(super) fn told(&mut self, now: Instant, counted: u32) -> u32 {
        if counted >= self.believed || self.fewer_since.is_some_and(|since| now - since >= FEWER_AFTER) {
            (self.believed, self.fewer_since) = (counted, None);
        } else {
            self.fewer_since.get_or_insert(now);
        }
        self.believed
    }

    /// The server was away: what it tells from now on may be news to itself.
    pub(super) fn interrupted(&mut self) {
        self.fewer_since = None;
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn more_replicas_are_believed_at_once_and_fewer_after_a_while_without_a_break() {
        let (mut replica_count, start) = (ReplicaCount::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(replica_count.told(at(0), 1), 1);
        assert_eq!(replica_count.told(at(1), 3), 3);
        assert_eq!(replica_count.told(at(2), 1), 3, "one that has just come back");
        assert_eq!(replica_count.told(at(11), 2), 3);
        replica_count.interrupted();
        assert_eq!(replica_count.told(at(12), 1), 3);
        assert_eq!(replica_count.told(at(21), 1), 3);
        assert_eq!(replica_count.told(at(22), 2), 2);
        assert_eq!(replica_count.told(at(23), 4), 4);
        assert_eq!(replica_count.told(at(24), 3), 4);
        assert_eq!(replica_count.told(at(25), 4), 4);
        assert_eq!(replica_count.told(at(35), 3), 4, "it was no longer fewer");
    }
}
