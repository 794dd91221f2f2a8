//! Counts and logs each exchange of a route.

mod access_log;
mod body;
mod layer;

pub use self::{
    access_log::AccessLog,
    body::ObservedBody,
    layer::{Observe, ObserveFuture, ObserveLayer},
};
