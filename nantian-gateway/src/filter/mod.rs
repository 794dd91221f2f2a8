//! Gateway API filters as one layer.

mod cors;
mod headers;
mod layer;
mod mirror;
mod redirect;
mod retry;
mod rewrite;
mod tee;
mod timeout;

pub use self::{
    headers::InvalidHeader,
    layer::{FilterFuture, FilterLayer, FilterService},
    mirror::{Mirror, MirrorLayer, MirrorService},
    retry::{Retry, RetryLayer},
    timeout::{TimedOut, TimeoutLayer},
};
