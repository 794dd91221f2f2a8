//! Limits that several processes share through Redis or Valkey (feature `redis`).
//!
//! A [`RedisStore`] is a connection, a [`SharedLimiter`] a policy on it. One call of one script decides all limits of a
//! policy, by the server's clock, on one key, so that nothing is half done.
//!
//! The server is a single one, or a proxy that looks like one. Redirections of a cluster (`MOVED`, `ASK`) are not followed: they
//! count as failures.
//!
//! # When the server does not answer
//!
//! A decision waits at most [`RedisStoreBuilder::command_timeout`]. After five failures in a row, or ten of twenty, nobody
//! asks any more until the [`RedisDriver`] has heard from the server again; meanwhile [`OnOutage`] decides. The default is
//! the share of one replica: each process has a limiter for `limit / replicas` that also sees every decision of the
//! server's, so that an outage begins where the server left off. What is used during the outage is reported afterwards,
//! so that its end is no second burst.
//!
//! Replicas are counted by their greetings to the server. A process that starts while it is away knows of no others, and takes
//! the whole limit until it has heard from it, unless [`RedisStoreBuilder::replicas`] says how many there are.
//!
//! A request whose answer was lost may have been charged on the server all the same: on the safe side.

mod breaker;
mod denials;
mod driver;
mod family;
mod fault;
mod script;
mod settle;
mod shared;
mod store;
mod url;

pub use self::{
    driver::RedisDriver,
    fault::StoreFault,
    settle::SharedReservation,
    shared::{OnOutage, SharedKey, SharedLimiter, Verdict},
    store::{RedisStore, RedisStoreBuilder, StoreStatus},
    url::{InvalidRedisUrl, RedisUrl},
};
