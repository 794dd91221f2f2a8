//! From the IR to the configuration of a plugin.

use nantian_ai::Error;
use nantian_crd::Hook;
use nantian_wasm::{
    Allocation, Capabilities, Cause, Engine, EngineError, EngineThreads, FailurePolicy, Hooks, PluginConfig,
    Sandbox, StreamFraming,
};

use super::PluginResources;
use crate::{ir, tenancy::Tenancy};

/// An engine whose plugins hold bodies where AIServices do.
pub(super) fn engine(resources: &PluginResources) -> Result<(Engine, EngineThreads), EngineError> {
    let memory = resources.body_memory.clone();
    let mut builder = Engine::builder().max_memory(resources.max_memory).body_memory(move || {
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
    if resources.client.tenancy == Tenancy::Shared {
        builder = builder.max_memory_of_space(resources.max_memory / 2);
    }
    if let Some(most) = resources.max_instances {
        builder = builder.max_instances(most);
    }
    let (engine, threads) = builder.build()?;
    if let Allocation::OnDemand { reason } = engine.allocation() {
        tracing::warn!(reason, "no places can be reserved for plugins; they start and run slower");
    }
    Ok((engine, threads))
}

/// The plugin of an object as the sandbox takes it.
pub(crate) fn plugin(config: &ir::Plugin) -> PluginConfig {
    let environment = config.environment.iter();
    let environment = environment.map(|(name, ir::Secret(value))| (name, String::from_utf8_lossy(value)));
    let capabilities = config.sandbox.allowed_capabilities.as_ref().map(Capabilities::only);
    let stream_framing = match config.stream_framing {
        nantian_crd::StreamFraming::Frames => StreamFraming::Frames,
        nantian_crd::StreamFraming::Events => StreamFraming::Events,
    };
    let failure_policy = match config.failure_policy {
        nantian_crd::FailurePolicy::FailClosed => FailurePolicy::FailClosed,
        nantian_crd::FailurePolicy::FailOpen => FailurePolicy::FailOpen,
    };
    PluginConfig::new(config.object.to_string())
        .with_configuration(config.config.clone())
        .with_root_id(&config.root_id)
        .with_vm_id(&config.vm_id)
        .with_vm_configuration(config.vm_configuration.clone())
        .with_environment(environment)
        .with_hooks(hooks(&config.hooks))
        .with_capabilities(capabilities.unwrap_or_default())
        .with_stream_framing(stream_framing)
        .with_allow_on_headers_stop_iteration(config.allow_on_headers_stop_iteration)
        .with_sandbox(sandbox(&config.sandbox))
        .with_failure_policy(failure_policy)
}

fn sandbox(limits: &ir::Sandbox) -> Sandbox {
    let bytes = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    Sandbox::default()
        .with_max_memory(bytes(limits.max_memory_bytes))
        .with_max_execution_time(limits.max_execution_time)
        .with_max_pause(limits.max_pause)
        .with_max_buffered_body(bytes(limits.max_buffered_body_bytes))
        .with_allow_network(limits.allow_network)
        .with_allow_file_system(limits.allow_file_system)
}

/// None named means all.
fn hooks(named: &[Hook]) -> Hooks {
    if named.is_empty() {
        return Hooks::ALL;
    }
    Hooks::NONE
        .with_on_request(named.contains(&Hook::OnRequest))
        .with_on_response(named.contains(&Hook::OnResponse))
        .with_on_stream_chunk(named.contains(&Hook::OnStreamChunk))
}
