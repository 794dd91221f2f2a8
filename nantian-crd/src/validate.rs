//! Checks objects of the four kinds, as the API server would.

use std::{fmt, str::FromStr, sync::LazyLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    ai_service::AiService,
    backend_lb_policy::BackendLbPolicy,
    crds::crd,
    fault::{Fault, FaultKind, Faults, FieldPath},
    schema::{Compiler, Validator, suggest, whole},
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

/// A name that none of the four kinds has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {name:?}, known are AIService, TokenPolicy, WasmPlugin, BackendLBPolicy")]
#[non_exhaustive]
pub struct UnknownKind {
    /// The name.
    pub name: String,
}

/// An object of one of the four kinds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
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
/// `status` is not checked; a status that cannot be read counts as absent.
///
/// # Errors
///
/// All [`Faults`] of the object at once.
pub fn validate(object: &Value) -> Result<NantianObject, Faults> {
    let kind = kind_of(object)?;
    let validator = match kind {
        NantianKind::AiService => &AI_SERVICE,
        NantianKind::TokenPolicy => &TOKEN_POLICY,
        NantianKind::WasmPlugin => &WASM_PLUGIN,
        NantianKind::BackendLbPolicy => &BACKEND_LB_POLICY,
    };
    if let Some(faults) = Faults::new(validator.validate(object, &FieldPath::root())) {
        return Err(faults);
    }
    match kind {
        NantianKind::AiService => {
            read(object).map(|(object, status)| NantianObject::AiService(AiService { status, ..object }))
        }
        NantianKind::TokenPolicy => {
            read(object).map(|(object, status)| NantianObject::TokenPolicy(TokenPolicy { status, ..object }))
        }
        NantianKind::WasmPlugin => {
            read(object).map(|(object, status)| NantianObject::WasmPlugin(WasmPlugin { status, ..object }))
        }
        NantianKind::BackendLbPolicy => read(object)
            .map(|(object, status)| NantianObject::BackendLbPolicy(BackendLbPolicy { status, ..object })),
    }
}

static AI_SERVICE: LazyLock<Validator> = LazyLock::new(|| validator(NantianKind::AiService));
static TOKEN_POLICY: LazyLock<Validator> = LazyLock::new(|| validator(NantianKind::TokenPolicy));
static WASM_PLUGIN: LazyLock<Validator> = LazyLock::new(|| validator(NantianKind::WasmPlugin));
static BACKEND_LB_POLICY: LazyLock<Validator> = LazyLock::new(|| validator(NantianKind::BackendLbPolicy));

/// Checks against the very schema that the CRD carries. People paste keys where the name of a Secret is asked
/// for.
fn validator(kind: NantianKind) -> Validator {
    let versions = crd(kind).spec.versions.into_iter();
    let schema = versions.filter_map(|version| version.schema?.open_api_v3_schema).next();
    let schema = serde_json::to_value(schema).unwrap_or_default();
    Compiler::new().redacting(["secret"]).compile(&whole(schema, kind.api_version(), kind.as_str()))
}

/// The kind by its name; whether `apiVersion` goes with it is for the schema to say.
fn kind_of(object: &Value) -> Result<NantianKind, Fault> {
    let fault = |path, value, kind, allowed| Fault { path, value, kind, allowed: Some(allowed) };
    if !object.is_object() {
        let kind = FaultKind::WrongType { found: "the document" };
        return Err(fault(FieldPath::root(), None, kind, "an object".to_owned()));
    }
    let field = FieldPath::root().field("kind");
    let names = || NantianKind::ALL.into_iter().map(NantianKind::as_str);
    let allowed = names().collect::<Vec<_>>().join(", ");
    match object.get("kind") {
        None | Some(Value::Null) => Err(fault(field, None, FaultKind::Missing, allowed)),
        Some(Value::String(name)) => name.parse().map_err(|UnknownKind { .. }| {
            let kind = FaultKind::NotOneOf { suggestion: suggest(name, names()) };
            fault(field, Some(format!("{name:?}")), kind, allowed)
        }),
        Some(_) => Err(fault(field, None, FaultKind::NotOneOf { suggestion: None }, allowed)),
    }
}

/// Reads an object without faults, and its status if that can be read.
fn read<K: DeserializeOwned, S: DeserializeOwned>(object: &Value) -> Result<(K, Option<S>), Faults> {
    let mut object = object.clone();
    let status = object.as_object_mut().and_then(|fields| fields.remove("status"));
    drop_nulls(&mut object);
    let status = status.and_then(|status| serde_json::from_value(status).ok());
    match serde_json::from_value(object) {
        Ok(object) => Ok((object, status)),
        Err(error) => {
            let kind = FaultKind::Unreadable { message: error.to_string() };
            Err(Faults::from(Fault::new(FieldPath::root(), kind)))
        }
    }
}

/// Null means absent.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

// === impl NantianKind ===

impl NantianKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AiService, Self::TokenPolicy, Self::WasmPlugin, Self::BackendLbPolicy];

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

impl FromStr for NantianKind {
    type Err = UnknownKind;

    /// # Errors
    ///
    /// [`UnknownKind`] if it is no [name](Self::as_str) of a kind.
    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        known.ok_or_else(|| UnknownKind { name: name.to_owned() })
    }
}

impl fmt::Display for NantianKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
