//! The translator, seen from outside: manifests in, the intermediate representation and every condition out.
#![cfg(test)]

mod consistency;
mod golden;
mod load;
mod refused;
mod statuses;
