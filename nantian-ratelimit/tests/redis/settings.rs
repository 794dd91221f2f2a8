//! Servers whose settings let nobody keep limits there, or not for sure.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nantian_ratelimit::redis::{RedisStore, StoreFault};
use nantian_ratelimit::{Cost, Limit};
use tokio::time::{Instant, sleep};

use crate::server::{Replica, Server, admit, admitted, eventually, policy, reaches};

/// What the documentation says that a user must be permitted.
pub(crate) const PERMITTED: &str = "~nrl:* ~nrl3:* +eval +evalsha +script|load +time +pttl +get +set +setrange +zadd +zremrangebyscore +zcard +expire";

/// A replica that is a user with these permissions, and may not be connected.
async fn permitted(server: &Server, permissions: &str) -> Replica {
    let answer = server.ask(&format!("ACL SETUSER nantian reset on >p {permissions}")).await;
    assert_eq!(answer, "+OK\r\n");
    let url = server.url().to_string().replace("redis://", "redis://nantian:p@").parse().unwrap();
    let builder = RedisStore::builder(url).command_timeout(Duration::from_secs(5));
    let (store, driver) = builder.connect_timeout(Duration::from_secs(10)).build();
    Replica::new(store, driver)
}

#[tokio::test]
async fn a_user_needs_no_more_than_the_documented_permissions() {
    let server = Server::start().await;
    for more in ["", " +info"] {
        let replica = permitted(&server, &format!("{PERMITTED}{more}")).await;
        replica.is_reachable(true).await;
        let limiter = replica.store.limiter("quota", policy([Limit::requests_per_minute(100)]));
        let before = server.calls("evalsha").await;
        assert_eq!(admitted(&limiter, &format!("alice{more}"), 10).await, 10);
        assert_eq!((replica.store.status().failures, replica.store.status().fault), (0, None));
        assert_eq!(server.calls("evalsha").await - before, 10, "each was decided by the server");
    }
}

#[tokio::test]
async fn limits_are_not_said_to_be_shared_where_the_server_permits_no_decision() {
    for lacking in [" -setrange", " -set", " -get", " -pttl", " -time", " resetkeys ~nrl:*"] {
        let server = Server::start().await;
        let replica = permitted(&server, &format!("{PERMITTED}{lacking}")).await;
        eventually(|| replica.store.status().fault == Some(StoreFault::Credentials)).await;
        assert!(!replica.store.status().is_reachable, "{lacking}");
    }
}

#[tokio::test]
async fn a_server_that_wants_a_password_says_so_to_who_has_none() {
    let server = Server::start().await;
    server.ask("CONFIG SET requirepass secret").await;
    let builder = RedisStore::builder(server.url()).command_timeout(Duration::from_secs(5));
    let (store, driver) = builder.connect_timeout(Duration::from_secs(10)).build();
    let replica = Replica::new(store, driver);
    eventually(|| replica.store.status().fault == Some(StoreFault::Credentials)).await;
    assert!(!replica.store.status().is_reachable);
}

#[tokio::test]
async fn a_permission_that_is_taken_away_is_told_until_it_is_back() {
    let server = Server::start().await;
    let replica = permitted(&server, PERMITTED).await;
    replica.is_reachable(true).await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_minute(100)]));
    assert_eq!(admitted(&limiter, "alice", 2).await, 2);
    server.ask("ACL SETUSER nantian -setrange").await;
    // It is told when decisions fail, not only with the next greeting.
    let begun = Instant::now();
    while replica.store.status().is_reachable {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody notices");
        let _ = admit(&limiter, "alice", Cost::REQUEST).await;
    }
    eventually(|| replica.store.status().fault == Some(StoreFault::Credentials)).await;
    let failures = replica.store.status().failures;
    assert_eq!(admitted(&limiter, "alice", 20).await, 20);
    assert_eq!(replica.store.status().failures, failures, "nobody asks in vain any more");
    server.ask("ACL SETUSER nantian +setrange").await;
    replica.is_reachable(true).await;
    assert_eq!(replica.store.status().fault, None);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_away_until_it_does() {
    for (options, cure) in [
        (&["--replicaof", "127.0.0.1", "1"][..], "REPLICAOF NO ONE"),
        (&["--maxmemory", "100kb", "--maxmemory-policy", "noeviction"], "CONFIG SET maxmemory 0"),
    ] {
        let server = Server::start_with(|| options.iter().map(|&option| option.to_owned()).collect()).await;
        let builder = RedisStore::builder(server.url()).command_timeout(Duration::from_secs(5));
        let (store, driver) = builder.connect_timeout(Duration::from_secs(10)).build();
        let replica = Replica::new(store, driver);
        eventually(|| replica.store.status().fault == Some(StoreFault::ReadOnly)).await;
        assert!(!replica.store.status().is_reachable, "{options:?}");
        let limiter = replica.store.limiter("quota", policy([Limit::requests_per_hour(3)]));
        assert_eq!(admitted(&limiter, "alice", 5).await, 3, "it is decided here");
        assert_eq!(server.ask(cure).await, "+OK\r\n");
        replica.is_reachable(true).await;
        assert_eq!(replica.store.status().fault, None);
    }
}

#[tokio::test]
async fn a_server_that_is_loading_is_away_until_it_has_its_data() {
    // It answers others after each kilobyte that it has read.
    let options = ["--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024"];
    let server = Server::start_with(|| options.map(str::to_owned).to_vec()).await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(1000)]));
    assert_eq!(admitted(&limiter, "alice", 3).await, 3);
    let slowly =
        ["DEBUG POPULATE 60 key 2000", "CONFIG SET rdbcompression no", "CONFIG SET key-load-delay 50000"];
    for command in slowly {
        assert_eq!(server.ask(command).await, "+OK\r\n", "{command}");
    }
    let mut used = 3;
    let asking = async {
        let begun = Instant::now();
        while replica.store.status().is_reachable {
            assert!(begun.elapsed() < Duration::from_secs(10), "nobody notices");
            admit(&limiter, "alice", Cost::REQUEST).await.unwrap();
            used += 1;
            sleep(Duration::from_millis(5)).await;
        }
        eventually(|| replica.store.status().fault == Some(StoreFault::Loading)).await;
    };
    let (loaded, ()) = tokio::join!(server.ask("DEBUG RELOAD"), asking);
    assert_eq!(loaded, "+OK\r\n");
    replica.is_reachable(true).await;
    assert_eq!(replica.store.status().fault, None);
    reaches(&limiter, "alice", &[1000 - used]).await;
}

#[tokio::test]
async fn a_server_that_may_forget_limits_is_told_apart() {
    for (options, evicts) in [
        (&["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"][..], true),
        (&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lfu"], true),
        (&["--maxmemory", "100mb", "--maxmemory-policy", "noeviction"], false),
        (&["--maxmemory", "0", "--maxmemory-policy", "allkeys-lru"], false),
    ] {
        let server = Server::start_with(|| options.iter().map(|&option| option.to_owned()).collect()).await;
        let replica = server.replica().await;
        assert_eq!(replica.store.status().may_evict, evicts, "{options:?}");
        server.ask("CONFIG SET maxmemory-policy noeviction").await;
        eventually(|| !replica.store.status().may_evict).await;
    }
}

#[tokio::test]
async fn a_server_is_looked_over_once_for_each_connection() {
    let server = Server::start().await;
    let replica = server.replica().await;
    // Half a dozen of them in a greeting, and many where a server is looked over.
    let gets = async || server.calls("get").await;
    let greeted = async || server.calls("zadd").await;
    let (looked, before) = (gets().await, greeted().await);
    assert!(looked >= 16, "{looked}");
    let begun = Instant::now();
    while greeted().await == before {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not greeted again");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(gets().await - looked < 8, "a greeting is no look");
    let looked = gets().await;
    server.ask("CLIENT KILL TYPE normal SKIPME yes").await;
    let begun = Instant::now();
    while gets().await - looked < 16 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the next connection is not looked over");
        sleep(Duration::from_millis(20)).await;
    }
    replica.is_reachable(true).await;
}

#[tokio::test]
async fn a_password_may_change_while_the_server_is_in_use() {
    let server = Server::start().await;
    server.ask("CONFIG SET requirepass first").await;
    let current = Arc::new(Mutex::new(Ok("first".to_owned())));
    let read = Arc::clone(&current);
    let url = server.url().to_string().replace("redis://", "redis://:wrong@").parse().unwrap();
    let builder = RedisStore::builder(url).command_timeout(Duration::from_secs(5));
    let (store, driver) =
        builder.password_from(move || read.lock().unwrap().clone().map_err(io::Error::from)).build();
    let replica = Replica::new(store, driver);
    replica.is_reachable(true).await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_minute(1).with_burst(10.0)]));
    assert_eq!(admitted(&limiter, "alice", 3).await, 3);

    server.ask("AUTH first\r\nCONFIG SET requirepass second\r\nCLIENT KILL TYPE normal").await;
    eventually(|| replica.store.status().fault == Some(StoreFault::Credentials)).await;
    *current.lock().unwrap() = Err(io::ErrorKind::NotFound);
    eventually(|| replica.store.status().fault == Some(StoreFault::Unreadable)).await;
    *current.lock().unwrap() = Ok("second".to_owned());
    replica.is_reachable(true).await;
    assert!(admitted(&limiter, "alice", 10).await <= 8, "the server still knows of the three");
    assert_eq!(replica.store.status().fault, None);
}
