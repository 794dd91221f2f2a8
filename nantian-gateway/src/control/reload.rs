//! One reload after the other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{ConfigView, View, clock::EngineClock};
use crate::{
    compile::{Problem, Registry, compile},
    gates::{Feature, FeatureGates},
    ir::Ir,
    listen::PortKey,
    metrics::Metrics,
    runtime::Workers,
    source::{Cause, Fault, Files, ObjectRef, refusals},
    translate::{
        Translation,
        conditions::{Condition, ConditionType, Reason},
        translate,
    },
};

/// Keeps the data path in step with the sources.
#[derive(Debug)]
pub struct Control {
    files: Files,
    gates: FeatureGates,
    registry: Registry,
    workers: Workers,
    metrics: Arc<Metrics>,
    view: View,
    generation: u64,
    served: Ir,
    problems: Vec<Problem>,
    unbound: BTreeMap<PortKey, String>,
    said: Vec<String>,
    clock: Option<EngineClock>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// The objects that were added, replaced or removed.
    pub changed: Vec<ObjectRef>,
    /// Faults in the sources.
    pub faults: usize,
    /// Whether the data path was given a new generation.
    pub installed: bool,
    /// How long it took until every worker served it.
    pub took: Duration,
}

impl Control {
    /// Serves the manifests of `files` with `workers`; nothing is read before the first reload.
    pub fn new(
        files: Files,
        gates: FeatureGates,
        workers: Workers,
        metrics: Arc<Metrics>,
        view: View,
    ) -> Self {
        Self {
            files,
            gates,
            registry: Registry::new(Arc::clone(&metrics)),
            workers,
            metrics,
            view,
            generation: 0,
            served: Ir::default(),
            problems: Vec::new(),
            unbound: BTreeMap::new(),
            said: Vec::new(),
            clock: None,
        }
    }

    /// Reads what changed, and serves it once every worker has it.
    ///
    /// # Cancellation
    /// Dropping the future may leave the view behind the data path; the next reload brings it up to date.
    pub async fn reload(&mut self) -> Reload {
        let begun = Instant::now();
        let load = self.files.load();
        let (mut translation, rejected) = self.translate(&load.changed);
        let first = self.generation == 0;
        let retry = !self.unbound.is_empty();
        let installed = first || retry || translation.ir != self.served;
        if installed {
            self.install(&translation.ir).await;
        }
        self.tell_truth(&mut translation);
        self.served.clone_from(&translation.ir);
        let faults = load.faults.len() + rejected;
        let reload = Reload { changed: load.changed, faults, installed, took: begun.elapsed() };
        self.report(&reload, &load.faults, &translation);
        let view = ConfigView {
            generation: self.generation,
            translation: Arc::new(translation),
            problems: self.problems.clone(),
            faults: Vec::new(),
        };
        self.view.set(view.with_faults(&load.faults));
        reload
    }

    /// Lets requests finish, then ends the workers.
    pub fn drain(self) {
        self.workers.drain();
    }

    /// Translates; an edit that the translator refuses is taken back, so that the last good version serves on.
    fn translate(&mut self, changed: &[ObjectRef]) -> (Translation, usize) {
        let translation = translate(self.files.objects(), self.gates);
        let refused: Vec<_> = refusals(&translation)
            .into_iter()
            .filter(|refusal| refusal.cause == Cause::Spec && changed.contains(&refusal.object))
            .collect();
        for refusal in &refused {
            tracing::error!(object = %refusal.object, path = refusal.path, reason = refusal.reason, "refused");
        }
        if !self.files.reject(refused.iter().map(|refusal| &refusal.object)) {
            return (translation, refused.len());
        }
        tracing::warn!("the last good versions of refused objects serve on");
        (translate(self.files.objects(), self.gates), refused.len())
    }

    async fn install(&mut self, ir: &Ir) {
        self.generation += 1;
        let compiled = compile(ir, &mut self.registry, self.generation);
        if self.clock.is_none() {
            self.clock = self.registry.plugins().engine().map(EngineClock::start);
        }
        self.problems = compiled.problems;
        self.workers.install(compiled.snapshot);
        self.unbound = self.workers.settled(self.generation).await;
    }

    /// Corrects the conditions of what is valid and not served all the same.
    fn tell_truth(&self, translation: &mut Translation) {
        for problem in &self.problems {
            let object = ObjectRef { kind: problem.kind, name: problem.name.clone() };
            let (condition, reason) = match problem.kind {
                "WasmPlugin" => (ConditionType::Programmed, Reason::ModuleInvalid),
                "Gateway" => (ConditionType::ResolvedRefs, Reason::InvalidCertificateRef),
                "HTTPRoute" => (ConditionType::Accepted, Reason::UnsupportedValue),
                _ => (ConditionType::Programmed, Reason::Invalid),
            };
            translation
                .statuses
                .set_condition(&object, &Condition::fails(condition, reason, problem.message.clone()));
        }
        let ports = std::mem::take(&mut translation.ir.ports);
        for port in &ports {
            let key = PortKey { address: port.address, port: port.port };
            let Some(reason) = self.unbound.get(&key) else { continue };
            for listener in &port.listeners {
                let condition =
                    Condition::fails(ConditionType::Programmed, Reason::AddressNotUsable, reason.clone());
                translation.statuses.set_listener_condition(&listener.id, condition);
            }
        }
        translation.ir.ports = ports;
    }

    /// Says what happened: one line a reload, and each fault and problem once.
    fn report(&mut self, reload: &Reload, faults: &[Fault], translation: &Translation) {
        self.metrics.reloaded(reload.took, reload.installed, reload.faults);
        let mut ignored: BTreeMap<Feature, u64> =
            Feature::ALL.into_iter().map(|feature| (feature, 0)).collect();
        for object in &translation.ignored {
            *ignored.entry(object.feature).or_default() += 1;
        }
        self.metrics.set_ignored(ignored);
        let mut said = Vec::new();
        said.extend(faults.iter().map(ToString::to_string));
        said.extend(
            self.problems.iter().map(|problem| {
                format!("{} {} is not served: {}", problem.kind, problem.name, problem.message)
            }),
        );
        said.extend(self.unbound.iter().map(|(key, reason)| format!("{key} is not served: {reason}")));
        said.extend(translation.ignored.iter().map(|ignored| {
            let gate = ignored.feature.name();
            format!("{} is ignored; --feature-gates {gate}=true serves it", ignored.object)
        }));
        said.extend(
            translation.warnings.iter().map(|warning| format!("{}: {}", warning.object, warning.message)),
        );
        for line in said.iter().filter(|line| !self.said.contains(line)) {
            tracing::warn!("{line}");
        }
        self.said = said;
        let changed: Vec<_> = reload.changed.iter().take(LISTED).map(ToString::to_string).collect();
        tracing::info!(
            generation = self.generation,
            changed = reload.changed.len(),
            objects = changed.join(", "),
            faults = reload.faults,
            installed = reload.installed,
            took_ms = reload.took.as_secs_f64() * 1e3,
            "reloaded"
        );
    }
}

/// Changed objects that a reload's line names.
const LISTED: usize = 8;
