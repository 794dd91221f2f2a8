//! `nantian-gateway wasm check|run PLUGIN`: what becomes of a plugin here, before it is deployed.

mod check;
mod given_plugin;
mod guest_log;
mod message;
mod options;
mod print;
mod replay;
mod run;

use std::{fs, io::Write, path::Path};

use anyhow::Context as _;
use nantian_wasm::Engine;

use crate::control::start_engine_threads;

pub(super) use self::options::WasmCommand;
use self::{
    given_plugin::GivenPlugin,
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

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests;
