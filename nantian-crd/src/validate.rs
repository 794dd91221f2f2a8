use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    ai_service::AiService,
    backend_lb_policy::BackendLbPolicy,
    fault::{Fault, FaultKind, Faults, FieldPath},
    token_policy::TokenPolicy,
    wasm_plugin::WasmPlugin,
};

/// One of the four kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "a new kind must not compile anywhere before it is served")]
pub enum NantianKind {
    /// [`AiService`].
    AiService,
    /// [`TokenPolicy`].
    TokenPolicy,
    /// [`WasmPlugin`].
    WasmPlugin,
    /// [`BackendLbPolicy`].
    BackendLbPolicy,
}

/// An object of one of the four kinds.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "objects are read once per change and then borrowed")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must not compile anywhere before it is served")]
pub enum NantianObject {
    /// One model at one provider.
    AiService(AiService),
    /// Limits on requests and tokens.
    TokenPolicy(TokenPolicy),
    /// A WebAssembly module.
    WasmPlugin(WasmPlugin),
    /// A choice of balancing.
    BackendLbPolicy(BackendLbPolicy),
}

/// Checks an object of one of the four kinds as the API server would, and reads it.
///
/// # Errors
///
/// All [`Faults`] of the object at once.
pub fn validate(object: &Value) -> Result<NantianObject, Faults> {
    let kind = NantianKind::of(object).ok_or_else(|| Fault {
        path: FieldPath::root().field("kind"),
        value: object.get("kind").map(Value::to_string),
        kind: FaultKind::NotOneOf { suggestion: None },
        allowed: Some("AIService, TokenPolicy, WasmPlugin, BackendLBPolicy".to_owned()),
    })?;
    match kind {
        NantianKind::AiService => read(object).map(NantianObject::AiService),
        NantianKind::TokenPolicy => read(object).map(NantianObject::TokenPolicy),
        NantianKind::WasmPlugin => read(object).map(NantianObject::WasmPlugin),
        NantianKind::BackendLbPolicy => read(object).map(NantianObject::BackendLbPolicy),
    }
}

fn read<K: DeserializeOwned>(object: &Value) -> Result<K, Faults> {
    serde_json::from_value(object.clone()).map_err(|error| {
        Faults::from(Fault {
            path: FieldPath::root(),
            value: None,
            kind: FaultKind::Unreadable { message: error.to_string() },
            allowed: None,
        })
    })
}

// === impl NantianKind ===

impl NantianKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AiService, Self::TokenPolicy, Self::WasmPlugin, Self::BackendLbPolicy];

    /// The kind of `object`, by its `kind` and the group of its `apiVersion`, whatever the version.
    pub fn of(object: &Value) -> Option<Self> {
        let name = object.get("kind")?.as_str()?;
        let (group, _) = object.get("apiVersion")?.as_str()?.split_once('/')?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == name && kind.group() == group)
    }

    /// The name, as `kind` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AiService => "AIService",
            Self::TokenPolicy => "TokenPolicy",
            Self::WasmPlugin => "WasmPlugin",
            Self::BackendLbPolicy => "BackendLBPolicy",
        }
    }

    /// The API group.
    pub fn group(self) -> &'static str {
        match self {
            Self::AiService | Self::TokenPolicy | Self::WasmPlugin => "gateway.nantian.dev",
            Self::BackendLbPolicy => "gateway.networking.k8s.io",
        }
    }

    /// Group and version, as `apiVersion` has them.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::AiService | Self::TokenPolicy | Self::WasmPlugin => "gateway.nantian.dev/v1alpha1",
            Self::BackendLbPolicy => "gateway.networking.k8s.io/v1alpha2",
        }
    }
}

// === impl NantianObject ===

impl NantianObject {
    /// Which of the four kinds it is of.
    pub fn kind(&self) -> NantianKind {
        match self {
            Self::AiService(_) => NantianKind::AiService,
            Self::TokenPolicy(_) => NantianKind::TokenPolicy,
            Self::WasmPlugin(_) => NantianKind::WasmPlugin,
            Self::BackendLbPolicy(_) => NantianKind::BackendLbPolicy,
        }
    }

    /// Its name, namespace, generation and so on.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::AiService(object) => &object.metadata,
            Self::TokenPolicy(object) => &object.metadata,
            Self::WasmPlugin(object) => &object.metadata,
            Self::BackendLbPolicy(object) => &object.metadata,
        }
    }
}
