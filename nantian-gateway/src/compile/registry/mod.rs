//! State that outlives a snapshot, keyed by the identity of what it belongs to.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use nantian_lb::{Balancer, session::SessionKeys};
use nantian_ratelimit::redis::RedisStore;
use nantian_wasm::{EngineError, EngineThreads};

use super::{
    Problem,
    ai_services::{AiBackend, AiServices},
    balanced_backend::BalancedBackend,
    identities::Identities,
    tls_ports::TlsPorts,
};
use crate::{
    filter::RetryBudget,
    ir::{self, BackendId, Ir, ObjectName, PolicyId, RouteId},
    listen::PortKey,
    metrics::Metrics,
    pattern::Patterns,
    policy::{
        Limiters, NotRunning, OwnIdentities, PluginNews, PluginResources, PolicyLimiter, Tokens, WasmPlugins,
        rate_limit_policy,
    },
    respond::ErrorChain,
    telemetry::Telemetry,
    upstream::{ClientConfig, Destination, Roots, UpstreamTls},
};

/// How long the first snapshot waits for its plugins: nobody is served before.
const START: Duration = Duration::from_secs(10);
/// How long another one waits for those that are new to it: most take effect with the edit that brings them,
/// and one that is slow to compile does not hold up what else changes.
const GRACE: Duration = Duration::from_millis(500);

/// State that outlives a snapshot.
#[derive(Debug)]
pub struct Registry {
    pub(super) metrics: Arc<Metrics>,
    pub(super) patterns: Patterns,
    balancers: BTreeMap<BackendId, BalancedBackend>,
    ai_services: AiServices,
    limiters: Limiters,
    plugins: WasmPlugins,
    pub(super) tls: TlsPorts,
    roots: Roots,
    identities: Identities,
    retries: HashMap<(RouteId, BackendId), Arc<RetryBudget>>,
    /// What the tokens of sessions are sealed with.
    pub(super) session_keys: SessionKeys,
}

/// What a registry has from outside of it.
pub(crate) struct Outside {
    /// Where limits are kept, if not in this process.
    pub(crate) store: Option<RedisStore>,
    /// The bits of an IPv6 address by which limits tell clients apart.
    pub(crate) client_ipv6_prefix: u8,
    /// What plugins run with.
    pub(crate) plugins: PluginResources,
    /// Tells collectors of the calls of AIServices.
    pub(crate) telemetry: Telemetry,
    /// What credentials of AIServices are exchanged for.
    pub(crate) tokens: Tokens,
    /// Trusted where a BackendTLSPolicy asks for the roots of the system.
    pub(crate) roots: Roots,
}

impl Registry {
    /// Nothing yet; the tokens of sessions are sealed with these keys.
    pub(crate) fn new(metrics: Arc<Metrics>, session_keys: SessionKeys, outside: Outside) -> Self {
        let Outside { store, client_ipv6_prefix, plugins, telemetry, tokens, roots } = outside;
        let patterns = Patterns::default();
        let ai_services = AiServices::new(Arc::clone(&metrics), telemetry, patterns.clone(), tokens);
        Self {
            limiters: Limiters::new(store, client_ipv6_prefix, Arc::clone(&metrics)),
            metrics,
            patterns,
            session_keys,
            balancers: BTreeMap::new(),
            ai_services,
            plugins: WasmPlugins::new(plugins),
            tls: TlsPorts::default(),
            roots,
            identities: Identities::default(),
            retries: HashMap::new(),
        }
    }

    /// One for tests and benches: limits in this process, one worker, and nobody who is trusted.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn alone(metrics: Arc<Metrics>, session_keys: SessionKeys) -> Result<Self, rustls::Error> {
        let client = ClientConfig::bare()?;
        let (telemetry, _) = Telemetry::new(client.clone());
        let tokens = Tokens::new(client.clone(), OwnIdentities::default());
        let plugins = PluginResources::bare(client);
        let (store, client_ipv6_prefix, roots) = (None, 64, Roots::none());
        let outside = Outside { store, client_ipv6_prefix, plugins, telemetry, tokens, roots };
        Ok(Self::new(metrics, session_keys, outside))
    }

    /// The regular expressions of the configuration.
    pub(crate) fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// Who the gateway itself is at the clouds.
    pub(crate) fn identities(&self) -> &OwnIdentities {
        self.ai_services.identities()
    }

    /// Where limits are kept, if not in this process.
    pub(crate) fn limit_store(&self) -> Option<&RedisStore> {
        self.limiters.store()
    }

    /// The limiters, for whoever needs nothing else any more.
    pub(crate) fn into_limiters(self) -> Limiters {
        self.limiters
    }

    /// Tells when a plugin has started since the last snapshot was compiled, or is to be tried again.
    pub(crate) fn plugin_news(&self) -> &PluginNews {
        self.plugins.news()
    }

    /// Lets the plugins of `ir` start, and waits for those that are new, for each no longer than the snapshot
    /// may wait.
    ///
    /// # Cancellation
    /// They go on starting.
    pub(crate) async fn start_plugins(&mut self, ir: &Ir, is_first: bool) {
        self.update_balancers(ir);
        self.update_plugins(ir);
        self.plugins.started_within(if is_first { START } else { GRACE }).await;
    }

    /// Whether a plugin is still to come that fails closed: its targets answer nobody meanwhile.
    pub(crate) fn awaits_plugins(&self) -> bool {
        self.plugins.are_awaited()
    }

    /// Makes the engine of the plugins, if there is none. Its threads must run before the first plugin is
    /// compiled in.
    ///
    /// # Errors
    /// When the machine cannot run compiled WebAssembly.
    pub(crate) fn start_engine(&mut self) -> Result<Option<EngineThreads>, EngineError> {
        self.plugins.start_engine()
    }

    /// Seals with other keys from the next snapshot on; whether they are others.
    pub(crate) fn set_session_keys(&mut self, keys: SessionKeys) -> bool {
        let changed = self.session_keys != keys;
        self.session_keys = keys;
        changed
    }

    /// Brings endpoints and balancing up to date with `ir`, for an edit that is about nothing else.
    pub(crate) fn update_balancers(&mut self, ir: &Ir) {
        self.balancers.retain(|id, _| ir.backends.contains_key(id));
        for (id, backend) in &ir.backends {
            let endpoints = ir.endpoints.get(id).map(Vec::as_slice).unwrap_or_default();
            match self.balancers.get_mut(id) {
                Some(known) => known.update(backend, endpoints, &self.roots),
                None => {
                    let balanced = BalancedBackend::new(backend, endpoints, &self.roots);
                    self.balancers.insert(id.clone(), balanced);
                }
            }
        }
        self.identities.retain(ir);
    }

    /// Forgets what was used of limits that do not exist any more.
    pub(crate) fn retain_limits(&mut self, ir: &Ir) {
        self.limiters.retain(|id| ir.token_policies.contains(id), |id| ir.rate_limits.contains_key(id));
    }

    pub(super) fn plugins(&self) -> &WasmPlugins {
        &self.plugins
    }

    /// The state of every balancer, for the admin page.
    pub(crate) fn balancers(&self) -> impl Iterator<Item = (&BackendId, &Balancer<Destination>)> {
        self.balancers.iter().map(|(id, backend)| (id, backend.balancer()))
    }

    /// Brings what is keyed by backend, service and plugin up to date with `ir`; says what cannot serve.
    pub(super) fn update(&mut self, ir: &Ir) -> Vec<Problem> {
        self.update_balancers(ir);
        let mut problems = self.ai_services.update(ir, &self.roots);
        for (id, why) in self.update_plugins(ir) {
            if let Some(plugin) = ir.plugins.get(&id) {
                let object = plugin.object.clone();
                let problem = Problem::new("WasmPlugin", object, why.reason, why.message);
                problems.push(problem.beside_last_good(self.plugins.is_running(&id)));
            }
        }
        self.metrics.set_plugins(self.plugins.running().cloned().collect());
        self.retain_limits(ir);
        let ports: Vec<PortKey> = ir.ports.iter().map(PortKey::from).collect();
        self.tls.retain(&ports);
        let routes: HashSet<_> = ir.routes.iter().map(|route| &route.id).collect();
        self.retries.retain(|(route, id), _| routes.contains(route) && ir.backends.contains_key(id));
        problems
    }

    /// The plugins of `ir` that run as it has them, and of which bytes.
    pub(crate) fn serving_plugins<'a>(
        &'a self,
        ir: &'a Ir,
    ) -> impl Iterator<Item = (&'a ObjectName, String)> {
        self.plugins.serving().filter_map(|(id, bytes)| Some((&ir.plugins.get(id)?.object, bytes)))
    }

    fn update_plugins(&mut self, ir: &Ir) -> Vec<(PolicyId, NotRunning)> {
        let Self { plugins, balancers, .. } = self;
        plugins.update(&ir.plugins, |id| balancers.get(id).and_then(BalancedBackend::usable))
    }

    /// The balancer of a backend, if something may be sent there; its endpoints and strategy change without a
    /// new snapshot.
    pub(super) fn balancer(&self, id: &BackendId) -> Option<Balancer<Destination>> {
        self.balancers.get(id).and_then(BalancedBackend::usable)
    }

    /// The endpoints of a backend, whatever its policy is: for bytes whose TLS is the client's.
    pub(super) fn endpoints(&self, id: &BackendId) -> Option<Balancer<Destination>> {
        self.balancers.get(id).map(|backend| backend.balancer().clone())
    }

    /// Whether a backend is reached by nothing but TLS of clients that is passed on.
    pub(super) fn is_passthrough(&self, id: &BackendId) -> bool {
        self.balancers.get(id).is_some_and(BalancedBackend::is_passthrough)
    }

    /// Gone when the backend is none any more: nobody brings its balancer up to date from then on.
    pub(super) fn registration(&self, id: &BackendId) -> Option<Weak<()>> {
        self.balancers.get(id).map(BalancedBackend::registration)
    }

    /// The retries of a route to a backend: what an edit of the route or a reload leaves of them.
    pub(super) fn retry_budget(&mut self, route: &RouteId, id: &BackendId) -> Arc<RetryBudget> {
        let budget = self.retries.entry((route.clone(), id.clone()));
        Arc::clone(budget.or_insert_with(|| Arc::new(RetryBudget::new(self.metrics.workers()))))
    }

    /// Gets a certificate ready to be presented to backends.
    ///
    /// # Errors
    /// What is wrong with it; what its Secret held before, if anything, is presented on.
    pub(super) fn identify(&mut self, certificate: &ir::Certificate) -> Result<(), String> {
        self.identities.identify(certificate)
    }

    /// TLS to a target that is presented the certificate of `secret`; `None` if it is spoken to in clear
    /// text, or there is no such certificate.
    pub(super) fn presenting(&mut self, secret: &ObjectName, target: &ir::Target) -> Option<UpstreamTls> {
        let tls = match target {
            ir::Target::Backend(id) => self.balancers.get(id)?.tls()?,
            ir::Target::AiService(name) => self.ai_services.get(name)?.destination.security.tls()?,
            _ => return None,
        };
        self.identities.presenting(secret, target, tls)
    }

    /// An AIService, unless it is faulty.
    pub(super) fn ai_service(&self, name: &ObjectName) -> Option<&AiBackend> {
        self.ai_services.get(name)
    }

    /// The limiter of a policy, its levels kept.
    ///
    /// A policy that cannot be held leaves the last one in place, and says why.
    pub(super) fn limiter(
        &mut self,
        id: &PolicyId,
        limit: &ir::RateLimit,
    ) -> (Option<PolicyLimiter>, Option<String>) {
        match rate_limit_policy(limit) {
            Ok(policy) => (Some(self.limiters.get(id, &limit.object, policy)), None),
            Err(error) => (self.limiters.last(id), Some(ErrorChain(&error).to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
