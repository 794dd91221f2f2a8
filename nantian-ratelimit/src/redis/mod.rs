//! Limits that several processes share through Redis or Valkey (feature `redis`).
//!
//! A [`RedisStore`] is a connection, a [`SharedLimiter`] a policy on it. One call of one script decides all
//! limits of a policy, by the server's clock, on one key, so that nothing is half done.
//!
//! ```
//! use std::time::Duration;
//! use nantian_ratelimit::{Limit, Policy, RateLimitLayer, redis::RedisStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = RedisStore::builder("redis://limits.example:6379".parse()?).command_timeout(Duration::from_millis(50));
//! let (store, driver) = store.build();
//! // Without it the server is never asked.
//! tokio::spawn(driver.run());
//!
//! let policy = Policy::builder().limit(Limit::requests_per_minute(60)).scope("apiKey".parse()?).build()?;
//! let layer = RateLimitLayer::shared(store.limiter("shop/quota", policy));
//! # Ok(())
//! # }
//! ```
//!
//! What requests have used is told to the server after they have ended, by the driver. A process that ends
//! waits for [`RedisStore::flush`] before it ends the driver, or what was settled last is lost.
//!
//! The server is a single one, a proxy that looks like one, or a cluster; it is reached over TCP, or TLS with
//! the feature `redis-tls`. Passwords and certificates may change meanwhile:
//! [`RedisStoreBuilder::password_from`].
//!
//! There is no client of Sentinel, and needs to be none where one name has the addresses of all its servers,
//! as a headless Service of Kubernetes has. A replica takes no writes: it is left after three greetings, and
//! the next address is asked.
//!
//! # Clusters
//!
//! That a server is a node of a cluster is known by what it says of keys that it does not have: the address
//! of any node will do, or a name that all have. `CLUSTER SLOTS` tells where keys are: every minute, when a
//! key has moved, and every second while a node is away. A decision follows its key (`MOVED`, `ASK`) within
//! its time. Each master has a connection, greetings and a breaker of its own, so that one that is away costs
//! only its keys: [`StoreStatus::away`].
//!
//! - A cluster of which nobody serves some slot refuses all keys, unless it is told
//!   `cluster-require-full-coverage no`: it is away then, as a single server would be.
//! - What replicas agree on is on the node that has the slot of `{store}`. A process that starts while that
//!   one is away asks none of them.
//! - While a slot moves to a master that had none, its keys there are decided about without a server.
//! - Nodes that are known by addresses alone must prove to be the host of the URL, where that is a name.
//!
//! # What the server has to permit
//!
//! Its user (`ACL SETUSER`) needs these keys and commands, and `+info` for its settings to be looked at
//! (`+select` for another database than 0):
//!
//! ```text
//! ~nrl:* ~nrl3:* +eval +evalsha +script|load +time +pttl +get +set +setrange +zadd +zremrangebyscore +zcard +expire
//! ```
//!
//! Of a cluster `+cluster|slots +asking`, too, on each node.
//!
//! No script asks for the time, which some managed servers permit to none, as AWS ElastiCache Serverless.
//!
//! Each greeting of the driver, every three seconds, tries a decision: where less is permitted, the server is
//! away ([`StoreFault::Credentials`]).
//!
//! All keys have an end. So a server with another `maxmemory-policy` than `noeviction` forgets limits when
//! its memory is full, and clients that choose keys can fill it; [`StoreStatus::may_evict`] tells. With
//! `noeviction` one that is full is away ([`StoreFault::ReadOnly`]).
//!
//! # What is on the server
//!
//! A key of a policy is one string, `nrl3:{<digest>}`, of numbers with a fixed width, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 for each limit | its unit and window, by which its level is found again after an edit of the policy |
//! | 8 | milliseconds that the string had left (`PTTL`) at the time of the levels, as a double |
//! | 8 for each limit | items in use, as a double |
//!
//! A decision reads it once and writes it once: in place, as long as it is kept until all that is used has
//! refilled, else with an end that is twice as far away; one whose end is taken away (`PERSIST`) is as it was
//! until the next decision, and ends again. The number in the name is that of this packing:
//! releases with different ones do not misread each other, and count apart while both run.
//!
//! Replicas may have different amounts of a limit while an edit rolls out. By an amount that was lowered
//! nobody owes more than a bucket and a window of it: of what a caller had used when a replica heard of the
//! edit, that one lets him off the rest. What another, which still has the old amount, lets pass after that
//! stays until the next one has heard of the edit, that one or a third; what is left of it when all have, as
//! of one that has ended or wrote before the other could let anybody off, until a minute after the edit, or
//! until a bucket and a window have refilled once more. A replica that knows fewer limits of a policy than
//! another forgets the levels of the rest each time it decides: a limit that is added holds once all have it.
//!
//! A limit of 0 refills one item a window, and so keeps what was used before it was closed; one of a process
//! alone goes on at the rate that it had.
//!
//! # When the server does not answer
//!
//! A decision waits at most [`RedisStoreBuilder::command_timeout`]; once it has waited in vain, layers make
//! the others about its request without the server. After five failures in a row, or ten of twenty, nobody
//! asks any more until the [`RedisDriver`] has heard from the server again, in that time; meanwhile
//! [`OnOutage`] decides. The default is the share of one replica: each process has a limiter for
//! `limit / replicas` that also sees every decision of the server's, so that an outage begins where the
//! server left off. Another one knows what the server does, and refills as that does there: the difference is
//! reported as soon as the server is back, of up to 4096 keys by the driver and of the others with the next
//! decision on them, so that its end is no second burst.
//!
//! Replicas are counted by their greetings to the server. More are believed at once, fewer when ten seconds
//! have told of them without a break: a server that restarts counts from one on. A process that starts while
//! it is away knows of no others, and takes the whole limit until it has heard from it, unless
//! [`RedisStoreBuilder::replicas`] says how many there are.
//!
//! # How much may pass
//!
//! With `L` for what a limit lets through in some time and a millisecond, which is what the server counts,
//! its bucket included, and `R` for the number of replicas:
//!
//! - While the server answers, all replicas together admit at most `L`, unless it evicts keys: each decision
//!   is one step of the server.
//! - While it does not, each replica admits at most its share of `L`, rounded up to a whole item: together
//!   `L` and less than one item for each replica. Of what was used before, a replica knows only what it
//!   admitted itself, up to a bucket and a half and a window of its share. If one was given more than its
//!   share, the others do not know, and the first bucket's time of an outage may see up to `(R - 1) / R` of a
//!   bucket more than `L`, and as much of a window where the server was owed one.
//! - A call larger than the bucket of a share then passes once more than half of that is left, and the share
//!   owes the rest before anything else passes: each replica may be one such call ahead of its share, all
//!   together `R` calls, and the long run of an outage is that of `L`. Of several limits on tokens all must
//!   have that much left, half of the smallest such bucket, and each may be one call ahead.
//! - For what passed without the server a share can owe what the whole limit can. The server is told what of
//!   that has not refilled at the rate of the share, which is the slower one, and keeps a bucket and a window
//!   at most of what all tell it: each outage may let up to `R` such calls pass beside `L`.
//! - What a call that the server admitted turns out to have used beyond its reservation is told once it has
//!   ended; if that is not delivered, what is within a bucket and a window of the share is told later.
//! - A replica that knows of no others takes `L` alone: `R × L` if all start while the server is away, with
//!   no count given.
//! - Of a cluster all this holds for the keys of one node each.
//! - A server that comes back with its data admits the rest of `L`, after what passed meanwhile. One that has
//!   lost its data, or whose successor has not yet seen the last changes, has forgotten what was used until
//!   then, and may admit that much again, a bucket at most.
//! - While replicas disagree on an amount, a caller whom one of them lets off may use that again by the one
//!   of another: a bucket and a window at most, twice for each edit and each time that as much has refilled,
//!   by each replica that has heard of the edit while another has not.
//! - A request whose answer was lost may have been charged on the server all the same: on the safe side.
//! - What the server is told afterwards, of debt and of what was used without it, is told again and counts
//!   twice where the answer is lost with the connection or late: after
//!   [`RedisStoreBuilder::connect_timeout`], and where a decision tells it after
//!   [`RedisStoreBuilder::command_timeout`]. What is given back is told once; if that does not arrive, it
//!   refills.

mod agreed_secret;
mod ask;
mod breaker;
mod connect;
mod denials;
mod driver;
mod fault;
mod items;
mod layout;
mod node;
mod node_driver;
mod pending_decision;
mod policy_group;
mod replica_count;
mod script;
mod settle;
mod shared;
mod shared_key;
mod store;
mod transport;
mod unanswered;
mod unreported;
mod url;

pub use self::{
    driver::RedisDriver,
    fault::StoreFault,
    settle::SharedReservation,
    shared::{OnOutage, SharedLimiter, Verdict},
    shared_key::SharedKey,
    store::{RedisStore, RedisStoreBuilder, StoreStatus},
    unreported::Flushed,
    url::{InvalidRedisUrl, RedisUrl},
};

pub(crate) use self::unanswered::Unanswered;

/// The version of rustls whose configuration [`RedisStoreBuilder::tls`] takes.
///
/// This crate switches on none of its providers, nor TLS 1.2: that is for the program, by the features of its
/// own dependency.
#[cfg(feature = "redis-tls")]
pub use tokio_rustls::rustls;
