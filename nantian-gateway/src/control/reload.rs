//! One reload after the other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    ConfigView, SessionKeySource, View,
    backoff::Backoff,
    engine_threads::start_engine_threads,
    log_once::log_once,
    news::{ReloadNews, is_ours},
    startup_gate::StartupGate,
};
use crate::{
    compile::{Problem, Registry, compile},
    gates::{Feature, FeatureGates},
    ir::Ir,
    listen::{PortKey, Unbound},
    metrics::Metrics,
    observe::limits_remark,
    policy::Limiters,
    respond::ErrorChain,
    runtime::Workers,
    snapshot::Snapshot,
    source::{Cause, FORMER_SERVES, ObjectRef, Reading, Source, Unserved, refusals, verdict},
    translate::{
        Environment, Locality, Translation, Warning,
        conditions::{Condition, ConditionType, Reason},
        translate_at,
    },
};

/// Keeps the data path in step with the sources.
#[derive(Debug)]
pub(crate) struct Control {
    source: Box<dyn Source>,
    gates: FeatureGates,
    here: Locality,
    registry: Registry,
    session_keys: SessionKeySource,
    workers: Workers,
    metrics: Arc<Metrics>,
    view: View,
    generation: u64,
    served: Ir,
    problems: Vec<Problem>,
    /// Faults in the manifests, as of the last reload.
    source_faults: Vec<String>,
    /// What the source leaves out.
    unserved: Unserved,
    /// The edits that were taken back; until the object is edited again.
    rejected: BTreeMap<ObjectRef, Rejected>,
    unbound: BTreeMap<PortKey, Unbound>,
    /// When the sockets that could not be bound are tried again.
    backoff: Backoff,
    snapshot: Arc<Snapshot>,
    said: Vec<String>,
    gate: StartupGate,
}

/// An edit that was taken back.
#[derive(Debug, Default)]
struct Rejected {
    /// What is wrong with it.
    lines: Vec<String>,
    /// What its author is told, where a version before it serves on.
    verdict: Option<Condition>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reload {
    /// The objects that were added, replaced or removed.
    pub(crate) changed: Vec<ObjectRef>,
    /// Faults in the sources.
    pub(crate) faults: usize,
    /// Whether the data path was given a new generation.
    pub(crate) installed: bool,
    /// How long it took until every worker served it.
    pub(crate) took: Duration,
}

impl Control {
    /// Serves the objects of `source` with `workers` and the state in `registry`; nothing is read before the
    /// first reload.
    pub(crate) fn new(
        source: impl Source + 'static,
        gates: FeatureGates,
        session_keys: SessionKeySource,
        workers: Workers,
        metrics: Arc<Metrics>,
        view: View,
        registry: Registry,
    ) -> Self {
        Self {
            source: Box::new(source),
            gates,
            here: Locality::default(),
            registry,
            session_keys,
            workers,
            metrics,
            view,
            generation: 0,
            served: Ir::default(),
            problems: Vec::new(),
            source_faults: Vec::new(),
            unserved: Unserved::default(),
            rejected: BTreeMap::new(),
            unbound: BTreeMap::new(),
            backoff: Backoff::default(),
            snapshot: Arc::default(),
            said: Vec::new(),
            gate: StartupGate::default(),
        }
    }

    /// For a gateway that runs `here`; without, no endpoint is nearer than another one.
    #[must_use]
    pub(crate) fn located(mut self, here: Locality) -> Self {
        self.here = here;
        self
    }

    /// Reads what changed, and serves it once every worker has it.
    ///
    /// # Cancellation
    /// Dropping the future may leave the view behind the data path; the next reload brings it up to date.
    pub(crate) async fn reload(&mut self) -> Reload {
        self.reconcile(false).await
    }

    /// As [`reload`](Self::reload), and tries again what could not be served.
    ///
    /// # Cancellation
    /// As that of [`reload`](Self::reload).
    pub(crate) async fn reload_and_retry(&mut self) -> Reload {
        self.reconcile(!self.unbound.is_empty() || !self.problems.is_empty()).await
    }

    async fn reconcile(&mut self, retry: bool) -> Reload {
        let begun = Instant::now();
        let Reading { changed, faults: mut source_faults, unserved, is_idle } = self.source.read();
        let invalid_keys = self.session_keys.reload().err();
        source_faults.extend(invalid_keys.map(|error| format!("--session-key-file {}", ErrorChain(&error))));
        let has_new_keys = self.registry.set_session_keys(self.session_keys.keys().clone());
        let is_told = source_faults == self.source_faults && unserved == self.unserved;
        let nothing_new = is_idle && is_told && !has_new_keys;
        if nothing_new && self.generation > 0 && !retry {
            tracing::debug!("no object has changed");
            let (faults, took) = (source_faults.len() + self.rejected.len(), begun.elapsed());
            return Reload { changed, faults, installed: false, took };
        }
        let faults_before = self.faults();
        let mut translation = self.translate(&changed);
        let first = self.generation == 0;
        let anew = first || retry || has_new_keys;
        let installed = anew || translation.ir != self.served;
        if anew || !translation.ir.routes_like(&self.served) {
            self.install(&translation.ir).await;
        } else if installed {
            self.registry.update_balancers(&translation.ir);
            self.registry.retain_limits(&translation.ir);
        }
        self.correct_conditions(&mut translation);
        self.served.clone_from(&translation.ir);
        self.source_faults = source_faults;
        self.unserved = unserved;
        let faults = self.faults();
        let says = |view: &Arc<ConfigView>| view.translation.statuses == translation.statuses;
        let has_other_statuses = !self.view.get().as_ref().is_some_and(says);
        let news = ReloadNews {
            counts: installed || faults != faults_before,
            is_told: installed || !is_told || has_other_statuses || is_ours(&changed),
        };
        let reload = Reload { changed, faults: faults.len(), installed, took: begun.elapsed() };
        let translation = Arc::new(translation);
        // Who reads of the reload in the log finds it in the view.
        self.show(&translation);
        self.report(&reload, &news, &faults, &translation);
        reload
    }

    /// Waits until it is time to [`retry`](Self::retry); for ever if every socket is bound.
    pub(crate) async fn retry_due(&self) {
        self.backoff.due().await;
    }

    /// Tries again to bind the sockets that could not be bound.
    ///
    /// # Cancellation
    /// As that of [`reload`](Self::reload).
    pub(crate) async fn retry(&mut self) {
        self.workers.install(Arc::clone(&self.snapshot));
        let unbound = self.workers.settled(self.generation).await;
        if unbound == self.unbound {
            self.backoff.failed_again();
            return;
        }
        for key in self.unbound.keys().filter(|key| !unbound.contains_key(key)) {
            tracing::info!(port = %key, "the port is served now");
        }
        self.backoff.reset(!unbound.is_empty());
        self.unbound = unbound;
        self.refresh_conditions();
    }

    /// Brings conditions up to date with what changes without a reload.
    pub(crate) fn refresh_conditions(&mut self) {
        let mut translation = self.translation();
        self.correct_conditions(&mut translation);
        self.show(&Arc::new(translation));
    }

    /// Faults in the manifests, and in edits that were taken back.
    fn faults(&self) -> Vec<String> {
        self.source_faults
            .iter()
            .chain(self.rejected.values().flat_map(|rejected| &rejected.lines))
            .cloned()
            .collect()
    }

    fn show(&mut self, translation: &Arc<Translation>) {
        let ports = translation.ir.ports.len();
        let balancers = self.registry.balancers().map(|(id, one)| (id.clone(), one.clone()));
        let balancers: Vec<_> = balancers.collect();
        self.metrics.set_balancers(balancers.clone());
        self.metrics.set_unmet(translation.statuses.unmet());
        self.view.set(ConfigView {
            generation: self.generation,
            translation: Arc::clone(translation),
            problems: self.problems.clone(),
            faults: self.faults(),
            unserved: self.unserved.clone(),
            listening: ports == 0 || self.unbound.len() < ports,
            awaits_plugins_until: self.gate.until(self.registry.awaits_plugins()),
            balancers,
        });
    }

    /// Is ready no more, lets requests finish, then ends the workers. The limiters know what the last
    /// requests used, of which their store may have to be told.
    pub(crate) fn drain(self) -> Limiters {
        self.view.clear();
        self.workers.drain();
        self.registry.into_limiters()
    }

    /// Translates; an edit that the translator refuses is taken back: the last good version serves on.
    fn translate(&mut self, changed: &[ObjectRef]) -> Translation {
        self.rejected.retain(|object, _| !changed.contains(object));
        let translation = self.translation();
        let refused: Vec<_> = refusals(&translation)
            .into_iter()
            .filter(|refusal| refusal.cause == Cause::Spec && changed.contains(&refusal.object))
            .collect();
        let mut taken_back = false;
        for refusal in refused {
            let line = format!("{}: {}: {}", refusal.object, refusal.path, refusal.reason);
            let is_taken_back = self.source.reject(&refusal.object);
            let rejected = self.rejected.entry(refusal.object.clone()).or_default();
            rejected.lines.push(line);
            if is_taken_back {
                let verdict = translation.statuses.get(&refusal.object).and_then(verdict).cloned();
                rejected.verdict = verdict.map(|verdict| {
                    let message = format!("{}; {FORMER_SERVES}", verdict.message);
                    Condition { message, ..verdict }
                });
                taken_back = true;
            }
        }
        self.source.stands();
        if taken_back { self.translation() } else { translation }
    }

    /// What the objects mean. Where an edit was taken back, the verdict is on the edit, and the rest is true
    /// of the version that serves.
    fn translation(&mut self) -> Translation {
        let (identities, tenancy) = (self.registry.identities(), self.source.tenancy());
        let here = Environment { here: &self.here, identities: Some(identities), tenancy };
        let mut translation = translate_at(self.source.objects(), self.gates, self.registry.patterns(), here);
        for (object, rejected) in &self.rejected {
            if let Some(verdict) = &rejected.verdict {
                translation.statuses.judge(object, verdict);
            }
        }
        // An edit that cannot be read came after the one that was taken back.
        for (object, status) in self.source.unreadable() {
            translation.statuses.set(object, status);
        }
        translation
    }

    async fn install(&mut self, ir: &Ir) {
        self.generation += 1;
        // Starting a plugin runs its code, which nothing but the clock can end.
        if !ir.plugins.is_empty() {
            match self.registry.start_engine() {
                Ok(threads) => threads.into_iter().for_each(start_engine_threads),
                Err(error) => tracing::error!(error = %ErrorChain(&error), "plugins cannot run"),
            }
        }
        self.registry.start_plugins(ir, self.generation == 1).await;
        let compiled = compile(ir, &mut self.registry, self.generation);
        self.problems = compiled.problems;
        self.snapshot = compiled.snapshot;
        self.workers.install(Arc::clone(&self.snapshot));
        self.unbound = self.workers.settled(self.generation).await;
        self.backoff.reset(!self.unbound.is_empty());
    }

    /// Corrects the conditions of what is valid and not served all the same.
    fn correct_conditions(&self, translation: &mut Translation) {
        for problem in &self.problems {
            let condition = Condition::fails(problem.condition, problem.reason, problem.message.clone());
            match &problem.listener {
                Some(listener) => translation.statuses.set_listener_condition(listener, condition),
                None => translation.statuses.set_condition(&problem.object, &condition),
            }
        }
        let ports = std::mem::take(&mut translation.ir.ports);
        for port in &ports {
            let key = PortKey::from(port);
            let Some(unbound) = self.unbound.get(&key) else { continue };
            let (why, lacks_address) = (unbound.to_string(), unbound.lacks_address());
            for listener in &port.listeners {
                translation.statuses.set_unbound(&listener.id, &why, lacks_address);
            }
        }
        translation.ir.ports = ports;
        if self.session_keys.path().is_none() {
            self.tell_of_random_key(translation);
        }
        for (name, bytes) in self.registry.serving_plugins(&translation.ir) {
            let object = ObjectRef { kind: Feature::WasmPlugin.name(), name: name.clone() };
            translation.statuses.remark(&object, ConditionType::Programmed, &bytes);
        }
        if let Some(remark) = limits_remark(self.registry.limit_store(), self.source.is_replicated()) {
            for name in self.source.objects().token_policies.keys() {
                let object = ObjectRef { kind: Feature::TokenPolicy.name(), name: name.clone() };
                translation.statuses.remark(&object, ConditionType::Accepted, remark);
            }
        }
    }

    /// Remarks on everything that keeps sessions that they are those of this process alone.
    fn tell_of_random_key(&self, translation: &mut Translation) {
        let routes = translation.ir.routes.iter();
        let routes = routes.filter(|route| route.rules.iter().any(|rule| rule.session.is_some()));
        let routes =
            routes.map(|route| ObjectRef { kind: route.id.kind.as_str(), name: route.id.name.clone() });
        let policies = self.source.objects().backend_lb_policies.iter();
        let policies = policies.filter(|(_, policy)| policy.spec.session_persistence.is_some());
        let policies =
            policies.map(|(name, _)| ObjectRef { kind: Feature::BackendLBPolicy.name(), name: name.clone() });
        let objects: Vec<_> = routes.chain(policies).collect();
        for object in objects {
            translation.statuses.remark(&object, ConditionType::Accepted, RANDOM_KEY);
            translation.warnings.push(Warning { object, message: RANDOM_KEY.to_owned() });
        }
    }

    /// Says what happened: one line a reload that is news, and each fault and problem once.
    fn report(&mut self, reload: &Reload, news: &ReloadNews, faults: &[String], translation: &Translation) {
        self.metrics.reloaded(reload.took, news.counts, reload.faults);
        self.metrics.set_ignored(translation.ignored.iter().map(|object| object.feature));
        let mut said = Vec::new();
        said.extend(faults.iter().cloned());
        said.extend(self.problems.iter().map(ToString::to_string));
        said.extend(self.unbound.iter().map(|(key, reason)| format!("{key} is not served: {reason}")));
        said.extend(translation.ignored.iter().map(|ignored| {
            let gate = ignored.feature.name();
            format!("{} is ignored; --feature-gates {gate}=true serves it", ignored.object)
        }));
        said.extend(self.unserved.lines());
        let is_told = |refusal: &_| self.problems.iter().any(|problem| problem.is_told_by(refusal));
        let by_others =
            refusals(translation).into_iter().filter(|it| it.cause != Cause::Spec && !is_told(it));
        said.extend(by_others.map(|it| format!("{}: {}: {}", it.object, it.path, it.reason)));
        said.extend(
            translation.warnings.iter().map(|warning| format!("{}: {}", warning.object, warning.message)),
        );
        let passing = self.problems.iter().filter(|problem| problem.reason == Reason::Pending);
        log_once(&said, &self.said, &passing.map(ToString::to_string).collect::<Vec<_>>());
        self.said = said;
        news.say(reload, self.generation);
    }
}

/// What is to be known of sessions without a key file.
const RANDOM_KEY: &str = "sessions end with this process and are not shared with others, for their key is random: \
     --session-key-file keeps and shares them";
