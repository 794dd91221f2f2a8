//! Gateway API filters as one layer.

mod headers;
mod layer;
mod redirect;
mod rewrite;
mod timeout;

pub use self::{
    headers::InvalidHeader,
    layer::{FilterFuture, FilterLayer, FilterService},
    timeout::{TimedOut, TimeoutLayer},
};
