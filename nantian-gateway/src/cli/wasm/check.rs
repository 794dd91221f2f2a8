//! `wasm check`.

use std::{collections::HashMap, io::Write};

use nantian_wasm::{Inventory, Module, Plugin};
use tokio::time::Instant;

use super::{GivenPlugin, GuestLog, PluginOptions, engine, print, replay::Replies};
use crate::respond::ErrorChain;

/// Writes what the module is made of and whether it starts; returns whether it does.
///
/// # Errors
/// When a file cannot be read, or the output not written.
pub(super) fn check(options: &PluginOptions, log: &GuestLog, out: &mut impl Write) -> anyhow::Result<bool> {
    let given = options.given()?;
    let max_memory = given.config.sandbox.max_memory;
    let inventory = match Inventory::of(&given.module) {
        Ok(inventory) => inventory,
        Err(error) => {
            writeln!(out, "refused    {}", ErrorChain(&error))?;
            return Ok(false);
        }
    };
    describe(&given, &inventory, out)?;
    let engine = engine()?;
    let began = Instant::now();
    let module = match Module::compile(&engine, &given.module, given.sha256) {
        Ok(module) => module,
        Err(error) => {
            writeln!(out, "refused    {}", ErrorChain(&error))?;
            return Ok(false);
        }
    };
    writeln!(out, "compiled   in {:.1?}", began.elapsed())?;
    let began = Instant::now();
    let started = Plugin::with_host(&module, given.config, Replies::new(HashMap::new()));
    let took = began.elapsed();
    print::log(&log.take(), out)?;
    match started {
        Ok(plugin) => {
            let memory = plugin.status().memory;
            writeln!(out, "started    in {took:.1?}, with {memory} of {max_memory} bytes of memory")?;
            Ok(true)
        }
        Err(error) => {
            writeln!(out, "refused    {}", ErrorChain(&error))?;
            Ok(false)
        }
    }
}

fn describe(given: &GivenPlugin, inventory: &Inventory, out: &mut impl Write) -> anyhow::Result<()> {
    let abi = inventory.abi.map_or_else(|| "none known".to_owned(), |abi| abi.to_string());
    writeln!(out, "module     {}", given.place)?;
    writeln!(out, "sha256     {}", inventory.digest)?;
    writeln!(out, "abi        {abi}")?;
    print::list("callbacks", &inventory.callbacks, out)?;
    print::list("imports", &inventory.imports, out)?;
    print::budgets("limits", &inventory.sizes, out)?;
    if let Some(memory) = inventory.initial_memory {
        let most = given.config.sandbox.max_memory;
        writeln!(out, "           {:<30} {memory} of {most}", "bytes of memory at start")?;
    }
    Ok(())
}
