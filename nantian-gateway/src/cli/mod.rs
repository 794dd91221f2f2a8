//! The commands.

#[cfg(feature = "kubernetes")]
mod addressing;
mod admin_addr;
mod args;
mod changes;
#[cfg(feature = "kubernetes")]
mod cluster;
mod defaults;
mod demo;
mod log;
mod log_filter;
mod offline_check;
mod ratelimit_store;
mod run;
mod store_files;
mod validate;
mod wasm;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use nantian_crd::NantianKind;

pub use self::validate::validate;
use self::{
    args::{Cli, Command},
    demo::demo,
    run::run,
    wasm::wasm,
};
use crate::source::Files;

/// Reads the command line and does what it says; what ends it early is one line on standard error.
pub fn main() -> ExitCode {
    match command(Cli::parse().command) {
        Ok(code) => code,
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            log::tell(format!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(options) => run(&options).map(|()| ExitCode::SUCCESS),
        Command::Demo(options) => demo(&options).map(|()| ExitCode::SUCCESS),
        Command::Validate { controller, paths } => {
            let files = Files::new(paths).answering_for(controller.controller_name);
            let clean = validate(files, &mut io::stdout().lock(), &mut io::stderr().lock())?;
            Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Wasm { command } => {
            let is_good = wasm(&command, &mut io::stdout().lock())?;
            Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Crds { kinds } => {
            let kinds = if kinds.is_empty() { NantianKind::ALL.to_vec() } else { kinds };
            let text: String = kinds.into_iter().map(nantian_crd::crd_yaml).collect();
            io::stdout().lock().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
