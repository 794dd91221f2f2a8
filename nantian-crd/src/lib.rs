//! The four Nantian kinds as typed data: validation, CRD YAML and status.
//!
//! | kind | group and version | what it does |
//! |---|---|---|
//! | [`AiService`] | `gateway.nantian.dev/v1alpha1` | one model at one LLM provider, as a backend of routes |
//! | [`TokenPolicy`] | `gateway.nantian.dev/v1alpha1` | limits requests and LLM tokens |
//! | [`WasmPlugin`] | `gateway.nantian.dev/v1alpha1` | runs a WebAssembly module on traffic |
//! | [`BackendLbPolicy`] | `gateway.networking.k8s.io/v1alpha2` | chooses how requests are spread over endpoints |

mod ai_service;
mod backend_lb_policy;
mod crds;
mod duration;
mod fault;
mod http_token;
pub mod schema;
mod secret_text;
mod spelled;
pub mod status;
mod target_ref;
mod token_policy;
mod validate;
mod wasm_plugin;

pub use self::{
    ai_service::{
        AiService, AiServiceSpec, Auth, AuthType, Backoff, Format, InvalidAuthType, InvalidBackoff,
        KNOWN_PROVIDERS, Langfuse, Observability, Otel, Retry, SecretKeyRef,
    },
    backend_lb_policy::{
        BackendLbPolicy, BackendLbPolicySpec, CircuitBreaker, ConsistentHash, CookieConfig, CookieLifetime,
        HashKeyType, LoadBalancing, LoadBalancingType, SessionPersistence, SessionPersistenceType,
    },
    crds::{crds, crds_yaml},
    duration::{Duration, InvalidDuration},
    fault::{Fault, FaultKind, Faults, FieldPath},
    secret_text::SecretText,
    spelled::Spelled,
    target_ref::{GATEWAY_API_GROUP, NANTIAN_GROUP, ServiceRef, TargetKind, TargetRef},
    token_policy::{InvalidScope, OnLimit, Scope, ScopePart, TokenPolicy, TokenPolicySpec},
    validate::{NantianKind, NantianObject, validate},
    wasm_plugin::{ConfigMapSource, FailurePolicy, Hook, Sandbox, WasmPlugin, WasmPluginSpec, WasmSource},
};
