//! Where objects come from.
//!
//! [`Files`] reads the manifests that `kubectl apply` would take, and [`Watcher`] tells when to read them again.
//! [`refusals`] says which of the objects the translator did not like; [`Files::reject`] takes such an edit back.

mod bounds;
mod bytes;
mod check;
mod decode;
mod envelope;
mod fault;
mod files;
mod kind;
mod object;
mod objects;
mod refusal;
mod scan;
mod schema;
mod suggest;
mod watch;
mod yaml;

pub use self::{
    fault::{Fault, Place, Subject},
    files::{Files, Load},
    objects::{ByName, ObjectRef, Objects},
    refusal::{Cause, Refusal, refusals},
    watch::{WatchError, Watcher},
};
