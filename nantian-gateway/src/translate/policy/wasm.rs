//! WasmPlugin: modules and where they run.

use base64::{Engine, prelude::BASE64_STANDARD};
use nantian_crd::{ConfigMapSource, FailurePolicy, Hook, WasmPlugin};

use super::{
    PolicySet, attach,
    record::{ModuleState, Record},
    target::Target,
};
use crate::{
    gates::Feature,
    ir::{self, ObjectName, Plugin, PluginSource, Sandbox},
    source::ObjectRef,
    translate::{
        conditions::Reason,
        fault::{Fault, Path},
        gateway::Gateways,
        grants::GroupKind,
        world::{World, oldest_first},
    },
};

/// Attaches every WasmPlugin to its targets: they run oldest first.
pub(super) fn read(world: &World<'_>, gateways: &Gateways<'_>, set: &mut PolicySet) {
    for (name, plugin) in oldest_first(&world.objects.wasm_plugins) {
        let object = ObjectRef { kind: Feature::WasmPlugin.name(), name: name.clone() };
        let targets = plugin.spec.target_refs.iter();
        let targets: Vec<_> =
            targets.map(|target| Target::resolve(world, gateways, &name.namespace, target)).collect();
        let id = attach::id(plugin.metadata.uid.as_ref(), name);
        let refused = attach::validate(plugin).err();
        let source = match &refused {
            Some(fault) => Err(fault.clone()),
            None => source(world, name, plugin),
        };
        let outcomes = match &refused {
            Some(fault) => attach::refuse(targets, fault),
            None => attach::share(targets),
        };
        for place in attach::won(&outcomes) {
            set.places.entry(place.clone()).or_default().plugins.push(id.clone());
        }
        let problem =
            refused.as_ref().map(|fault| format!("WasmPlugin {name} is not accepted: {}", fault.message));
        let module = match (&refused, &source) {
            // A plugin that breaks the rules of its kind may have no source to speak of.
            (Some(_), _) | (None, Ok(PluginSource::Bytes(_))) => ModuleState::Present,
            (None, Ok(_)) => ModuleState::Remote,
            (None, Err(fault)) => ModuleState::Missing(fault.clone()),
        };
        let source = source.unwrap_or_else(|fault| PluginSource::Missing(fault.message));
        set.plugins.insert(id.clone(), to_ir(name, plugin, source));
        set.plugin_names.insert(name.clone(), (id, problem));
        let own = GroupKind::WASM_PLUGIN.refer(&name.namespace, &name.name);
        let generation = plugin.metadata.generation;
        set.records.push(Record { object, own, generation, refused, outcomes, module: Some(module) });
    }
}

/// A plugin that a filter names and that does not exist: it fails every request.
pub(super) fn stand_in(name: &ObjectName) -> Plugin {
    Plugin {
        object: name.clone(),
        source: PluginSource::Missing(absent(name)),
        sha256: None,
        hooks: Vec::new(),
        config: String::new(),
        sandbox: sandbox(&nantian_crd::Sandbox::default()),
        failure_policy: ir::FailurePolicy::FailClosed,
    }
}

/// What is wrong with a plugin that does not exist.
pub(super) fn absent(name: &ObjectName) -> String {
    format!("WasmPlugin {name} does not exist")
}

fn to_ir(name: &ObjectName, plugin: &WasmPlugin, source: PluginSource) -> Plugin {
    let spec = &plugin.spec;
    Plugin {
        object: name.clone(),
        source,
        sha256: spec.wasm.sha256.as_ref().map(|digest| digest.to_ascii_lowercase()),
        hooks: spec.hooks.iter().copied().map(hook).collect(),
        config: spec.config.clone().unwrap_or_default(),
        sandbox: sandbox(&spec.sandbox),
        failure_policy: match spec.failure_policy {
            FailurePolicy::FailClosed => ir::FailurePolicy::FailClosed,
            FailurePolicy::FailOpen => ir::FailurePolicy::FailOpen,
        },
    }
}

fn hook(hook: Hook) -> ir::Hook {
    match hook {
        Hook::OnRequest => ir::Hook::OnRequest,
        Hook::OnResponse => ir::Hook::OnResponse,
        Hook::OnStreamChunk => ir::Hook::OnStreamChunk,
    }
}

fn sandbox(spec: &nantian_crd::Sandbox) -> Sandbox {
    Sandbox {
        max_memory_bytes: spec.max_memory_bytes,
        max_execution_time: std::time::Duration::from_millis(spec.max_execution_time_ms),
        allow_network: spec.allow_network,
        allow_file_system: spec.allow_file_system,
    }
}

fn source(world: &World<'_>, name: &ObjectName, plugin: &WasmPlugin) -> Result<PluginSource, Fault> {
    let wasm = &plugin.spec.wasm;
    let path = Path::SPEC.field("wasm");
    if let Some(url) = &wasm.url {
        return Ok(PluginSource::Url(url.clone()));
    }
    if let Some(config_map) = &wasm.config_map {
        let bytes = from_config_map(world, &name.namespace, config_map).map_err(|problem| {
            Fault::new(Reason::ConfigMapNotFound, format!("{}: {problem}", path.field("configMap")))
        })?;
        return Ok(PluginSource::Bytes(bytes));
    }
    let inline = wasm.inline.as_deref().unwrap_or_default();
    match decode(inline) {
        Ok(bytes) => Ok(PluginSource::Bytes(bytes)),
        Err(error) => Err(Fault::new(Reason::Invalid, format!("{}: {error}", path.field("inline")))),
    }
}

fn from_config_map(world: &World<'_>, namespace: &str, source: &ConfigMapSource) -> Result<Vec<u8>, String> {
    let name = ObjectName::new(namespace, source.name.as_str());
    let Some(config_map) = world.objects.config_maps.get(&name) else {
        return Err(format!("ConfigMap {name} does not exist"));
    };
    let key = source.key.as_str();
    if let Some(bytes) = config_map.binary_data.as_ref().and_then(|data| data.get(key)) {
        return Ok(bytes.0.clone());
    }
    match config_map.data.as_ref().and_then(|data| data.get(key)) {
        Some(text) => decode(text).map_err(|error| format!("entry {key:?} of ConfigMap {name}: {error}")),
        None => Err(format!("ConfigMap {name} has no entry {key:?}")),
    }
}

/// Decodes base64 that may be broken into lines.
fn decode(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(compact)
}
