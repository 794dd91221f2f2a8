//! A thin gateway: Gateway API resources in, routes out, the Nantian policy layers stacked on each route.
//!
//! The flow of configuration is one line: [`source`] reads objects, [`translate`] turns them into the
//! plain data of [`ir`], [`compile`] binds that to the state that outlives it, and every worker of
//! [`runtime`] serves the resulting [`snapshot`]. From [`ir`] on nothing knows Kubernetes.
//!
//! The flow of a request is another: [`listen`] accepts it and gives it one spelling, [`route`] finds its
//! rule, and [`compile::stack`] is the whole way from there to an endpoint, in one file. Connections that are not looked into
//! go from [`listen`] to `stream`.

pub mod admin;
pub mod body;
pub mod cli;
pub mod compile;
pub mod control;
#[cfg(feature = "kubernetes")]
pub mod controller;
pub mod fetch;
pub mod filter;
pub mod gates;
mod grpc;
pub mod hops;
pub mod ir;
mod kept;
pub mod listen;
pub mod metrics;
pub mod observe;
pub mod pattern;
pub mod policy;
mod replay;
pub mod respond;
pub mod route;
pub mod runtime;
pub mod snapshot;
mod socket;
pub mod source;
mod spelling;
pub mod stream;
mod sync;
pub mod telemetry;
pub mod tenancy;
pub mod translate;
pub mod upstream;
mod weighted;
