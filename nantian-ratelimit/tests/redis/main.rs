//! Limits that several processes share, on a real server.

#![cfg(test)]
#![cfg(not(loom))]

mod cluster;
mod layer;
mod measure;
mod outage;
mod server;
mod settings;
mod shared;
#[cfg(feature = "redis-tls")]
mod tls;
