//! Every rule and every hint of the four kinds, for whoever meets one in a schema.

use super::rule::{Hint, Rule};
use crate::{
    ai_service, backend_lb_policy, duration, http_token, session_persistence, target_ref, token_policy,
    wasm_plugin,
};

pub(crate) fn rules() -> impl Iterator<Item = &'static Rule> {
    [
        ai_service::RULES,
        ai_service::AUTH_RULES,
        ai_service::OBSERVABILITY_RULES,
        backend_lb_policy::RULES,
        backend_lb_policy::BALANCING_RULES,
        backend_lb_policy::HASH_RULES,
        duration::RULES,
        session_persistence::RULES,
        target_ref::REF_RULES,
        target_ref::LIST_RULES,
        token_policy::RULES,
        wasm_plugin::SOURCE_RULES,
        wasm_plugin::VARIABLE_RULES,
    ]
    .into_iter()
    .flatten()
}

pub(crate) fn hints() -> impl Iterator<Item = &'static Hint> {
    [
        ai_service::HINTS,
        ai_service::AUTH_HINTS,
        ai_service::OBSERVABILITY_HINTS,
        ai_service::RETRY_HINTS,
        duration::HINTS,
        http_token::HINTS,
        session_persistence::HINTS,
        target_ref::HINTS,
        token_policy::HINTS,
        wasm_plugin::HINTS,
    ]
    .into_iter()
    .flatten()
}
