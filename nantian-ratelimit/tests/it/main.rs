//! What callers of the crate can rely on.

#![cfg(test)]

mod admit;
mod flood;
mod headers;
mod layer;
mod model;
mod policy_change;
mod races;
mod scope;
mod settle;
