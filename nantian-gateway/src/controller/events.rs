//! Events for what a user would look for in the log.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{
    control::ConfigView,
    source::{ObjectRef, kube::Mirror, refusals},
    translate::status::CONTROLLER_NAME,
};

/// An event has at most 1 kB of text.
const MAX_NOTE: usize = 1024;

/// Tells each thing once.
pub(super) struct Events {
    recorder: Recorder,
    told: BTreeSet<Line>,
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    object: ObjectRef,
    reason: &'static str,
    note: String,
}

impl Events {
    pub(super) fn new(client: Client, identity: String) -> Self {
        let reporter = Reporter { controller: CONTROLLER_NAME.to_owned(), instance: Some(identity) };
        Self { recorder: Recorder::new(client, reporter), told: BTreeSet::new() }
    }

    /// Tells what was not told before. Returns whether all of it could be told.
    pub(super) async fn tell(&mut self, config: &ConfigView, mirror: &Mirror) -> bool {
        let lines = lines(config);
        self.told.retain(|line| lines.contains(line));
        let mut all = true;
        for line in lines {
            if self.told.contains(&line) {
                continue;
            }
            let Some(reference) = reference(&line.object, mirror) else { continue };
            let event = Event {
                type_: EventType::Warning,
                reason: line.reason.to_owned(),
                note: Some(line.note.clone()),
                action: "Serve".to_owned(),
                secondary: None,
            };
            match self.recorder.publish(&event, &reference).await {
                Ok(()) => drop(self.told.insert(line)),
                Err(error) => {
                    tracing::debug!(%error, object = %line.object, "an event cannot be written");
                    all = false;
                }
            }
        }
        all
    }
}

fn lines(config: &ConfigView) -> BTreeSet<Line> {
    let translation = &config.translation;
    let line = |object: &ObjectRef, reason, mut note: String| {
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        Line { object: object.clone(), reason, note }
    };
    let refused = refusals(translation).into_iter().map(|refusal| {
        line(&refusal.object, refusal.code.as_str(), format!("{}: {}", refusal.path, refusal.reason))
    });
    let ignored = translation.ignored.iter().map(|ignored| {
        let gate = ignored.feature.name();
        line(&ignored.object, "Ignored", format!("--feature-gates {gate}=true serves it"))
    });
    let problems = config
        .problems
        .iter()
        .map(|problem| line(&problem.object, problem.reason.as_str(), problem.message.clone()));
    refused.chain(ignored).chain(problems).collect()
}

fn reference(object: &ObjectRef, mirror: &Mirror) -> Option<ObjectReference> {
    let seen = mirror.get(object)?;
    let namespace = &object.name.namespace;
    Some(ObjectReference {
        api_version: Some(seen.api_version),
        kind: Some(object.kind.to_owned()),
        name: Some(object.name.name.to_string()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_string()),
        uid: seen.uid,
        resource_version: None,
        field_path: None,
    })
}
