//! The four manifests that must load unmodified, and variants of them.

use nantian_crd::{
    AuthType, Backoff, HashKeyType, Hook, LoadBalancingType, NantianObject, OnLimit, ScopePart, TargetKind,
    validate,
};
use serde_json::Value;

const AI_SERVICE: &str = include_str!("../../../examples/manifests/seed/ai-service.yaml");
const TOKEN_POLICY: &str = include_str!("../../../examples/manifests/seed/token-policy.yaml");
const WASM_PLUGIN: &str = include_str!("../../../examples/manifests/seed/wasm-plugin.yaml");
const BACKEND_LB_POLICY: &str = include_str!("../../../examples/manifests/seed/backend-lb-policy.yaml");

/// A line of a data file: the seed manifest it starts from, and what is merged into it (RFC 7396).
pub(crate) struct Variant<'a> {
    pub(crate) line: &'a str,
    pub(crate) object: Value,
}

impl<'a> Variant<'a> {
    /// Reads `<seed> <merge patch>`.
    pub(crate) fn new(line: &'a str) -> Self {
        let (name, patch) = line.split_once(' ').expect("a seed and a patch");
        let mut object = seed(name);
        merge(&mut object, serde_json::from_str(patch).expect("the patch is JSON"));
        Self { line, object }
    }
}

pub(crate) fn seed(name: &str) -> Value {
    let manifest = match name {
        "ai-service" => AI_SERVICE,
        "token-policy" => TOKEN_POLICY,
        "wasm-plugin" => WASM_PLUGIN,
        "backend-lb-policy" => BACKEND_LB_POLICY,
        _ => panic!("{name} is no seed"),
    };
    serde_saphyr::from_str(manifest).expect("the manifest is YAML")
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let fields = target.as_object_mut().expect("it has just been made an object");
    for (name, patch) in patch {
        match patch {
            Value::Null => {
                fields.remove(&name);
            }
            patch => merge(fields.entry(name).or_insert(Value::Null), patch),
        }
    }
}

#[test]
fn ai_service_means_what_it_says() {
    let Ok(NantianObject::AiService(object)) = validate(&seed("ai-service")) else {
        panic!("the manifest has faults")
    };
    let auth = object.spec.auth.expect("it has auth");
    assert_eq!(auth.type_.as_deref(), Some(&AuthType::Bearer));
    assert_eq!((auth.secret.as_deref(), auth.key.as_deref()), (Some("openai-api-key"), Some("token")));
    assert_eq!(object.spec.timeout.expect("it has a timeout").as_std().as_secs(), 60);
    let retry = object.spec.retry.expect("it retries");
    assert_eq!(retry.max_retries, Some(2));
    assert_eq!(retry.backoff.as_deref(), Some(&Backoff::From("500ms".parse().expect("a duration"))));
}

#[test]
fn token_policy_means_what_it_says() {
    let Ok(NantianObject::TokenPolicy(object)) = validate(&seed("token-policy")) else {
        panic!("the manifest has faults")
    };
    let spec = object.spec;
    assert_eq!(spec.target_refs.first().map(|target| target.kind), Some(TargetKind::HttpRoute));
    assert_eq!(spec.scope.parts(), [ScopePart::Route]);
    assert_eq!(spec.on_limit, OnLimit::Reject);
    assert_eq!((spec.tokens_per_minute, spec.burst), (Some(100_000), 1.5));
}

#[test]
fn wasm_plugin_means_what_it_says() {
    let Ok(NantianObject::WasmPlugin(object)) = validate(&seed("wasm-plugin")) else {
        panic!("the manifest has faults")
    };
    assert_eq!(object.spec.hooks, [Hook::OnRequest, Hook::OnResponse]);
    assert_eq!(object.spec.config.as_deref(), Some("{\"mode\":\"audit\"}\n"));
    assert_eq!(object.spec.sandbox.max_memory_bytes, 64 * 1024 * 1024);
}

#[test]
fn backend_lb_policy_means_what_it_says() {
    let Ok(NantianObject::BackendLbPolicy(object)) = validate(&seed("backend-lb-policy")) else {
        panic!("the manifest has faults")
    };
    let balancing = object.spec.load_balancing.expect("it balances");
    assert_eq!(balancing.effective_type(), LoadBalancingType::ConsistentHash);
    let hash = balancing.consistent_hash.expect("it hashes");
    assert_eq!((hash.key_type, hash.header_name.as_deref()), (HashKeyType::Header, Some("x-session-id")));
}
