//! AIServices that stay from one snapshot to the next.

use std::{collections::BTreeMap, sync::Arc};

use super::{Problem, balanced_backend::security, model_stats::ModelStats};
use crate::{
    ir::{self, Ir, ObjectName},
    metrics::Metrics,
    pattern::Patterns,
    policy::{AiObserver, Lengths, OwnIdentities, Tokens, ai_target, service_info},
    telemetry::Telemetry,
    translate::conditions::Reason,
    upstream::{Destination, Roots, Security},
};

/// The AIServices, and what outlives edits of them.
#[derive(Debug)]
pub(super) struct AiServices {
    by_name: BTreeMap<ObjectName, AiService>,
    model_stats: ModelStats,
    metrics: Arc<Metrics>,
    /// Tells collectors of calls.
    telemetry: Telemetry,
    /// What is blacked out of what they are told.
    patterns: Patterns,
    /// What credentials are exchanged for.
    tokens: Tokens,
}

#[derive(Debug)]
struct AiService {
    config: ir::AiService,
    /// The last good one: an edit that makes no target leaves it in place.
    backend: Option<AiBackend>,
    fault: Option<String>,
}

/// An AIService that can be called.
#[derive(Debug, Clone)]
pub(crate) struct AiBackend {
    pub(crate) target: Arc<nantian_ai::Target>,
    pub(crate) destination: Destination,
    /// Who is told of its calls.
    pub(crate) observer: AiObserver,
}

// === impl AiServices ===

impl AiServices {
    /// None yet.
    pub(super) fn new(
        metrics: Arc<Metrics>,
        telemetry: Telemetry,
        patterns: Patterns,
        tokens: Tokens,
    ) -> Self {
        let (by_name, model_stats) = (BTreeMap::new(), ModelStats::default());
        Self { by_name, model_stats, metrics, telemetry, patterns, tokens }
    }

    /// Who the gateway itself is at the clouds.
    pub(super) fn identities(&self) -> &OwnIdentities {
        self.tokens.identities()
    }

    /// An AIService, unless it is faulty.
    pub(super) fn get(&self, name: &ObjectName) -> Option<&AiBackend> {
        self.by_name.get(name).and_then(|service| service.backend.as_ref())
    }

    /// Brings them up to date with `ir`; says which cannot serve as they are.
    pub(super) fn update(&mut self, ir: &Ir, roots: &Roots) -> Vec<Problem> {
        self.by_name.retain(|name, _| ir.ai_services.contains_key(name));
        self.model_stats.retain(|name| ir.ai_services.contains_key(name));
        self.telemetry.sweep();
        self.metrics.retain_ai_services(|name| ir.ai_services.keys().any(|known| known.to_string() == name));
        for (name, config) in &ir.ai_services {
            let last = self.by_name.remove(name);
            let service = match last {
                Some(known) if known.config == *config => known,
                last => self.service(name, config, last, roots),
            };
            self.by_name.insert(name.clone(), service);
        }
        let failed = self.by_name.iter().filter_map(|(name, service)| {
            let problem = Problem::new("AIService", name.clone(), Reason::Invalid, service.fault.clone()?);
            Some(problem.beside_last_good(service.backend.is_some()))
        });
        failed.collect()
    }

    /// An AIService that is new or edited.
    fn service(
        &mut self,
        name: &ObjectName,
        config: &ir::AiService,
        last: Option<AiService>,
        roots: &Roots,
    ) -> AiService {
        let is_as_secure = |last: &AiService| last.config.transport == config.transport;
        let last_good = last.filter(is_as_secure).and_then(|last| last.backend);
        // Connections are pooled by it.
        let security = match &last_good {
            Some(last) if !config.transport.is_plain() => last.destination.security.clone(),
            _ => security(&config.transport, roots),
        };
        let (backend, fault) = match ai_target(name, config, &mut self.tokens) {
            // Its BackendTLSPolicy tells what is wrong.
            _ if security == Security::Refused => (None, None),
            Ok((target, mut destination)) => {
                if security != Security::Plain {
                    destination.security = security;
                }
                let stats = self.model_stats.of(name, target.model());
                let target = Arc::new(target.with_calibration(stats.calibration));
                let observer = self.observer(name, &target, &config.collectors, stats.lengths);
                (Some(AiBackend { target, destination, observer }), None)
            }
            Err(error) => (last_good, Some(error.to_string())),
        };
        AiService { config: config.clone(), backend, fault }
    }

    /// Who is told of the calls of an AIService. A collector of its former configuration that stays is gone
    /// on with, and one that does not is told what is left.
    fn observer(
        &mut self,
        name: &ObjectName,
        target: &nantian_ai::Target,
        collectors: &[ir::Collector],
        lengths: Arc<Lengths>,
    ) -> AiObserver {
        let (service, metrics) = (service_info(name, target), self.metrics.ai_service(&name.to_string()));
        let exports = collectors.iter().filter_map(|collector| {
            let export = self.telemetry.export(&service, collector, metrics.exports(), &self.patterns);
            export.inspect_err(|error| tracing::error!(%name, %error, "a collector is told nothing")).ok()
        });
        let exports = exports.collect();
        AiObserver::new(service, metrics, lengths, exports)
    }
}
