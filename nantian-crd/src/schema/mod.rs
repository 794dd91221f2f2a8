//! Checking values against any OpenAPI schema.
//!
//! ```
//! use nantian_crd::{FieldPath, schema};
//! use serde_json::json;
//!
//! let port = json!({ "type": "object", "properties": { "port": { "type": "integer", "maximum": 65535 } } });
//! let faults = schema::check(&port, &json!({ "prot": 80, "port": 70000 }), &FieldPath::from("spec"));
//! let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
//! assert_eq!(
//!     lines,
//!     [
//!         r#"spec.prot: unknown field; did you mean "port"?"#,
//!         "spec.port: 70000 is out of range; allowed: at most 65535",
//!     ]
//! );
//! ```

use serde_json::Value;

use crate::fault::{Fault, FieldPath};

mod catalogue;
mod compile;
mod location;
mod node;
mod resource;
mod rule;
mod shown;
mod suggest;
mod validator;
mod visitor;

pub use self::{
    compile::Compiler,
    resource::resource,
    rule::{Hint, Rule},
    suggest::suggest,
    validator::Validator,
};
pub(crate) use self::{
    node::whole_number,
    resource::whole,
    rule::{child, enforcing, has, items, text},
};

/// Checks `value` against `schema` once; a [`Validator`] does it many times.
pub fn check(schema: &Value, value: &Value, root: &FieldPath) -> Vec<Fault> {
    Validator::new(schema).validate(value, root)
}
