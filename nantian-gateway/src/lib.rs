//! A thin gateway: Gateway API resources in, routes out, the Nantian policy layers stacked on each route.
//!
//! The flow of configuration is one line: [`source`] reads objects, [`translate`] turns them into the
//! plain data of [`ir`], [`compile`] binds that to the state that outlives it, and every worker of
//! `runtime` serves the resulting `snapshot`. From [`ir`] on nothing knows Kubernetes.
//!
//! The flow of a request is another: `listen` accepts it and gives it one spelling, [`route`] finds its rule,
//! and `compile::stack` is the whole way from there to an endpoint, in one file. Connections that are not
//! looked into go from `listen` to `stream`.
//!
//! The binary is [`cli::main`]. What else is public is what its tests and benches look into.

#![expect(clippy::exhaustive_structs, reason = "what is public is for the gateway's own tests and benches")]

mod admin;
mod body;
pub mod cli;
pub mod compile;
mod control;
#[cfg(feature = "kubernetes")]
pub mod controller;
mod fetch;
mod filter;
pub mod gates;
mod grpc;
mod hops;
pub mod ir;
mod kept;
mod listen;
pub mod metrics;
mod observe;
pub mod pattern;
mod policy;
mod replay;
mod respond;
pub mod route;
mod runtime;
mod snapshot;
mod socket;
pub mod source;
mod spelling;
mod stream;
mod sync;
mod telemetry;
pub mod tenancy;
pub mod translate;
mod upstream;
mod weighted;
