//! Events for what a user would look for in the log.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Error;

use super::recorder::Recorder;
use crate::{
    control::ConfigView,
    source::{ObjectRef, kube::ObjectCache, refusals},
};

/// Events that are written in a row; status would wait for more of them.
const IN_A_ROW: usize = 32;

/// Tells each thing once.
pub(super) struct Events {
    recorder: Recorder,
    told: BTreeSet<Line>,
    /// The codes with which the server has refused events.
    obstacles: BTreeSet<u16>,
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    object: ObjectRef,
    reason: &'static str,
    note: String,
}

impl Events {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, told: BTreeSet::new(), obstacles: BTreeSet::new() }
    }

    /// Tells some of what was not told before. Returns whether nothing is left to tell.
    pub(super) async fn tell(&mut self, config: &ConfigView, cache: &ObjectCache) -> bool {
        let lines = lines(config);
        self.told.retain(|line| lines.contains(line));
        let new = lines.into_iter().filter(|line| !self.told.contains(line));
        let mut new =
            new.filter_map(|line| Some((reference(&line.object, cache)?, line))).collect::<Vec<_>>();
        let mut all = new.len() <= IN_A_ROW;
        new.truncate(IN_A_ROW);
        for (reference, line) in new {
            match self.recorder.warn(&reference, line.reason, &line.note).await {
                Ok(()) => drop(self.told.insert(line)),
                Err(Error::Api(status)) => {
                    if self.obstacles.insert(status.code) {
                        let (error, object) = (&status.message, &line.object);
                        tracing::warn!(error, %object, "events cannot be written");
                    }
                    // Its namespace is about to go, say: another attempt would end like this one.
                    if [403, 404, 422].contains(&status.code) {
                        self.told.insert(line);
                    } else {
                        all = false;
                    }
                }
                // That the server is away is told already.
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
    let line = |object: &ObjectRef, reason, note| Line { object: object.clone(), reason, note };
    let is_told = |refusal: &_| config.problems.iter().any(|problem| problem.is_told_by(refusal));
    let refused = refusals(translation).into_iter().filter(|refusal| !is_told(refusal)).map(|refusal| {
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

fn reference(object: &ObjectRef, cache: &ObjectCache) -> Option<ObjectReference> {
    let seen = cache.get(object)?;
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
