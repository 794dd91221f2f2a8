//! The four Nantian kinds as typed data: validation, CRD YAML and status.
//!
//! | kind | group and version | what it does |
//! |---|---|---|
//! | [`AiService`] | `gateway.nantian.dev/v1alpha1` | one model at one LLM provider, as a backend of routes |
//! | [`TokenPolicy`] | `gateway.nantian.dev/v1alpha1` | limits requests and LLM tokens |
//! | [`WasmPlugin`] | `gateway.nantian.dev/v1alpha1` | runs a WebAssembly module on traffic |
//! | [`BackendLbPolicy`] | `gateway.networking.k8s.io/v1alpha2` | chooses how requests are spread over endpoints |
//!
//! The types are plain data: reading one creates nothing. There is no Kubernetes client behind this crate, so
//! that proxies can read the manifests that `kubectl apply` takes from wherever they have them.
//!
//! # Adding it
//!
//! The objects have the metadata of k8s-openapi, which does not build before a program has chosen a version
//! of Kubernetes; a library must not. Any will do:
//!
//! ```toml
//! nantian-crd = "0.1"
//! k8s-openapi = { version = "0.28", default-features = false, features = ["latest"] }
//! ```
//!
//! Faults are told in the order of the object, which is why the crate turns on `serde_json/preserve_order`.
//!
//! Specs are read, not built: minor releases add fields to them. `Deserialize` alone judges next to nothing
//! of what it reads, neither ranges nor unknown fields: [`validate`] does.
//!
//! # Reading a manifest
//!
//! [`validate`] judges an object as the API server would, with all its [`Fault`]s at once, and reads it.
//!
//! ```
//! use nantian_crd::{NantianObject, ScopePart, validate};
//!
//! let manifest = "
//! apiVersion: gateway.nantian.dev/v1alpha1
//! kind: TokenPolicy
//! metadata: { name: quota, namespace: demo }
//! spec:
//!   targetRefs: [{ group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat }]
//!   tokensPerMinute: 100000
//!   scope: user
//! ";
//! let mut object: serde_json::Value = serde_saphyr::from_str(manifest)?;
//! let NantianObject::TokenPolicy(policy) = validate(&object)? else { unreachable!() };
//! assert_eq!(policy.spec.tokens_per_minute, Some(100_000));
//! assert_eq!(policy.spec.scope.parts(), [ScopePart::User]);
//!
//! object["spec"]["onLimit"] = "rejct".into();
//! object["spec"]["burst"] = 0.5.into();
//! let faults = validate(&object).unwrap_err();
//! assert_eq!(
//!     faults.to_string(),
//!     r#"spec.onLimit: "rejct" is not one of reject, queue, warn; did you mean "reject"?
//! spec.burst: 0.5 is out of range; allowed: 1 to 1000"#
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Beyond the four kinds
//!
//! - [`crds`] are the CustomResourceDefinitions, [`crds_yaml`] the text for `kubectl apply -f -`.
//! - [`schema`] checks objects of any kind against their schema, with the same faults.
//! - [`status`] merges what a controller found into the status of an object.

mod ai_service;
mod as_written;
mod backend_lb_policy;
mod crds;
mod duration;
mod fault;
mod http_token;
pub mod schema;
mod secret_text;
mod session_persistence;
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
    as_written::AsWritten,
    backend_lb_policy::{
        BackendLbPolicy, BackendLbPolicySpec, CircuitBreaker, ConsistentHash, HashKeyType, LoadBalancing,
        LoadBalancingType,
    },
    crds::{crd_yaml, crds, crds_yaml},
    duration::{Duration, InvalidDuration},
    fault::{Fault, FaultKind, Faults, FieldPath},
    secret_text::SecretText,
    session_persistence::{
        CookieConfig, CookieLifetime, SessionCookie, SessionHeader, SessionPersistence,
        SessionPersistenceType,
    },
    target_ref::{GATEWAY_API_GROUP, NANTIAN_GROUP, ServiceRef, TargetKind, TargetRef},
    token_policy::{InvalidScope, OnLimit, Scope, ScopePart, TokenPolicy, TokenPolicySpec},
    validate::{NantianKind, NantianObject, UnknownKind, validate},
    wasm_plugin::{
        ConfigMapSource, EnvVar, EnvVarSource, FailurePolicy, Hook, Sandbox, StreamFraming, VmConfig,
        WasmPlugin, WasmPluginSpec, WasmSource,
    },
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
