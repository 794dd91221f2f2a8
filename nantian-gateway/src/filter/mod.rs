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

pub(crate) use self::{
    budget::RetryBudget,
    layer::FilterLayer,
    mirror::{Mirror, MirrorLayer},
    redirect::RedirectLayer,
    retry::RetryLayer,
    timeout::{TimedOut, TimeoutLayer},
};
