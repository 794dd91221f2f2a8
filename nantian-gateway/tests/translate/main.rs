//! The translator, seen from outside: manifests in, the intermediate representation and every condition out.

mod consistency;
mod golden;
mod load;
mod statuses;
