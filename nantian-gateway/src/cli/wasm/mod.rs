//! `nantian-gateway wasm check|run PLUGIN`: what becomes of a plugin here, before it is deployed.

mod check;
mod guest_log;
mod message;
mod options;
mod print;
mod replay;
mod run;

use std::{fs, io::Write, num::NonZeroUsize, path::Path, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use nantian_wasm::{Engine, PluginConfig, Sandbox};

use crate::control::start_engine_threads;

pub(super) use self::options::WasmCommand;
use self::{
    guest_log::GuestLog,
    options::{PluginOptions, RunOptions},
};

/// What is wrong with the plugin was written to the output; the program ends with 1.
pub(super) fn wasm(command: &WasmCommand, out: &mut impl Write) -> anyhow::Result<bool> {
    let log = GuestLog::default();
    log.clone().install()?;
    match command {
        WasmCommand::Check(options) => check::check(options, &log, out),
        WasmCommand::Run(options) => run::run(options, &log, out),
    }
}

/// An engine and its threads.
fn engine() -> anyhow::Result<Engine> {
    let (engine, threads) = Engine::new()?;
    start_engine_threads(threads);
    Ok(engine)
}

// === impl PluginOptions ===

impl PluginOptions {
    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        read(&self.plugin)
    }

    /// How the plugin is started: one instance, which sees everything in order.
    fn config(&self) -> anyhow::Result<PluginConfig> {
        let configuration = match (&self.config, &self.config_file) {
            (Some(text), _) => Bytes::from(text.clone()),
            (None, Some(path)) => Bytes::from(read(path)?),
            (None, None) => Bytes::new(),
        };
        let variables = self.env.iter().map(|variable| {
            let named = variable.split_once('=');
            named.with_context(|| format!("--env {variable}: no `=`"))
        });
        let environment = variables.collect::<anyhow::Result<Vec<_>>>()?;
        let sandbox = Sandbox::default()
            .with_max_memory(usize::try_from(self.max_memory_bytes)?)
            .with_max_execution_time(Duration::from_millis(self.max_execution_time_ms));
        let config = PluginConfig::new(self.name()).with_configuration(configuration);
        let config = config.with_root_id(&self.root_id).with_environment(environment).with_sandbox(sandbox);
        Ok(config.with_instances(NonZeroUsize::MIN))
    }

    fn name(&self) -> String {
        self.plugin.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests;
