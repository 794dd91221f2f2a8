//! Gateway API filters as one layer.

mod cors;
mod headers;
mod layer;
mod redirect;
mod replay;
mod retry;
mod rewrite;
mod timeout;

pub use self::{
    headers::InvalidHeader,
    layer::{FilterFuture, FilterLayer, FilterService},
    retry::{Retry, RetryLayer},
    timeout::{TimedOut, TimeoutLayer},
};
