//! From the IR to the configuration of a plugin.

use std::num::NonZeroU32;

use bytes::Bytes;
use nantian_ai::{BodyMemory, Error};
use nantian_wasm::{
    Allocation, Capabilities, Cause, Engine, EngineError, EngineThreads, FailurePolicy, Hooks, PluginConfig,
    StreamFraming,
};

use crate::ir;

/// An engine whose plugins hold bodies where AIServices do, if that is said.
pub(super) fn engine(
    max_instances: Option<NonZeroU32>,
    memory: Option<BodyMemory>,
) -> Result<(Engine, EngineThreads), EngineError> {
    let mut builder = Engine::builder();
    if let Some(most) = max_instances {
        builder = builder.max_instances(most);
    }
    if let Some(memory) = memory {
        builder = builder.body_memory(move || {
            let held = memory.begin();
            move |bytes: u64| {
                held.hold(bytes).map_err(|error| match error {
                    Error::BodyTooLarge { limit } => {
                        Cause::BodyTooLarge { limit: usize::try_from(limit).unwrap_or(usize::MAX) }
                    }
                    _ => Cause::NoMemory,
                })
            }
        });
    }
    let (engine, threads) = builder.build()?;
    if let Allocation::OnDemand { reason } = engine.allocation() {
        tracing::warn!(reason, "no places can be reserved for plugins; they start and run slower");
    }
    Ok((engine, threads))
}

/// The plugin of an object as the sandbox takes it.
pub(super) fn plugin(config: &ir::Plugin) -> PluginConfig {
    let mut plugin = PluginConfig::new(config.object.to_string());
    plugin.configuration = Bytes::from(config.config.clone());
    plugin.root_id.clone_from(&config.root_id);
    let environment = config.environment.iter();
    plugin.environment = environment
        .map(|(name, ir::Secret(value))| (name.clone(), String::from_utf8_lossy(value).into_owned()))
        .collect();
    plugin.hooks = hooks(&config.hooks);
    plugin.capabilities =
        config.sandbox.allowed_capabilities.as_ref().map(Capabilities::only).unwrap_or_default();
    plugin.stream_framing = match config.stream_framing {
        ir::StreamFraming::Frames => StreamFraming::Frames,
        ir::StreamFraming::Events => StreamFraming::Events,
    };
    plugin.sandbox.max_memory = usize::try_from(config.sandbox.max_memory_bytes).unwrap_or(usize::MAX);
    plugin.sandbox.max_execution_time = config.sandbox.max_execution_time;
    plugin.sandbox.max_pause = config.sandbox.max_pause;
    plugin.sandbox.max_buffered_body =
        usize::try_from(config.sandbox.max_buffered_body_bytes).unwrap_or(usize::MAX);
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
