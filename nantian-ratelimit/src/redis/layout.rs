//! Which server has which keys.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::Value;

use super::fault::StoreFault;
use super::node::Node;
use super::url::Endpoint;

/// Parts that a cluster divides its keys into.
const SLOTS: u16 = 1 << 14;

/// The servers of a store.
pub(super) struct Layout {
    nodes: Vec<Arc<Node>>,
    /// The slots of a cluster, in their order; none where one server has all keys.
    ranges: Option<Box<[Range]>>,
}

struct Range {
    first: u16,
    last: u16,
    /// The position of the node.
    node: usize,
}

/// Slots, and who has them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Share {
    first: u16,
    last: u16,
    endpoint: Endpoint,
}

// === impl Layout ===

impl Layout {
    /// One server that has all keys.
    pub(super) fn alone(node: Arc<Node>) -> Self {
        Self { nodes: vec![node], ranges: None }
    }

    /// A cluster whose masters have these slots.
    pub(super) fn of_cluster(mut shares: Vec<Share>, mut node: impl FnMut(Endpoint) -> Arc<Node>) -> Self {
        shares.sort_unstable_by_key(|share| share.first);
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        let ranges = shares.into_iter().map(|Share { first, last, endpoint }| {
            let known = nodes.iter().position(|node| node.endpoint == endpoint);
            let node = known.unwrap_or_else(|| {
                nodes.push(node(endpoint));
                nodes.len() - 1
            });
            Range { first, last, node }
        });
        let ranges = ranges.collect();
        Self { nodes, ranges: Some(ranges) }
    }

    /// The server that has the keys of a slot, which is asked for only where that matters.
    pub(super) fn node_at(&self, slot: impl FnOnce() -> u16) -> Option<&Arc<Node>> {
        let Some(ranges) = &self.ranges else { return self.nodes.first() };
        let slot = slot();
        let range = ranges.get(ranges.partition_point(|range| range.last < slot))?;
        self.nodes.get(range.node).filter(|_| range.first <= slot)
    }

    pub(super) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Whether each key has a server.
    pub(super) fn is_complete(&self) -> bool {
        self.ranges.as_ref().is_none_or(|ranges| {
            ranges.iter().map(|range| usize::from(range.last - range.first) + 1).sum::<usize>()
                == SLOTS.into()
        })
    }

    /// Whether decisions about any key ask its server.
    pub(super) fn is_reachable(&self) -> bool {
        self.is_complete() && self.nodes.iter().all(|node| node.link().is_some())
    }

    /// Where the servers are that are not asked.
    pub(super) fn away(&self) -> Vec<String> {
        let away = self.nodes.iter().filter(|node| node.link().is_none());
        away.map(|node| node.endpoint.to_string()).collect()
    }

    /// Why some server cannot be asked.
    pub(super) fn fault(&self) -> Option<StoreFault> {
        self.nodes.iter().find_map(|node| node.fault.load().as_deref().copied())
    }

    pub(super) fn may_evict(&self) -> bool {
        self.nodes.iter().any(|node| node.may_evict.load(Ordering::Relaxed))
    }
}

// === impl Share ===

impl Share {
    /// What a server answers to `CLUSTER SLOTS`, of which the first node of each is the master; `None` if
    /// that is something else.
    ///
    /// A server that does not know how others call it leaves out its host: it is the one that was asked.
    pub(super) fn read_all(answer: &Value, asked: &str) -> Option<Vec<Self>> {
        let Value::Array(shares) = answer else { return None };
        shares.iter().map(|share| Self::read(share, asked)).collect()
    }

    fn read(share: &Value, asked: &str) -> Option<Self> {
        let Value::Array(share) = share else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = share.as_slice() else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = match host {
            Value::Nil => "",
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            _ => return None,
        };
        let is_unknown =
            ["", "?"].contains(&host) || host.parse().is_ok_and(|address: IpAddr| address.is_unspecified());
        let host = if is_unknown { asked } else { host }.to_owned();
        let [first, last] = [first, last].map(|slot| u16::try_from(*slot).ok().filter(|slot| *slot < SLOTS));
        let (first, last) = (first?, last?);
        let port = u16::try_from(*port).ok()?;
        (first <= last).then_some(Self { first, last, endpoint: Endpoint { host, port } })
    }
}

/// The slot of a key: CRC-16/XMODEM of what is between its braces.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or(key, |(tag, _)| tag);
    let crc =
        tag.bytes().fold(0_u16, |crc, byte| {
            (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            })
        });
    crc % SLOTS
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_the_slot_of_what_is_between_its_braces() {
        assert_eq!(slot_of("123456789"), 0x31c3);
        assert_eq!(slot_of("nrl:{123456789}:secret"), 0x31c3);
        assert_eq!(slot_of("foo"), 12182);
    }

    fn share(first: i64, last: i64, host: Value, port: i64) -> Value {
        let [first, last, port] = [first, last, port].map(Value::Int);
        let replica = Value::Array(vec![Value::BulkString(b"10.0.0.9".to_vec()), Value::Int(1)]);
        Value::Array(vec![first, last, Value::Array(vec![host, port]), replica])
    }

    fn host(name: &str) -> Value {
        Value::BulkString(name.as_bytes().to_vec())
    }

    #[test]
    fn the_masters_of_a_cluster_have_its_slots() {
        let answer = Value::Array(vec![
            share(8192, 16383, host("10.0.0.2"), 7000),
            share(0, 99, host("10.0.0.1"), 7000),
            share(100, 4095, host("10.0.0.2"), 7000),
        ]);
        let shares = Share::read_all(&answer, "seed").unwrap();
        let layout = Layout::of_cluster(shares, |endpoint| Node::new(endpoint).0);
        let host_at = |slot| layout.node_at(|| slot).map(|node| node.endpoint.to_string());
        for (slot, host) in [
            (0, Some("10.0.0.1:7000")),
            (99, Some("10.0.0.1:7000")),
            (100, Some("10.0.0.2:7000")),
            (4095, Some("10.0.0.2:7000")),
            (4096, None),
            (8191, None),
            (8192, Some("10.0.0.2:7000")),
            (16383, Some("10.0.0.2:7000")),
        ] {
            assert_eq!(host_at(slot).as_deref(), host, "{slot}");
        }
        assert_eq!(layout.nodes().len(), 2);
        assert!(!layout.is_complete(), "4096 have no node");
        let whole = Value::Array(vec![share(0, 16383, host("10.0.0.1"), 7000)]);
        let shares = Share::read_all(&whole, "seed").unwrap();
        assert!(Layout::of_cluster(shares, |endpoint| Node::new(endpoint).0).is_complete());
    }

    #[test]
    fn a_node_that_does_not_know_its_host_is_the_one_that_was_asked() {
        for unknown in [Value::Nil, host(""), host("?"), host("0.0.0.0"), host("::")] {
            let answer = Value::Array(vec![share(0, 1, unknown, 7000)]);
            let shares = Share::read_all(&answer, "seed").unwrap();
            assert_eq!(shares[0].endpoint.to_string(), "seed:7000");
        }
        let asked = Endpoint { host: "seed".to_owned(), port: 1 };
        for (told, read) in
            [("10.0.0.1:7000", "10.0.0.1:7000"), ("::1:7000", "[::1]:7000"), (":7000", "seed:7000")]
        {
            assert_eq!(Endpoint::of_redirect(told, &asked).unwrap().to_string(), read);
        }
        assert_eq!(Endpoint::of_redirect("10.0.0.1", &asked), None);
    }

    #[test]
    fn what_is_no_answer_to_the_question_for_slots_is_not_read() {
        for wrong in [
            Value::Okay,
            Value::Array(vec![Value::Int(0)]),
            Value::Array(vec![share(5, 4, host("h"), 1)]),
            Value::Array(vec![share(0, 16384, host("h"), 1)]),
            Value::Array(vec![share(-1, 1, host("h"), 1)]),
            Value::Array(vec![share(0, 1, host("h"), 65_536)]),
            Value::Array(vec![share(0, 1, Value::Int(1), 1)]),
        ] {
            assert_eq!(Share::read_all(&wrong, "seed"), None, "{wrong:?}");
        }
        assert_eq!(Share::read_all(&Value::Array(Vec::new()), "seed"), Some(Vec::new()));
    }
}
