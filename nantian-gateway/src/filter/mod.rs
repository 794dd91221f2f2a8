//! Gateway API filters as one layer.

mod budget;
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
    budget::RetryBudget,
    headers::InvalidHeader,
    layer::{FilterFuture, FilterLayer, FilterService},
    mirror::{Mirror, MirrorLayer, MirrorService},
    redirect::{RedirectLayer, RedirectService},
    retry::{Retry, RetryLayer},
    timeout::{TimedOut, TimeoutLayer},
};
