//! `wasm check`.

use std::io::Write;

use nantian_wasm::{Inventory, Module, Plugin};
use tokio::time::Instant;

use super::{GuestLog, PluginOptions, engine, print};
use crate::respond::ErrorChain;

/// Writes what the module is made of and whether it starts; returns whether it does.
///
/// # Errors
/// When a file cannot be read, or the output not written.
pub(super) fn check(options: &PluginOptions, log: &GuestLog, out: &mut impl Write) -> anyhow::Result<bool> {
    let bytes = options.bytes()?;
    let inventory = match Inventory::of(&bytes) {
        Ok(inventory) => inventory,
        Err(error) => {
            writeln!(out, "refused    {}", ErrorChain(&error))?;
            return Ok(false);
        }
    };
    describe(options, &inventory, out)?;
    let engine = engine()?;
    let began = Instant::now();
    let module = match Module::compile(&engine, &bytes, None) {
        Ok(module) => module,
        Err(error) => {
            writeln!(out, "refused    {}", ErrorChain(&error))?;
            return Ok(false);
        }
    };
    writeln!(out, "compiled   in {:.1?}", began.elapsed())?;
    let began = Instant::now();
    let started = Plugin::new(&module, options.config()?);
    let took = began.elapsed();
    print::log(&log.take(), out)?;
    match started {
        Ok(plugin) => {
            let memory = plugin.status().memory;
            writeln!(
                out,
                "started    in {took:.1?}, with {memory} of {} bytes of memory",
                options.max_memory_bytes
            )?;
            Ok(true)
        }
        Err(error) => {
            writeln!(out, "refused    {}", ErrorChain(&error))?;
            Ok(false)
        }
    }
}

fn describe(options: &PluginOptions, inventory: &Inventory, out: &mut impl Write) -> anyhow::Result<()> {
    let abi = inventory.abi.map_or_else(|| "none known".to_owned(), |abi| abi.to_string());
    writeln!(out, "module     {}", options.plugin.display())?;
    writeln!(out, "sha256     {}", inventory.digest)?;
    writeln!(out, "abi        {abi}")?;
    print::list("callbacks", &inventory.callbacks, out)?;
    print::list("imports", &inventory.imports, out)?;
    print::budgets("limits", &inventory.sizes, out)?;
    if let Some(memory) = inventory.initial_memory {
        writeln!(
            out,
            "           {:<30} {memory} of {}",
            "bytes of memory at start", options.max_memory_bytes
        )?;
    }
    Ok(())
}
