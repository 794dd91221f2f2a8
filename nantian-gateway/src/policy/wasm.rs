//! WasmPlugin.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use nantian_wasm::{
    Digest, Engine, FailurePolicy, Hooks, Module, Plugin, PluginConfig, StreamInfo, WasmLayer,
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
    plugin: Result<Plugin, String>,
}

impl WasmPlugins {
    /// Starts what is new or edited and ends what is gone; returns the plugins that cannot serve and why.
    ///
    /// Compiles on the calling thread.
    pub fn update(&mut self, plugins: &BTreeMap<PolicyId, ir::Plugin>) -> Vec<(PolicyId, String)> {
        self.running.retain(|id, running| plugins.get(id) == Some(&running.config));
        for (id, config) in plugins {
            if !self.running.contains_key(id) {
                let plugin = self.start(config);
                self.running.insert(id.clone(), Running { config: config.clone(), plugin });
            }
        }
        let failed = self.running.iter();
        failed
            .filter_map(|(id, running)| Some((id.clone(), running.plugin.as_ref().err()?.clone())))
            .collect()
    }

    /// The engine, once there has been a plugin: somebody must keep its clock.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// The plugins `ids`, in this order, or `None` if there are none.
    pub fn chain(&self, ids: &[PolicyId]) -> Option<Plugins> {
        let mut plugins = Vec::new();
        for running in ids.iter().filter_map(|id| self.running.get(id)) {
            match &running.plugin {
                Ok(plugin) => plugins.push(plugin.clone()),
                Err(_) if running.config.failure_policy == ir::FailurePolicy::FailOpen => {}
                Err(_) => return Some(Plugins::Missing),
            }
        }
        (!plugins.is_empty()).then(|| Plugins::Run(WasmLayer::new(plugins)))
    }

    fn start(&mut self, config: &ir::Plugin) -> Result<Plugin, String> {
        let bytes = match &config.source {
            PluginSource::Bytes(bytes) => bytes,
            PluginSource::Url(_) => {
                return Err("spec.wasm.url: modules are not fetched yet; use inline or configMap".to_owned());
            }
            PluginSource::Missing(reason) => return Err(reason.clone()),
        };
        let engine = match &self.engine {
            Some(engine) => engine.clone(),
            None => {
                let engine = Engine::new().map_err(|error| error.to_string())?;
                self.engine.insert(engine).clone()
            }
        };
        let expected = config
            .sha256
            .as_deref()
            .map(Digest::from_str)
            .transpose()
            .map_err(|error| format!("spec.wasm.sha256: {error}"))?;
        let module = Module::compile(&engine, bytes, expected)
            .map_err(|error| format!("spec.wasm: {}", Chain(&error)))?;
        Plugin::new(&module, plugin_config(config)).map_err(|error| format!("spec: {}", Chain(&error)))
    }
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
