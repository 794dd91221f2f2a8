//! WasmPlugin: modules and where they run.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use nantian_crd::{ConfigMapSource, FailurePolicy, SecretKeyRef, StreamFraming, WasmPlugin};

use super::{
    PolicySet, attach,
    outcome::{ModuleState, PolicyOutcome, References},
    pull_secret,
    secret::ReferredSecret,
    target::Target,
};
use crate::{
    gates::Feature,
    ir::{self, BackendId, CallGrants, ObjectName, Plugin, PluginSource, Sandbox, Transport},
    source::ObjectRef,
    translate::{
        cluster_state::{ClusterState, oldest_first},
        conditions::Reason,
        fault::{Fault, Path},
        gateway::Gateways,
        grants::GroupKind,
        service,
    },
};

/// Longest value of an environment variable that a Secret holds, in bytes: plugins may have many.
const MAX_VARIABLE: usize = 32 << 10;

/// Most bytes of the names and values of all variables together: each version of a plugin that runs has a
/// copy, and each of its instances another one.
const MAX_ENVIRONMENT: usize = 128 << 10;

/// Attaches every WasmPlugin to its targets: they run oldest first.
pub(super) fn read(cluster: &ClusterState<'_>, gateways: &Gateways<'_>, set: &mut PolicySet) {
    for (name, plugin) in oldest_first(&cluster.objects.wasm_plugins) {
        let object = ObjectRef { kind: Feature::WasmPlugin.name(), name: name.clone() };
        let targets = plugin.spec.target_refs.iter();
        let targets: Vec<_> =
            targets.map(|target| Target::resolve(cluster, gateways, &name.namespace, target)).collect();
        let id = attach::id(plugin.metadata.uid.as_ref(), name);
        let refused = match cluster.objects.unreadable.get(&object) {
            Some(reason) => Some(Fault::new(Reason::Invalid, reason.clone())),
            None => attach::validate(plugin).and_then(|()| refuse_the_unserved(plugin)).err(),
        };
        let (state, module) = match &refused {
            Some(fault) => (ModuleState::Unread(plugin.spec.failure_policy), Module::missing(fault)),
            None => module(cluster, name, plugin),
        };
        let outcomes = match &refused {
            Some(fault) => attach::refuse(targets, fault),
            None => attach::share(targets),
        };
        // A plugin that is refused stays in the way: what it guards must not open for a slip in its spec.
        for place in outcomes.iter().filter_map(|outcome| outcome.place.as_ref()) {
            set.places.entry(place.clone()).or_default().plugins.push(id.clone());
        }
        let problem =
            refused.as_ref().map(|fault| format!("WasmPlugin {name} is not accepted: {}", fault.message()));
        set.plugins.insert(id.clone(), to_ir(cluster, name, plugin, module));
        set.plugin_names.insert(name.clone(), (id, problem));
        let (kind, generation) = (GroupKind::WASM_PLUGIN, plugin.metadata.generation);
        let outcome = PolicyOutcome::new(object, kind, generation, refused, outcomes);
        set.records.push(PolicyOutcome { references: References::Module(state), ..outcome });
    }
}

/// A plugin as it runs, whatever refers to it.
pub(in crate::translate) fn named(cluster: &ClusterState<'_>, name: &ObjectName) -> Result<Plugin, Fault> {
    let plugin = cluster.objects.wasm_plugins.get(name).map(|plugin| &**plugin);
    let plugin = plugin.ok_or_else(|| Fault::new(Reason::Invalid, absent(name)))?;
    attach::validate(plugin).and_then(|()| refuse_the_unserved(plugin))?;
    // A module can come from elsewhere, a variable cannot.
    if let (_, Some(fault)) = environment(cluster, &name.namespace, plugin) {
        return Err(fault);
    }
    let (_, module) = module(cluster, name, plugin);
    Ok(to_ir(cluster, name, plugin, module))
}

/// There are no files that a guest could be given.
fn refuse_the_unserved(plugin: &WasmPlugin) -> Result<(), Fault> {
    if !plugin.spec.sandbox.allow_file_system {
        return Ok(());
    }
    let path = Path::SPEC.field("sandbox");
    Err(Fault::at(Reason::Unsupported, path.field("allowFileSystem"), "true is not served yet"))
}

/// The ports of every Service that a plugin may call, and to which Services it may refer: those of its
/// namespace, and those that a ReferenceGrant names.
fn upstreams(
    cluster: &ClusterState<'_>,
    name: &ObjectName,
    plugin: &WasmPlugin,
) -> (Vec<BackendId>, CallGrants) {
    if !plugin.spec.sandbox.allow_network {
        return (Vec::new(), CallGrants::default());
    }
    let from = (GroupKind::WASM_PLUGIN, name.namespace.as_str());
    let may_call = |to: &ObjectName| {
        cluster.grants.permit(from, (GroupKind::SERVICE, to.namespace.as_str(), to.name.as_str()))
    };
    let granted = cluster.grants.of(from, GroupKind::SERVICE);
    let owned = |(namespace, name): (&str, Option<&str>)| (namespace.to_owned(), name.map(str::to_owned));
    let services = cluster.objects.services.iter().filter(|(to, _)| may_call(to));
    let grants = CallGrants {
        services: services.clone().map(|(to, _)| to.clone()).collect(),
        granted: granted.map(owned).collect(),
    };
    let ports = services.flat_map(|(to, service)| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        ports.iter().filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            service::port(service, number, Transport::Tcp)?.protocol().ok()?;
            Some(BackendId { service: to.clone(), port: number, transport: Transport::Tcp })
        })
    });
    (ports.collect(), grants)
}

/// Whether a plugin says which bytes run: by a digest, or by having them.
fn is_pinned(module: &nantian_crd::WasmSource) -> bool {
    let url = module.url.as_deref().and_then(|url| url.strip_prefix("oci://"));
    let has_digest = url.is_some_and(|reference| reference.contains('@'));
    module.sha256.is_some() || has_digest || module.inline.is_some()
}

/// A plugin that a filter names and that does not exist: it fails every request.
pub(super) fn placeholder(name: &ObjectName) -> Plugin {
    Plugin {
        object: name.clone(),
        source: PluginSource::Missing(absent(name)),
        credentials: None,
        sha256: None,
        hooks: Vec::new(),
        config: String::new(),
        root_id: String::new(),
        vm_id: String::new(),
        vm_configuration: String::new(),
        environment: Vec::new(),
        stream_framing: StreamFraming::default(),
        allow_on_headers_stop_iteration: false,
        sandbox: sandbox(&nantian_crd::Sandbox::default()),
        upstreams: Vec::new(),
        grants: CallGrants::default(),
        is_pinned: true,
        failure_policy: FailurePolicy::FailClosed,
    }
}

/// What is wrong with a plugin that does not exist.
pub(super) fn absent(name: &ObjectName) -> String {
    format!("WasmPlugin {name} does not exist")
}

fn to_ir(cluster: &ClusterState<'_>, name: &ObjectName, plugin: &WasmPlugin, module: Module) -> Plugin {
    let spec = &plugin.spec;
    let vm = spec.vm_config.as_ref();
    let (upstreams, grants) = upstreams(cluster, name, plugin);
    Plugin {
        object: name.clone(),
        source: module.source,
        credentials: module.credentials,
        sha256: spec.wasm.sha256.as_ref().map(|digest| digest.to_ascii_lowercase()),
        hooks: spec.hooks.clone(),
        config: spec.config.clone().unwrap_or_default(),
        root_id: spec.plugin_name.clone().unwrap_or_default(),
        vm_id: vm.and_then(|vm| vm.vm_id.clone()).unwrap_or_default(),
        vm_configuration: vm.and_then(|vm| vm.configuration.clone()).unwrap_or_default(),
        environment: module.environment,
        stream_framing: spec.stream_framing,
        allow_on_headers_stop_iteration: spec.allow_on_headers_stop_iteration,
        sandbox: sandbox(&spec.sandbox),
        upstreams,
        grants,
        is_pinned: is_pinned(&spec.wasm),
        failure_policy: spec.failure_policy,
    }
}

fn sandbox(spec: &nantian_crd::Sandbox) -> Sandbox {
    Sandbox {
        max_memory_bytes: spec.max_memory_bytes,
        max_execution_time: Duration::from_millis(spec.max_execution_time_ms),
        max_pause: Duration::from_millis(spec.max_pause_ms),
        max_buffered_body_bytes: spec.max_buffered_body_bytes,
        allowed_capabilities: spec.allowed_capabilities.clone(),
        allow_network: spec.allow_network,
        allow_file_system: spec.allow_file_system,
    }
}

/// A module that is there, or why it is not, and its environment.
struct Module {
    source: PluginSource,
    credentials: Option<ir::Secret>,
    environment: Vec<(String, ir::Secret)>,
}

impl Module {
    fn missing(fault: &Fault) -> Self {
        let source = PluginSource::Missing(fault.message());
        Self { source, credentials: None, environment: Vec::new() }
    }
}

fn module(cluster: &ClusterState<'_>, name: &ObjectName, plugin: &WasmPlugin) -> (ModuleState, Module) {
    let (environment, fault) = environment(cluster, &name.namespace, plugin);
    let found = fault.map_or_else(|| find(cluster, name, plugin), Err);
    match found {
        Ok((source, credentials)) => (ModuleState::Present, Module { source, credentials, environment }),
        Err(fault) => {
            let module = Module { environment, ..Module::missing(&fault) };
            match fault.reason {
                Reason::ConfigMapNotFound | Reason::SecretNotFound => (ModuleState::Missing(fault), module),
                _ => (ModuleState::Broken(fault), module),
            }
        }
    }
}

/// Where the module comes from, and what its registry is told.
fn find(
    cluster: &ClusterState<'_>,
    name: &ObjectName,
    plugin: &WasmPlugin,
) -> Result<(PluginSource, Option<ir::Secret>), Fault> {
    let wasm = &plugin.spec.wasm;
    let path = Path::SPEC.field("wasm");
    match (&wasm.url, &wasm.config_map) {
        (Some(url), _) => {
            let credentials = wasm.image_pull_secret.as_deref().map(|secret| {
                let path = path.field("imagePullSecret");
                let secret = ReferredSecret::find(cluster, &name.namespace, secret, path)?;
                pull_secret::credentials(&secret, url)
            });
            Ok((PluginSource::Url(url.clone()), credentials.transpose()?))
        }
        (None, Some(config_map)) => {
            let path = path.field("configMap");
            Ok((PluginSource::Bytes(from_config_map(cluster, &name.namespace, config_map, &path)?), None))
        }
        (None, None) => {
            let text = wasm.inline.as_deref().unwrap_or_default();
            Ok((PluginSource::Bytes(decode(text, &path.field("inline"))?), None))
        }
    }
}

/// The environment of a plugin, and why a variable is not among it: the Secret that should hold it does not,
/// or there are too many.
fn environment(
    cluster: &ClusterState<'_>,
    namespace: &str,
    plugin: &WasmPlugin,
) -> (Vec<(String, ir::Secret)>, Option<Fault>) {
    let variables = plugin.spec.vm_config.iter().flat_map(|vm| &vm.env);
    let path = Path::SPEC.field("vmConfig");
    let path = path.field("env");
    let (mut fault, mut room) = (None, Some(MAX_ENVIRONMENT));
    let resolved = variables.enumerate().filter_map(|(index, variable)| {
        let value = match &variable.value_from {
            Some(source) => from_secret(cluster, namespace, &source.secret_key_ref, &path.index(index)),
            None => Ok(variable.value.clone().into_bytes()),
        };
        let value = value.map_err(|why| fault = Some(why)).ok()?;
        room = room.and_then(|room| room.checked_sub(variable.name.len() + value.len()));
        room?;
        Some((variable.name.clone(), ir::Secret(value)))
    });
    let resolved = resolved.collect();
    if room.is_none() {
        let problem = format_args!("the names and values are longer than {MAX_ENVIRONMENT} bytes together");
        fault = Some(Fault::at(Reason::Invalid, path, problem));
    }
    (resolved, fault)
}

/// The value of an environment variable: text that WASI can hand over.
fn from_secret(
    cluster: &ClusterState<'_>,
    namespace: &str,
    source: &SecretKeyRef,
    path: &Path<'_>,
) -> Result<Vec<u8>, Fault> {
    let path = path.field("valueFrom");
    let path = path.field("secretKeyRef");
    let secret = ReferredSecret::find(cluster, namespace, &source.name, path)?;
    let (_, value) = secret.entry(source.key.as_deref())?;
    if value.len() > MAX_VARIABLE || value.contains(&0) || std::str::from_utf8(value).is_err() {
        let problem = format_args!("the entry is no text of up to {MAX_VARIABLE} bytes");
        return Err(Fault::at(Reason::SecretNotFound, path, problem));
    }
    Ok(value.to_vec())
}

fn from_config_map(
    cluster: &ClusterState<'_>,
    namespace: &str,
    source: &ConfigMapSource,
    path: &Path<'_>,
) -> Result<Vec<u8>, Fault> {
    let name = ObjectName::new(namespace, source.name.as_str());
    let not_found = |problem: String| {
        Fault::at(Reason::ConfigMapNotFound, path, format_args!("ConfigMap {name} {problem}"))
    };
    let config_map = cluster.objects.config_maps.get(&name);
    let config_map = config_map.ok_or_else(|| not_found("does not exist".to_owned()).absent())?;
    let key = source.key.as_str();
    if let Some(bytes) = config_map.binary_data.as_ref().and_then(|data| data.get(key)) {
        return Ok(bytes.0.clone());
    }
    let text = config_map.data.as_ref().and_then(|data| data.get(key));
    decode(text.ok_or_else(|| not_found(format!("has no entry {key:?}")))?, path)
}

/// Decodes base64 that may be broken into lines.
fn decode(text: &str, path: &Path<'_>) -> Result<Vec<u8>, Fault> {
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64_STANDARD
        .decode(compact)
        .map_err(|_| Fault::at(Reason::ModuleInvalid, path, "the module is not base64"))
}
