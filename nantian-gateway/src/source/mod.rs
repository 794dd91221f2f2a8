//! Where objects come from.
//!
//! [`Files`] reads the manifests that `kubectl apply` would take, and [`Watcher`] tells when to read them again.

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
mod scan;
mod schema;
mod suggest;
mod watch;
mod yaml;

pub use self::{
    fault::{Fault, Place, Subject},
    files::{Files, Load},
    objects::{ByName, ObjectRef, Objects},
    watch::{WatchError, Watcher},
};
