//! A thin gateway: Gateway API resources in, routes out, the Nantian policy layers stacked on each route.
//!
//! The flow of configuration is one line: [`source`] reads objects, [`translate`] turns them into the
//! plain data of [`ir`], and from there on nothing knows Kubernetes.

pub mod cli;
pub mod gates;
pub mod ir;
pub mod source;
pub mod translate;
