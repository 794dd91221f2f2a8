//! From a plain value to an object, or to everything that is wrong with it.

use std::{cell::OnceCell, fmt};

use nantian_crd::{Fault, FaultKind, FieldPath, schema::Validator};
use serde_json::{Map, Value};

use super::{
    kind::{Kind, Object},
    schema, secret_data,
};
use crate::{ir::ObjectName, translate::certificate_fault};

/// A field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldProblem {
    pub(super) path: String,
    pub(super) reason: String,
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.reason),
            path => write!(f, "{path}: {}", self.reason),
        }
    }
}

/// Checks objects against the schemas of their kinds, each of which is made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Checker {
    takes_unknown_fields: bool,
    kinds: [OnceCell<Validator>; Kind::ALL.len()],
}

// === impl Checker ===

impl Checker {
    /// Takes no offence at fields that no schema knows: an API server may be newer than this program, and has
    /// its own way with misspelt fields.
    #[cfg(feature = "kubernetes")]
    pub(super) fn lenient() -> Self {
        Self { takes_unknown_fields: true, ..Self::default() }
    }

    /// Checks and reads an object whose envelope is in order.
    ///
    /// What only the server writes (`status`, `metadata.managedFields`) is left out, so that the output of
    /// `kubectl get -o yaml` can be read back.
    ///
    /// # Errors
    ///
    /// All complaints at once, in the order of the fields.
    pub(super) fn read(
        &self,
        kind: Kind,
        name: &ObjectName,
        mut object: Map<String, Value>,
    ) -> Result<Object, Vec<FieldProblem>> {
        object.remove("status");
        object.insert("apiVersion".to_owned(), kind.info().api_version().into());
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove("managedFields");
            if kind.info().is_namespaced {
                metadata.insert("namespace".to_owned(), name.namespace.clone().into());
            } else {
                metadata.remove("namespace");
            }
        }
        secret_data::join_lines(kind, &mut object);
        if kind == Kind::EndpointSlice {
            let endpoints = object.entry("endpoints").or_insert(Value::Null);
            if endpoints.is_null() {
                // This is how kubectl shows a Service without pods.
                *endpoints = Value::Array(Vec::new());
            }
        }
        let mut object = Value::Object(object);
        let complaints = self.complaints(kind, &object);
        if !complaints.is_empty() {
            return Err(complaints);
        }
        if let Value::Object(object) = &mut object {
            secret_data::merge_string_data(kind, object);
        }
        let object = Object::read(kind, object).map_err(|error| vec![unreadable(kind, &error)])?;
        // Judged here, so that a rotation that went wrong leaves the last good certificate in place.
        if let Object::Secret(secret) = &object
            && let Some(reason) = certificate_fault(secret)
        {
            return Err(vec![FieldProblem { path: "data".to_owned(), reason }]);
        }
        Ok(object)
    }

    fn complaints(&self, kind: Kind, object: &Value) -> Vec<FieldProblem> {
        let counts = |fault: &Fault| {
            !(self.takes_unknown_fields && matches!(fault.kind, FaultKind::UnknownField { .. }))
        };
        if kind.is_ours() {
            let faults = nantian_crd::validate(object).err();
            return faults.into_iter().flatten().filter(counts).map(complaint).collect();
        }
        let validator =
            self.kinds.get(kind as usize).map(|cell| cell.get_or_init(|| schema::validator(kind)));
        let faults = validator.map(|validator| validator.validate(object, &FieldPath::root()));
        faults.into_iter().flatten().filter(counts).map(complaint).collect()
    }
}

fn complaint(mut fault: Fault) -> FieldProblem {
    let path = std::mem::take(&mut fault.path).to_string();
    let hint = match fault.kind {
        FaultKind::WrongType { found } if fault.allowed.as_deref() == Some("a string") => quoting(found),
        _ => "",
    };
    FieldProblem { path, reason: format!("{fault}{hint}") }
}

/// What to do about a plain scalar that YAML takes for something else.
fn quoting(found: &str) -> &'static str {
    match found {
        "a boolean" => "; unquoted true, false, yes, no, on and off are booleans: put it in quotes",
        "a number" | "an integer" => "; put it in quotes",
        _ => "",
    }
}

/// The last resort. What a Secret holds is not shown.
fn unreadable(kind: Kind, error: &serde_json::Error) -> FieldProblem {
    let reason = match kind {
        Kind::Secret => "cannot be read as a Secret".to_owned(),
        _ => error.to_string(),
    };
    FieldProblem { path: String::new(), reason }
}
