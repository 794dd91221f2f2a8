//! WasmPlugin.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use nantian_wasm::{
    Digest, Engine, EngineError, FailurePolicy, Hooks, Module, Plugin, PluginConfig, StreamInfo, WasmLayer,
};
use tower::{Layer, Service, ServiceBuilder, service_fn};

use crate::{
    body::{Body, BoxError},
    compile::LocalService,
    ir::{self, PluginSource, PolicyId},
    listen::RequestInfo,
    respond::{self, Chain},
};

/// The running plugins of the process.
#[derive(Debug, Default)]
pub struct WasmPlugins {
    engine: Option<Engine>,
    running: BTreeMap<PolicyId, Running>,
}

#[derive(Debug)]
struct Running {
    config: ir::Plugin,
    /// The last good one: an edit that cannot be started leaves it in place.
    plugin: Option<Plugin>,
    /// Why the present configuration is not the one that runs.
    failed: Option<String>,
}

impl WasmPlugins {
    /// The engine, made on the first call. Its clock must run before a plugin is started.
    ///
    /// # Errors
    /// When the machine cannot run compiled WebAssembly.
    pub fn engine(&mut self) -> Result<&Engine, EngineError> {
        match &mut self.engine {
            Some(engine) => Ok(engine),
            none => Ok(none.insert(Engine::new()?)),
        }
    }

    /// Starts what is new or edited, tries again what has failed, and ends what is gone.
    ///
    /// Returns the plugins whose configuration does not run, and why. Compiles on the calling thread.
    pub fn update(&mut self, plugins: &BTreeMap<PolicyId, ir::Plugin>) -> Vec<(PolicyId, String)> {
        self.running.retain(|id, _| plugins.contains_key(id));
        for (id, config) in plugins {
            let is_current = |running: &Running| running.config == *config && running.failed.is_none();
            if self.running.get(id).is_some_and(is_current) {
                continue;
            }
            let last_good = self.running.remove(id).and_then(|running| running.plugin);
            let (plugin, failed) = match start(self.engine.as_ref(), config) {
                Ok(plugin) => (Some(plugin), None),
                Err(reason) => (last_good, Some(reason)),
            };
            self.running.insert(id.clone(), Running { config: config.clone(), plugin, failed });
        }
        let failed = self.running.iter();
        failed.filter_map(|(id, running)| Some((id.clone(), running.failed.clone()?))).collect()
    }

    /// The plugins `ids`, in this order, or `None` if there are none.
    pub fn chain<'a>(&self, ids: impl IntoIterator<Item = &'a PolicyId>) -> Option<Plugins> {
        let mut plugins = Vec::new();
        for id in ids {
            match self.running.get(id) {
                Some(Running { plugin: Some(plugin), .. }) => plugins.push(plugin.clone()),
                Some(running) if running.config.failure_policy == ir::FailurePolicy::FailOpen => {}
                _ => return Some(Plugins::Missing),
            }
        }
        (!plugins.is_empty()).then(|| Plugins::Run(WasmLayer::new(plugins)))
    }
}

fn start(engine: Option<&Engine>, config: &ir::Plugin) -> Result<Plugin, String> {
    let bytes = match &config.source {
        PluginSource::Bytes(bytes) => bytes,
        PluginSource::Url(_) => {
            return Err("spec.wasm.url: modules are not fetched yet; use inline or configMap".to_owned());
        }
        PluginSource::Missing(reason) => return Err(reason.clone()),
    };
    let engine = engine.ok_or("this machine cannot run WebAssembly")?;
    let expected = config
        .sha256
        .as_deref()
        .map(Digest::from_str)
        .transpose()
        .map_err(|error| format!("spec.wasm.sha256: {error}"))?;
    let module =
        Module::compile(engine, bytes, expected).map_err(|error| format!("spec.wasm: {}", Chain(&error)))?;
    Plugin::new(&module, plugin_config(config)).map_err(|error| format!("spec: {}", Chain(&error)))
}

fn plugin_config(config: &ir::Plugin) -> PluginConfig {
    let mut plugin = PluginConfig::new(config.object.to_string());
    plugin.configuration = Bytes::from(config.config.clone());
    plugin.hooks = hooks(&config.hooks);
    plugin.sandbox.max_memory = usize::try_from(config.sandbox.max_memory_bytes).unwrap_or(usize::MAX);
    plugin.sandbox.max_execution_time = config.sandbox.max_execution_time;
    plugin.sandbox.allow_network = config.sandbox.allow_network;
    plugin.sandbox.allow_file_system = config.sandbox.allow_file_system;
    plugin.failure_policy = match config.failure_policy {
        ir::FailurePolicy::FailClosed => FailurePolicy::FailClosed,
        ir::FailurePolicy::FailOpen => FailurePolicy::FailOpen,
    };
    plugin
}

/// None named means all.
fn hooks(named: &[ir::Hook]) -> Hooks {
    if named.is_empty() {
        return Hooks::ALL;
    }
    let mut hooks = Hooks::NONE;
    hooks.on_request = named.contains(&ir::Hook::OnRequest);
    hooks.on_response = named.contains(&ir::Hook::OnResponse);
    hooks.on_stream_chunk = named.contains(&ir::Hook::OnStreamChunk);
    hooks
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
                    .map_request(with_stream_info)
                    .map_response(|response: Response<_>| response.map(Body::boxed))
                    .layer(layer.clone())
                    .map_request(|request: Request<_>| request.map(Body::boxed))
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

/// Tells the guest what the headers do not say.
fn with_stream_info(mut request: Request<Body>) -> Request<Body> {
    if let Some(info) = request.extensions().get::<RequestInfo>() {
        let mut stream = StreamInfo::default();
        // A trusted proxy tells the client's address, not its port.
        let port = if info.client == info.peer.ip() { info.peer.port() } else { 0 };
        stream.source = Some(SocketAddr::new(info.client, port));
        stream.tls = info.tls;
        request.extensions_mut().insert(stream);
    }
    request
}
