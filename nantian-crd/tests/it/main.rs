//! What the four kinds promise to those who write and read them.
#![cfg(test)]

mod broken;
mod crds_on_disk;
mod properties;
mod rules;
mod schema;
mod seed;
mod status;
mod values;
