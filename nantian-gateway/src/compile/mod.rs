//! From plain data to something that serves: the IR and the state that outlives it become a snapshot.

mod backends;
mod balanced;
mod compiler;
mod downstream;
mod erased;
mod identities;
mod model_stats;
mod registry;
mod rule;
pub mod stack;
mod stream;

pub use self::{
    backends::Backends,
    compiler::{Compiled, Problem, compile},
    erased::{LocalFuture, LocalService},
    registry::Registry,
    rule::{CompiledBackend, CompiledMirror, CompiledRule, RulePosition, Target},
    stack::{Context, RouteFuture, RouteService},
};
