//! From the plain data of a policy to the layer of its crate.
//!
//! One file or folder a kind. AIServices and TokenPolicies meet over tokens: what a call has used settles
//! what its limits have reserved (`ai/settle.rs`, `verdict.rs`), and how long the answers before were tells
//! what to reserve (`rate_limit/lengths.rs`).

mod ai;
mod load_balancing;
mod peeked_body;
mod rate_limit;
mod session;
mod verdict;
mod wasm;

pub(crate) use self::{
    ai::{
        AiObserver, Cutoff, InvalidAiService, ModelChoice, OwnIdentities, ServiceUsage, Tokens, WordsLayer,
        ai_layer, ai_target, check_ai_service, check_identity, model_route, refusal, service_info,
    },
    load_balancing::{balance_config, balance_layer, endpoints},
    rate_limit::{
        BeforeBody, Downstream, Lengths, Limiters, Models, Others, PolicyLimiter, RateLimits, Upstream,
        keep_refusal, mark_upstream, policy as rate_limit_policy,
    },
    session::{CookieNames, SessionScope},
    wasm::{
        NotRunning, PluginNews, PluginPlace, PluginResources, Plugins, WasmPlugins, call_foreign_function,
        is_closed_by_plugin, plugin_config,
    },
};
