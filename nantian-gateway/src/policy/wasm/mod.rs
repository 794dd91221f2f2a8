//! WasmPlugin.

mod config;
mod foreign;
mod grpc;
mod host;
mod layer;
mod managed_plugin;
mod place;
mod signature;
mod starter;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use nantian_ai::BodyMemory;
use nantian_crd::FailurePolicy;
use nantian_lb::Balancer;
use nantian_wasm::{Engine, EngineError, EngineThreads, Plugin, SharedSpace};
use tokio::{sync::Semaphore, time::sleep_until};

use crate::{
    fetch::{FetchConfig, Fetched, ModuleKey, Modules, SourceNetworks},
    ir::{self, BackendId, PluginSource, PolicyId},
    runtime::CallThreads,
    translate::conditions::Reason,
    upstream::{ClientConfig, Destination},
};

pub(crate) use self::config::plugin as plugin_config;
pub(crate) use self::foreign::call as call_foreign_function;
pub(crate) use self::layer::{Plugins, is_closed_by_plugin};
pub(crate) use self::place::PluginPlace;
pub(crate) use self::starter::PluginNews;
use self::{
    host::PluginHost,
    managed_plugin::{ManagedPlugin, StartState},
    starter::{PluginStarter, StartRequest},
};

/// The running plugins of the process.
#[derive(Debug)]
pub(crate) struct WasmPlugins {
    engine: Option<Engine>,
    resources: PluginResources,
    /// Started when the first plugin may call out.
    calls: Option<CallThreads>,
    starter: PluginStarter,
    running: BTreeMap<PolicyId, ManagedPlugin>,
    namespaces: BTreeMap<String, PluginNamespace>,
}

/// What the plugins of a namespace have together.
#[derive(Debug, Clone)]
struct PluginNamespace {
    /// What they share: no tenant reaches another's.
    space: SharedSpace,
    /// Whose module is compiled, or waits in the line of all: one at a time, so that no namespace waits for
    /// all plugins of another.
    turn: Arc<Semaphore>,
}

/// What plugins run with.
#[derive(Debug)]
pub(crate) struct PluginResources {
    /// Modules that are somewhere else.
    pub(crate) modules: Modules,
    /// Limits and roots of the client for call-outs.
    pub(crate) client: ClientConfig,
    /// Counts what all plugins hold of bodies.
    pub(crate) body_memory: BodyMemory,
    /// Each plugin has an instance for each of so many workers.
    pub(crate) workers: NonZeroUsize,
    /// The most instances of all plugins together; `None` is the engine's own default.
    pub(crate) max_instances: Option<NonZeroU32>,
    /// The most bytes of linear memory of all instances together.
    pub(crate) max_memory: usize,
}

/// Why a plugin's configuration does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotRunning {
    /// For programs.
    pub(crate) reason: Reason,
    /// For people: the field and what is wrong with it.
    pub(crate) message: String,
}

impl PluginResources {
    /// Those of tests and benches.
    pub(crate) fn bare(client: ClientConfig) -> Self {
        let (networks, tls) = (SourceNetworks::default(), Arc::clone(&client.tls));
        Self {
            modules: Modules::new(FetchConfig { networks, tenancy: client.tenancy, tls }),
            client,
            body_memory: BodyMemory::new(1 << 20),
            workers: NonZeroUsize::MIN,
            max_instances: None,
            max_memory: usize::MAX,
        }
    }
}

impl WasmPlugins {
    /// None yet.
    pub(crate) fn new(resources: PluginResources) -> Self {
        Self {
            engine: None,
            resources,
            calls: None,
            starter: PluginStarter::default(),
            running: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        }
    }

    /// Makes the engine, if there is none. Its threads must run before a plugin is started.
    ///
    /// # Errors
    /// When the machine cannot run compiled WebAssembly.
    pub(crate) fn start_engine(&mut self) -> Result<Option<EngineThreads>, EngineError> {
        if self.engine.is_some() {
            return Ok(None);
        }
        let (engine, threads) = config::engine(&self.resources)?;
        self.engine = Some(engine);
        Ok(Some(threads))
    }

    /// Tells when to [`update`](Self::update) again.
    pub(crate) fn news(&self) -> &PluginNews {
        self.starter.news()
    }

    /// Lets what is new or edited be started, tries again what has failed and may do better, and ends what is
    /// gone.
    ///
    /// Returns the plugins whose configuration does not run, and why: also because they are being started,
    /// which is done elsewhere and told by [`news`](Self::news).
    pub(crate) fn update(
        &mut self,
        plugins: &BTreeMap<PolicyId, ir::Plugin>,
        upstream: impl Fn(&BackendId) -> Option<Balancer<Destination>>,
    ) -> Vec<(PolicyId, NotRunning)> {
        self.running.retain(|id, _| plugins.contains_key(id));
        let namespaces: BTreeSet<_> = plugins.values().map(|plugin| &plugin.object.namespace).collect();
        // What streams still have of its plugins counts for those that come after them.
        self.namespaces.retain(|name, known| namespaces.contains(name) || known.space.is_in_use());
        for (id, config) in plugins {
            let mut known = self.running.remove(id);
            // That of the last good one too: what an edit forbids is forbidden whether it starts or not.
            let host = match &known {
                Some(running) => Arc::clone(&running.host),
                None => Arc::new(PluginHost::new(&config.object.namespace)),
            };
            let calls = if config.sandbox.allow_network { self.calls() } else { None };
            let upstreams = config.upstreams.iter();
            let upstreams = upstreams.filter_map(|id| Some((id.clone(), upstream(id)?))).collect();
            host.allow(calls, upstreams, config.grants.clone());
            if let Some(running) = &mut known {
                running.take_over(config);
            }
            let mut running = match known {
                Some(running) if running.config == *config => running,
                known => ManagedPlugin::new(config, host, known),
            };
            running.take_outcome();
            if running.is_to_start() {
                self.start(&mut running);
            }
            self.running.insert(id.clone(), running);
        }
        // Who has its module needs the bytes no more.
        let waiting = self.running.values().filter(|running| matches!(running.state, StartState::Waits(_)));
        let wanted: Vec<_> = waiting.filter_map(|running| module_key(&running.config)).collect();
        self.resources.modules.retain(&wanted);
        self.starter.news().remind_at(self.running.values().filter_map(ManagedPlugin::due).min());
        // Why a module is missing has been said already.
        let failed = self
            .running
            .iter()
            .filter(|(_, running)| !matches!(running.config.source, PluginSource::Missing(_)));
        failed.filter_map(|(id, running)| Some((id.clone(), running.fault()?))).collect()
    }

    /// Whether a version of the plugin runs, be it the present one or the last good one.
    pub(crate) fn is_running(&self, id: &PolicyId) -> bool {
        self.running.get(id).is_some_and(|running| running.plugin.is_some())
    }

    /// The plugins whose present configuration runs, and of which bytes.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (&PolicyId, String)> {
        self.running.iter().filter_map(|(id, running)| Some((id, running.serving()?)))
    }

    /// Waits until every plugin that is new has started, for each no longer than this since it was let.
    ///
    /// # Cancellation
    /// They go on starting.
    pub(crate) async fn started_within(&self, patience: Duration) {
        let news = self.starter.news();
        while let Some(until) = self.running.values().filter_map(|running| running.awaited(patience)).min() {
            tokio::select! {
                () = news.arrived() => {}
                () = sleep_until(until) => {}
            }
        }
        // Whoever waited here has heard.
        let _ = news.arrived().now_or_never();
    }

    /// Whether one is still to come without which its targets serve nobody.
    pub(crate) fn are_awaited(&self) -> bool {
        let fails_closed =
            |running: &&ManagedPlugin| running.config.failure_policy == FailurePolicy::FailClosed;
        self.running.values().filter(fails_closed).any(ManagedPlugin::is_to_come)
    }

    /// Who makes call-outs, if anybody can.
    fn calls(&mut self) -> Option<CallThreads> {
        if self.calls.is_none() {
            let PluginResources { workers, client, .. } = &self.resources;
            let count = NonZeroUsize::new(workers.get() / 2).unwrap_or(NonZeroUsize::MIN);
            let started = CallThreads::start("wasm-calls", count, client);
            self.calls = started.inspect_err(|error| tracing::error!(%error, "plugins cannot call out")).ok();
        }
        self.calls.clone()
    }

    /// Lets a plugin be started, if its module is there.
    fn start(&mut self, running: &mut ManagedPlugin) {
        // One that is tried again fails as before until it is known to do better.
        let told = running.retry.and_then(|_| running.fault());
        let known = running.module.clone();
        let key = module_key(&running.config);
        let is_known = known.as_ref().zip(key.as_ref()).is_some_and(|(known, key)| known.is_what(key));
        let fetched = if is_known { Ok(None) } else { self.fetched(&running.config, key.as_ref()) };
        let started = fetched.and_then(|fetched| {
            let engine = self.engine.clone();
            let namespace = self.namespaces.entry(running.config.object.namespace.clone()).or_default();
            let PluginNamespace { space, turn } = namespace.clone();
            let wanted = StartRequest {
                engine: engine.ok_or_else(|| invalid("this machine cannot run WebAssembly"))?,
                config: running.config.clone(),
                fetched,
                known,
                key,
                last_good: running.plugin.clone(),
                host: running.reachable(),
                space,
                turn,
                instances: self.resources.workers,
            };
            self.starter.begin(wanted).map_err(|error| NotRunning {
                reason: Reason::NoResources,
                message: format!("no thread to start it on: {error}"),
            })
        });
        running.state = match started {
            Ok(start) => StartState::Starts(start, told.unwrap_or_else(managed_plugin::starting)),
            Err(why) if why.reason == Reason::Pending => StartState::Waits(told.unwrap_or(why)),
            Err(why) => StartState::Waits(why),
        };
    }

    /// Every plugin that runs.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Plugin> {
        self.running.values().filter_map(|running| running.plugin.as_ref())
    }

    /// What was fetched for a plugin; nothing for one that brings its module.
    fn fetched(&self, config: &ir::Plugin, key: Option<&ModuleKey>) -> Result<Option<Bytes>, NotRunning> {
        if let PluginSource::Missing(reason) = &config.source {
            return Err(invalid(reason.clone()));
        }
        let Some(key) = key else { return Ok(None) };
        match self.resources.modules.get(key) {
            Fetched::Ready(bytes) => Ok(Some(bytes)),
            Fetched::Pending => Err(NotRunning {
                reason: Reason::Pending,
                message: "spec.wasm.url: the module is being fetched".to_owned(),
            }),
            Fetched::Failed(error) => {
                Err(NotRunning { reason: Reason::FetchFailed, message: format!("spec.wasm.url: {error}") })
            }
        }
    }

    /// The plugins `ids`, in this order, or `None` if there are none.
    pub(crate) fn chain<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a PolicyId>,
        place: PluginPlace,
    ) -> Option<Plugins> {
        let mut plugins = Vec::new();
        for id in ids {
            match self.running.get(id) {
                Some(ManagedPlugin { plugin: Some(plugin), .. }) => plugins.push(plugin.clone()),
                Some(running) if running.config.failure_policy == FailurePolicy::FailOpen => {}
                _ => return Some(Plugins::Missing),
            }
        }
        (!plugins.is_empty()).then(|| Plugins::run(plugins, place))
    }
}

// === impl PluginNamespace ===

impl Default for PluginNamespace {
    fn default() -> Self {
        Self { space: SharedSpace::default(), turn: Arc::new(Semaphore::new(1)) }
    }
}

/// What is to be fetched for a plugin, if anything is.
fn module_key(config: &ir::Plugin) -> Option<ModuleKey> {
    let url = config.source.url()?.to_owned();
    let namespace = config.object.namespace.clone();
    Some(ModuleKey { namespace, url, credentials: config.credentials.clone(), sha256: config.sha256.clone() })
}

fn invalid(message: impl Into<String>) -> NotRunning {
    NotRunning { reason: Reason::ModuleInvalid, message: message.into() }
}

#[cfg(test)]
mod tests;
