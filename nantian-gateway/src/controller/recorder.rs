//! Events as the API server keeps them.

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Error,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::Lease;
use crate::{ir::ControllerName, source::kube::digest};

/// An event has at most 1 kB of text.
const MAX_NOTE: usize = 1024;
/// What of the object's name is in the name of an event, which has at most 253 bytes.
const MAX_NAME: usize = 200;
/// What of the path of a controller's name is in an event.
const MAX_REPORTER: usize = 63;
/// Where events of objects are that are in no namespace.
const DEFAULT_NAMESPACE: &str = "default";

/// Writes events in the name of one replica.
pub(super) struct Recorder {
    client: Client,
    /// The name of the controller as events may have it.
    reporter: String,
    identity: String,
}

impl Recorder {
    /// In the name of who would hold `lease`.
    pub(super) fn new(client: Client, lease: &Lease) -> Self {
        Self { client, reporter: reporter(lease.controller()), identity: lease.identity().to_owned() }
    }

    /// Warns of something about an object.
    ///
    /// The event is named after the object, `reason` and `note`: what is told again while its event is kept,
    /// by this replica or another one, is one that lasts.
    ///
    /// # Errors
    /// What the API server says.
    pub(super) async fn warn(&self, object: &ObjectReference, reason: &str, note: &str) -> Result<(), Error> {
        let namespace = object.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let (name, now) = (name(object, reason, note), MicroTime(Timestamp::now()));
        let event = Event {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            action: Some("Serve".to_owned()),
            event_time: Some(now.clone()),
            note: Some(note.get(..note.floor_char_boundary(MAX_NOTE)).unwrap_or(note).to_owned()),
            reason: Some(reason.to_owned()),
            regarding: Some(object.clone()),
            reporting_controller: Some(self.reporter.clone()),
            reporting_instance: Some(self.identity.clone()),
            type_: Some("Warning".to_owned()),
            ..Event::default()
        };
        match events.create(&PostParams::default(), &event).await {
            Err(Error::Api(status)) if status.code == 409 => {
                // How often is not counted; two is the least that the API server takes.
                let lasts = Patch::Merge(json!({ "series": { "count": 2, "lastObservedTime": now } }));
                events.patch(&name, &PatchParams::default(), &lasts).await.map(drop)
            }
            created => created.map(drop),
        }
    }
}

/// Classes may name more than one slash, and longer paths, than events.
fn reporter(controller: &ControllerName) -> String {
    let (domain, path) = controller.as_str().split_once('/').unwrap_or_default();
    let path = path.replace(|it: char| !it.is_ascii_alphanumeric() && !"-_.".contains(it), "-");
    let path = path.get(..MAX_REPORTER).unwrap_or(&path);
    let path = path.trim_matches(|it: char| !it.is_ascii_alphanumeric());
    format!("{domain}/{}", if path.is_empty() { "controller" } else { path })
}

fn name(object: &ObjectReference, reason: &str, note: &str) -> String {
    let of = object.name.as_deref().unwrap_or_default();
    let of = of.get(..MAX_NAME).unwrap_or(of).trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
    let told = [object.kind.as_deref(), object.uid.as_deref(), Some(reason), Some(note)];
    let told = told.map(Option::unwrap_or_default).join("\n");
    format!("{of}.{:016x}", digest(told.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_controller_as_the_api_server_takes_it() {
        let long = format!("example.com/{}", "a".repeat(240));
        let cut = format!("example.com/{}", "a".repeat(63));
        for (name, told) in [
            ("gateway.nantian.dev/gateway-controller", "gateway.nantian.dev/gateway-controller"),
            ("example.com/Inner_1", "example.com/Inner_1"),
            ("example.com/team/inner", "example.com/team-inner"),
            ("1.example/~%!$&", "1.example/controller"),
            (&long, &cut),
        ] {
            assert_eq!(reporter(&name.parse().unwrap()), told);
        }
    }

    #[test]
    fn an_event_is_named_after_what_it_tells() {
        let object = |name: &str, uid: &str| ObjectReference {
            kind: Some("Gateway".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let first = name(&object("web", "u"), "Invalid", "this");
        assert!(first.starts_with("web.") && first.len() == 20, "{first}");
        assert_eq!(first, name(&object("web", "u"), "Invalid", "this"));
        for other in [
            name(&object("web", "u"), "Invalid", "that"),
            name(&object("web", "u"), "Unsupported", "this"),
            name(&object("web", "v"), "Invalid", "this"),
        ] {
            assert_ne!(first, other);
        }
        let long = format!("{}.{}", "a".repeat(199), "b".repeat(53));
        assert_eq!(name(&object(&long, "u"), "Invalid", "this").len(), 199 + 17);
    }
}
