//! Where objects come from.
//!
//! [`Files`] reads the manifests that `kubectl apply` would take, and [`Watcher`] tells when to read them
//! again. With the feature `kubernetes`, `kube` reads the same objects from a cluster; both are a [`Source`].
//! [`refusals`] says which of the objects the translator did not like; [`Source::reject`] takes such an edit
//! back.

mod bounds;
mod check;
mod decode;
mod envelope;
mod fault;
mod files;
mod kind;
#[cfg(feature = "kubernetes")]
pub mod kube;
mod meaning;
mod objects;
mod placeholder;
mod placement;
mod reading;
mod refusal;
mod scan;
mod schema;
mod secret_data;
mod versions;
mod watch;
mod yaml;

pub(crate) use self::versions::FORMER_SERVES;
pub use self::{
    fault::{Fault, SourceLocation, Subject},
    files::{Files, Load},
    objects::{ByName, ObjectRef, Objects},
    placement::{InvalidPublicAddress, Placement, Placements, PublicAddress},
    reading::{Reading, Source, Unserved},
    refusal::{Cause, Refusal, refusals, verdict},
    watch::{WatchError, Watcher},
};
