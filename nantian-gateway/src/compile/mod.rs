//! From plain data to something that serves: the IR and the state that outlives it become a snapshot.

mod ai_services;
mod backends;
mod balanced_backend;
mod compiler;
mod downstream;
mod identities;
mod local_service;
mod model_stats;
mod problem;
mod registry;
mod rule;
mod sessions;
pub(crate) mod stack;
mod stream;
mod tls_ports;

pub(crate) use self::{
    ai_services::AiBackend,
    local_service::{BackendService, LocalFuture, LocalService},
    problem::Problem,
    registry::Outside,
    rule::{CompiledBackend, CompiledMirror, CompiledRule, CompiledTarget, RulePosition},
    stack::{Context, RouteFuture, RouteService},
};
pub use self::{
    compiler::{Compiled, compile},
    registry::Registry,
};
