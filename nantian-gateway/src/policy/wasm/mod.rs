//! WasmPlugin.

mod config;
mod foreign;
mod grpc;
mod host;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    str::FromStr,
    sync::Arc,
};

use bytes::Bytes;
use http::{Extensions, Request, Response, StatusCode};
use nantian_lb::Balancer;
use nantian_wasm::{
    Allocation, BodyError, Cause, Digest, Engine, EngineConfig, EngineError, Host, Module, Plugin,
    PluginError, StreamInfo, WasmLayer,
};
use tower::{Layer, Service, ServiceBuilder, service_fn};

use crate::{
    body::{Body, BoxError},
    compile::LocalService,
    fetch::{Fetched, ModuleKey, Modules},
    ir::{self, BackendId, PluginSource, PolicyId},
    listen::RequestInfo,
    respond::{self, Chain},
    runtime::CallThread,
    translate::conditions::Reason,
    upstream::{ClientConfig, Destination},
};

use self::host::PluginHost;

/// The running plugins of the process.
#[derive(Debug, Default)]
pub struct WasmPlugins {
    engine: Option<Engine>,
    engine_config: EngineConfig,
    workers: Option<NonZeroUsize>,
    outside: Option<Outside>,
    /// Started when the first plugin may call out.
    calls: Option<CallThread>,
    running: BTreeMap<PolicyId, Running>,
}

/// How plugins reach what is outside of the process.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "made in one place, of all it has")]
pub struct Outside {
    /// Modules that are somewhere else.
    pub modules: Modules,
    /// Limits and roots of the client for call-outs.
    pub client: ClientConfig,
}

#[derive(Debug)]
struct Running {
    config: ir::Plugin,
    /// The last good one: an edit that cannot be started leaves it in place.
    plugin: Option<Plugin>,
    host: Option<Arc<PluginHost>>,
    /// Why the present configuration is not the one that runs.
    failed: Option<NotRunning>,
}

/// Why a plugin's configuration does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRunning {
    /// For programs.
    pub reason: Reason,
    /// For people: the field and what is wrong with it.
    pub message: String,
}

impl WasmPlugins {
    /// The engine, made on the first call. Its clock must run before a plugin is started.
    ///
    /// # Errors
    /// When the machine cannot run compiled WebAssembly.
    pub fn engine(&mut self) -> Result<&Engine, EngineError> {
        match &mut self.engine {
            Some(engine) => Ok(engine),
            none => {
                let engine = none.insert(Engine::with_config(&self.engine_config)?);
                if let Allocation::OnDemand { reason } = engine.allocation() {
                    tracing::warn!(
                        reason,
                        "no places can be reserved for plugins; they start and run slower"
                    );
                }
                Ok(engine)
            }
        }
    }

    /// Runs at most so many instances of all plugins together; to be said before the engine is made.
    pub fn limit_instances(&mut self, most: NonZeroU32) {
        self.engine_config.max_instances = most;
    }

    /// Keeps an instance of each plugin for each of so many workers, or for each core of the machine.
    pub fn serve(&mut self, workers: Option<NonZeroUsize>) {
        self.workers = workers;
    }

    /// Fetches modules that are somewhere else, and lets plugins call out of the process.
    pub fn reach_out(&mut self, outside: Outside) {
        self.outside = Some(outside);
    }

    /// Starts what is new or edited, tries again what has failed, and ends what is gone.
    ///
    /// Returns the plugins whose configuration does not run, and why. Compiles on the calling thread.
    pub fn update(
        &mut self,
        plugins: &BTreeMap<PolicyId, ir::Plugin>,
        upstream: impl Fn(&BackendId) -> Option<Balancer<Destination>>,
    ) -> Vec<(PolicyId, NotRunning)> {
        self.running.retain(|id, _| plugins.contains_key(id));
        if let Some(Outside { modules, .. }) = &self.outside {
            modules.retain(&plugins.values().filter_map(module_key).collect::<Vec<_>>());
        }
        for (id, config) in plugins {
            let mut known = self.running.remove(id);
            let host = known.as_ref().and_then(|running| running.host.clone());
            let host = host
                .filter(|host| host.may_call() == config.sandbox.allow_network)
                .or_else(|| self.host(config));
            if let Some(host) = &host {
                let upstreams = config.upstreams.iter();
                host.allow(upstreams.filter_map(|id| Some((id.clone(), upstream(id)?))).collect());
            }
            if let Some(running) = &mut known {
                // The host has been told.
                running.config.upstreams.clone_from(&config.upstreams);
            }
            let mut running = match known {
                Some(running) if running.failed.is_none() && running.config == *config => running,
                known => {
                    let last_good = known.and_then(|running| running.plugin);
                    let (plugin, failed) = match self.start(config, last_good.as_ref(), host.clone()) {
                        Ok(plugin) => (Some(plugin), None),
                        Err(reason) => (last_good, Some(reason)),
                    };
                    Running { config: config.clone(), plugin, host: None, failed }
                }
            };
            running.host = host;
            self.running.insert(id.clone(), running);
        }
        // Why a module is missing has been said already.
        let failed = self
            .running
            .iter()
            .filter(|(_, running)| !matches!(running.config.source, PluginSource::Missing(_)));
        failed.filter_map(|(id, running)| Some((id.clone(), running.failed.clone()?))).collect()
    }

    /// What a plugin may reach; `None` if it may call out and cannot.
    fn host(&mut self, config: &ir::Plugin) -> Option<Arc<PluginHost>> {
        let calls = if config.sandbox.allow_network { Some(self.calls()?) } else { None };
        Some(Arc::new(PluginHost::new(&config.object.namespace, calls)))
    }

    fn calls(&mut self) -> Option<CallThread> {
        if self.calls.is_none() {
            let started = CallThread::start("wasm-calls", self.outside.as_ref()?.client.clone());
            self.calls = started.inspect_err(|error| tracing::error!(%error, "plugins cannot call out")).ok();
        }
        self.calls.clone()
    }

    fn start(
        &self,
        config: &ir::Plugin,
        last_good: Option<&Plugin>,
        host: Option<Arc<PluginHost>>,
    ) -> Result<Plugin, NotRunning> {
        let bytes = self.bytes(config)?;
        let engine = self.engine.as_ref().ok_or_else(|| invalid("this machine cannot run WebAssembly"))?;
        let expected = config
            .sha256
            .as_deref()
            .map(Digest::from_str)
            .transpose()
            .map_err(|error| invalid(format!("spec.wasm.sha256: {error}")))?;
        let module = Module::compile(engine, &bytes, expected)
            .map_err(|error| invalid(format!("spec.wasm: {}", Chain(&error))))?;
        let mut settings = config::plugin(config);
        settings.instances = self.workers;
        let host: Option<Arc<dyn Host>> = host.map(|host| host as _);
        let plugin = match (last_good, host) {
            // Shared data, queues and metrics survive an edit.
            (Some(last_good), host) => last_good.successor(&module, settings, host),
            (None, Some(host)) => Plugin::with_host(&module, settings, host),
            (None, None) => Plugin::new(&module, settings),
        };
        plugin.map_err(|error| match error {
            PluginError::Full { .. } => NotRunning {
                reason: Reason::NoResources,
                message: format!("{error} (--max-plugin-instances)"),
            },
            error => invalid(format!("spec: {}", Chain(&error))),
        })
    }

    /// Every plugin that runs.
    pub fn running(&self) -> impl Iterator<Item = &Plugin> {
        self.running.values().filter_map(|running| running.plugin.as_ref())
    }

    fn bytes(&self, config: &ir::Plugin) -> Result<Bytes, NotRunning> {
        match &config.source {
            PluginSource::Bytes(bytes) => return Ok(Bytes::copy_from_slice(bytes)),
            PluginSource::Missing(reason) => return Err(invalid(reason.clone())),
            PluginSource::Url(_) => {}
        }
        let outside = self.outside.as_ref().zip(module_key(config));
        let (outside, key) = outside.ok_or_else(|| invalid("spec.wasm.url: nothing is fetched here"))?;
        match outside.modules.get(&key) {
            Fetched::Ready(bytes) => Ok(bytes),
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
    pub fn chain<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a PolicyId>,
        place: PluginPlace,
    ) -> Option<Plugins> {
        let mut plugins = Vec::new();
        for id in ids {
            match self.running.get(id) {
                Some(Running { plugin: Some(plugin), .. }) => plugins.push(plugin.clone()),
                Some(running) if running.config.failure_policy == ir::FailurePolicy::FailOpen => {}
                _ => return Some(Plugins::Missing),
            }
        }
        let wants_address = plugins.iter().any(Plugin::reads_properties_of_responses);
        (!plugins.is_empty()).then(|| {
            let place = PluginPlace { wants_address, ..place };
            Plugins::Run(WasmLayer::new(plugins).with_stream_info(move |known| place.tell(known)))
        })
    }
}

/// What is to be fetched for a plugin, if anything is.
fn module_key(config: &ir::Plugin) -> Option<ModuleKey> {
    let url = config.source.url()?.to_owned();
    Some(ModuleKey { url, credentials: config.credentials.clone() })
}

fn invalid(message: impl Into<String>) -> NotRunning {
    NotRunning { reason: Reason::ModuleInvalid, message: message.into() }
}

/// The plugins at one place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Plugins {
    /// They run in this order.
    Run(WasmLayer),
    /// One that fails closed cannot be had: nothing passes.
    Missing,
}

/// Where plugins run, as their guests are told.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "made in one place, of all it has")]
pub struct PluginPlace {
    /// The route as metrics and logs name it: `route_name`.
    pub route: Arc<str>,
    /// The backend, where there is no other one: `cluster_name`.
    pub backend: Option<Arc<str>>,
    /// Whether a guest can ask where the request went; found out when the plugins are.
    pub wants_address: bool,
}

impl<S> Layer<S> for Plugins
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: 'static,
{
    type Service = LocalService<Response<Body>, BoxError>;

    fn layer(&self, inner: S) -> Self::Service {
        match self {
            Self::Run(layer) => LocalService::new(
                ServiceBuilder::new()
                    .map_response(|response: Response<_>| response.map(Body::from))
                    .layer(layer.clone())
                    .map_request(|request: Request<_>| request.map(Body::from))
                    .service(inner),
            ),
            Self::Missing => LocalService::new(service_fn(|_: Request<Body>| {
                let answer =
                    respond::plain(StatusCode::SERVICE_UNAVAILABLE, "a plugin of this route is missing");
                std::future::ready(Ok(answer))
            })),
        }
    }
}

/// Whether a body breaks off because a plugin has closed its stream.
pub fn is_closed_by_plugin(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        respond::find(error),
        Some(BodyError::Failed(failure)) if failure.cause == Cause::Closed
    )
}

// === impl PluginPlace ===

impl PluginPlace {
    /// What the guests are told beside the headers.
    fn tell(&self, known: &mut Extensions) -> StreamInfo {
        let mut stream = StreamInfo::default();
        stream.route = Some(Arc::clone(&self.route));
        stream.cluster.clone_from(&self.backend);
        let Some(info) = known.get_mut::<RequestInfo>() else { return stream };
        // A trusted proxy tells the client's address, not its port.
        let port = if info.client == info.peer.ip() { info.peer.port() } else { 0 };
        stream.source = Some(SocketAddr::new(info.client, port));
        stream.destination = Some(info.local);
        stream.connection_id = Some(info.connection);
        stream.tls = info.tls;
        if let Some(session) = &info.session {
            stream.server_name.clone_from(&session.server_name);
            stream.tls_version.clone_from(&session.version);
            stream.mutual_tls = session.is_mutual;
        }
        if self.wants_address {
            stream.upstream = Some(info.upstream.get_or_insert_default().clone());
        }
        stream
    }
}
