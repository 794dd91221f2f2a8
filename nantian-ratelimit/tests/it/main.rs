//! What callers of the crate can rely on.

#![cfg(test)]
#![cfg(not(loom))]

mod admit;
mod begin;
mod bound;
mod cancel;
mod flood;
mod headers;
mod layer;
mod lines;
mod model;
mod policy_change;
mod preflight;
mod queue;
mod queue_model;
mod races;
mod responders;
mod scope;
mod settle;
mod simulation;
mod structured_fields;
mod unsettled;
mod usage_meter;
