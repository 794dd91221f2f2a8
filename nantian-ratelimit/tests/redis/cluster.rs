//! Limits whose keys are on several nodes of a cluster.

use std::time::Duration;

use nantian_ratelimit::Limit;
use nantian_ratelimit::redis::{OnOutage, RedisStore, SharedLimiter, StoreFault};
use tokio::time::{Instant, sleep};

use crate::server::{Replica, Server, admitted, eventually, held_port, policy, reaches, remaining};
use crate::settings::PERMITTED;

/// Masters with equal parts of the slots.
struct Cluster {
    nodes: Vec<Server>,
}

/// What a cluster is asked of in addition.
const OF_CLUSTER: &str = "+cluster|slots +asking";

impl Cluster {
    async fn start(count: usize) -> Self {
        let mut cluster = Self { nodes: Vec::new() };
        for number in 0..count {
            let node = node().await;
            let [first, end] = [number, number + 1].map(|number| number * 16384 / count);
            node.does(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1)).await;
            node.does(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
            cluster.add(node).await;
        }
        cluster.settles("cluster_slots_assigned:16384").await;
        cluster
    }

    /// Makes a node known to the others.
    async fn add(&mut self, node: Server) {
        for other in &self.nodes {
            let (port, bus) = (node.port(), node.option("--cluster-port"));
            other.does(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}")).await;
        }
        self.nodes.push(node);
    }

    /// Waits until all nodes are well and see this.
    async fn settles(&self, seen: &str) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            node.says("CLUSTER INFO", &["cluster_state:ok", &known, seen]).await;
        }
    }

    /// How often each node has decided.
    async fn decisions(&self) -> Vec<u64> {
        let mut decisions = Vec::new();
        for node in &self.nodes {
            decisions.push(node.calls("evalsha").await);
        }
        decisions
    }

    /// The node that decides about a key, which costs a request.
    async fn node_of(&self, limiter: &SharedLimiter, key: &str) -> usize {
        let before = self.decisions().await;
        assert_eq!(admitted(limiter, key, 1).await, 1);
        let after = self.decisions().await;
        before.iter().zip(after).position(|(before, after)| *before != after).expect("a node was asked")
    }

    /// A key that a certain node decides about, of which one request was made.
    async fn key_at(&self, node: usize, limiter: &SharedLimiter) -> String {
        for caller in 0.. {
            let key = format!("caller-{caller}-of-{node}");
            if self.node_of(limiter, &key).await == node {
                return key;
            }
        }
        unreachable!()
    }

    /// The node on which the replicas agree.
    async fn home(&self) -> usize {
        for (number, node) in self.nodes.iter().enumerate() {
            if node.ask("EXISTS nrl:{store}:secret").await == ":1\r\n" {
                return number;
            }
        }
        panic!("no node has the secret")
    }
}

impl Server {
    async fn does(&self, command: &str) {
        assert_eq!(self.ask(command).await, "+OK\r\n", "{command}");
    }

    /// Waits until the answer has all of this.
    async fn says(&self, command: &str, wanted: &[&str]) {
        let begun = Instant::now();
        loop {
            let said = self.ask(command).await;
            if wanted.iter().all(|wanted| said.contains(wanted)) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{wanted:?} is not in {said}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn cluster_id(&self) -> String {
        self.ask("CLUSTER MYID").await.lines().nth(1).unwrap().to_owned()
    }

    /// How far it has replicated.
    async fn offset(&self, field: &str) -> u64 {
        let said = self.ask("INFO replication").await;
        let offset = said.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        offset.unwrap().parse().unwrap()
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }
}

async fn node() -> Server {
    Server::start_holding(|| {
        let (port, held) = held_port();
        let port = port.to_string();
        // Longer than a busy machine keeps a node waiting: one that hears of no other refuses all keys.
        let options =
            ["--cluster-enabled", "yes", "--cluster-port", &port, "--cluster-node-timeout", "30000"];
        let more = ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"];
        (options.into_iter().chain(more).map(str::to_owned).collect(), Some(held))
    })
    .await
}

#[tokio::test]
async fn two_processes_share_the_limits_of_keys_on_all_nodes() {
    let cluster = Cluster::start(3).await;
    // Any node will do for an address.
    let (one, two) = (cluster.nodes[0].replica().await, cluster.nodes[2].replica().await);
    let limiters =
        [&one, &two].map(|replica| replica.store.limiter("quota", policy([Limit::requests_per_day(10)])));
    for caller in 0..30 {
        let caller = format!("caller-{caller}");
        let mut passed = 0;
        for _ in 0..6 {
            for limiter in &limiters {
                passed += admitted(limiter, &caller, 1).await;
            }
        }
        assert_eq!(passed, 10, "{caller}");
    }
    assert!(cluster.decisions().await.into_iter().all(|decisions| decisions >= 10));
    for replica in [&one, &two] {
        let status = replica.store.status();
        assert_eq!((status.nodes, status.away, status.fault, status.failures), (3, Vec::new(), None, 0));
        replica.knows(2).await;
    }
}

#[tokio::test]
async fn a_key_is_followed_while_its_slot_moves_and_afterwards() {
    let cluster = Cluster::start(3).await;
    let replica = cluster.nodes[0].replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(100)]));
    let mut known = String::new();
    for node in &cluster.nodes {
        known += &node.ask("KEYS nrl3:*").await;
    }
    let source = cluster.node_of(&limiter, "alice").await;
    let (source, target) = (&cluster.nodes[source], &cluster.nodes[(source + 1) % 3]);
    let keys = source.ask("KEYS nrl3:*").await;
    let key = keys.lines().find(|line| line.starts_with("nrl3:") && !known.contains(line)).unwrap();
    let slot = source.ask(&format!("CLUSTER KEYSLOT {key}")).await;
    let slot = slot.trim().trim_start_matches(':');
    let (from, to) = (source.cluster_id().await, target.cluster_id().await);

    target.does(&format!("CLUSTER SETSLOT {slot} IMPORTING {from}")).await;
    source.does(&format!("CLUSTER SETSLOT {slot} MIGRATING {to}")).await;
    assert_eq!(admitted(&limiter, "alice", 9).await, 9);
    source.does(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", target.port())).await;
    // One that does not know the script either.
    target.does("SCRIPT FLUSH").await;
    assert_eq!(remaining(&limiter, "alice").await, [90], "it is asked where the key is about to be");
    assert_eq!(admitted(&limiter, "alice", 10).await, 10);

    for node in &cluster.nodes {
        node.does(&format!("CLUSTER SETSLOT {slot} NODE {to}")).await;
    }
    assert_eq!(admitted(&limiter, "alice", 10).await, 10, "it is asked where the key is");
    assert_eq!(remaining(&limiter, "alice").await, [70]);
    assert_eq!((replica.store.status().failures, replica.store.status().unasked), (0, 0));
    let begun = Instant::now();
    loop {
        let before = source.calls("evalsha").await;
        assert_eq!(admitted(&limiter, "alice", 1).await, 1);
        if source.calls("evalsha").await == before {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody learns where the key is");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(replica.store.status().is_reachable);
}

#[tokio::test]
async fn only_the_keys_of_a_node_that_is_away_are_decided_without_it() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.nodes[0].replica_that(OnOutage::Local, Some(2)).await;
    let second = cluster.nodes[1].replica_that(OnOutage::Local, Some(2)).await;
    let limiters = [&first, &second]
        .map(|replica| replica.store.limiter("quota", policy([Limit::requests_per_day(100)])));
    let [one, two] = &limiters;
    let home = cluster.home().await;
    let (lost, kept) = (cluster.key_at(home, one).await, cluster.key_at((home + 1) % 3, one).await);
    assert_eq!(admitted(one, &lost, 29).await, 29);
    assert_eq!(admitted(one, &kept, 9).await, 9);

    cluster.nodes[home].kill();
    let address = cluster.nodes[home].address();
    for replica in [&first, &second] {
        eventually(|| replica.store.status().away == [address.clone()]).await;
        let status = replica.store.status();
        assert_eq!((status.is_reachable, status.nodes), (false, 3));
        eventually(|| replica.store.status().fault == Some(StoreFault::Connect)).await;
    }
    assert_eq!(admitted(one, &lost, 100).await, 20, "the share is 50, of which 30 are used");
    assert_eq!(admitted(two, &lost, 100).await, 50);
    assert_eq!(admitted(two, &kept, 60).await, 60);
    assert_eq!(admitted(one, &kept, 100).await, 30, "and 10 before");

    cluster.nodes[home].restart().await;
    first.is_reachable(true).await;
    second.is_reachable(true).await;
    // It has forgotten thirty, and is told of seventy.
    for limiter in &limiters {
        reaches(limiter, &lost, &[30]).await;
    }
    assert_eq!(admitted(two, &lost, 100).await, 30);
}

#[tokio::test]
async fn a_replica_of_the_cluster_goes_on_where_its_master_left_off() {
    let mut cluster = Cluster::start(3).await;
    cluster.add(node().await).await;
    cluster.settles("cluster_state:ok").await;
    let [master, .., spare] = &cluster.nodes[..] else { panic!() };
    spare.does(&format!("CLUSTER REPLICATE {}", master.cluster_id().await)).await;
    spare.says("INFO replication", &["role:slave", "master_link_status:up"]).await;

    // A replica tells where the keys are, too.
    let replica = spare.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(100)]));
    let key = cluster.key_at(0, &limiter).await;
    assert_eq!(admitted(&limiter, &key, 39).await, 39);
    let written = cluster.nodes[0].offset("master_repl_offset").await;
    while cluster.nodes[3].offset("slave_repl_offset").await < written {
        sleep(Duration::from_millis(5)).await;
    }
    // Long after the looks at a cluster that was just found.
    sleep(Duration::from_secs(2)).await;
    cluster.nodes[0].kill();
    replica.is_reachable(false).await;
    cluster.nodes[3].does("CLUSTER FAILOVER TAKEOVER").await;
    replica.is_reachable(true).await;
    assert_eq!(remaining(&limiter, &key).await, [60]);
    assert_eq!(replica.store.status().nodes, 3);
}

#[tokio::test]
async fn keys_that_no_node_has_are_decided_without_the_cluster() {
    let node = node().await;
    node.does("CLUSTER ADDSLOTSRANGE 0 16383").await;
    node.says("CLUSTER INFO", &["cluster_state:ok"]).await;
    let replica = node.replica_that(OnOutage::Local, Some(2)).await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(100)]));
    assert_eq!(admitted(&limiter, "alice", 100).await, 100);
    node.does("CLUSTER DELSLOTSRANGE 0 4095").await;
    let begun = Instant::now();
    for caller in 0.. {
        if replica.store.status().fault == Some(StoreFault::Cluster) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody notices");
        admitted(&limiter, &format!("caller-{caller}"), 1).await;
        sleep(Duration::from_millis(20)).await;
    }
    eventually(|| replica.store.status().away.is_empty()).await;
    let status = replica.store.status();
    assert_eq!((status.is_reachable, status.nodes), (false, 1));
    let mut passed = Vec::new();
    for caller in 0..30 {
        passed.push(admitted(&limiter, &format!("other-{caller}"), 100).await);
    }
    assert!(passed.contains(&50) && passed.contains(&100), "some by their share: {passed:?}");
    node.does("CLUSTER ADDSLOTSRANGE 0 4095").await;
    replica.is_reachable(true).await;
    assert_eq!(replica.store.status().fault, None);
}

#[tokio::test]
async fn a_user_of_a_cluster_needs_no_more_than_the_documented_permissions() {
    let cluster = Cluster::start(2).await;
    for (permissions, fault) in
        [(format!("{PERMITTED} {OF_CLUSTER}"), None), (PERMITTED.to_owned(), Some(StoreFault::Credentials))]
    {
        for node in &cluster.nodes {
            node.does(&format!("ACL SETUSER nantian reset on >p {permissions}")).await;
        }
        let url = cluster.nodes[0].url().to_string().replace("redis://", "redis://nantian:p@");
        let builder = RedisStore::builder(url.parse().unwrap()).command_timeout(Duration::from_secs(5));
        let (store, driver) = builder.connect_timeout(Duration::from_secs(10)).build();
        let replica = Replica::new(store, driver);
        if fault.is_some() {
            eventually(|| replica.store.status().fault == fault).await;
            assert!(!replica.store.status().is_reachable);
            continue;
        }
        replica.is_reachable(true).await;
        let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(100)]));
        for caller in 0..10 {
            assert_eq!(admitted(&limiter, &format!("caller-{caller}"), 2).await, 2);
        }
        assert_eq!((replica.store.status().failures, replica.store.status().fault), (0, None));
    }
}
