//! Limits that several processes share through Redis or Valkey (feature `redis`).
//!
//! A [`RedisStore`] is a connection, a [`SharedLimiter`] a policy on it. One call of one script decides all limits of a
//! policy, by the server's clock, on one key: a cluster needs to move nothing, and nothing is half done.
//!
//! # When the server does not answer
//!
//! A decision waits at most [`RedisStoreBuilder::command_timeout`]. After five failures in a row, or ten of twenty, nobody
//! asks any more until the [`RedisDriver`] has heard from the server again; meanwhile [`OnOutage`] decides. The default is
//! the share of one replica: each process has a limiter for `limit / replicas` that also sees every decision of the
//! server's, so that an outage begins where the server left off. What is used during the outage is reported afterwards,
//! so that its end is no second burst.
//!
//! A request whose answer was lost may have been charged on the server all the same: on the safe side.

mod breaker;
mod denials;
mod driver;
mod script;
mod settle;
mod shared;
mod store;
mod url;

pub use self::{
    driver::RedisDriver,
    settle::SharedReservation,
    shared::{OnOutage, SharedKey, SharedLimiter, Verdict},
    store::{RedisStore, RedisStoreBuilder, StoreStatus},
    url::{InvalidRedisUrl, RedisUrl},
};
