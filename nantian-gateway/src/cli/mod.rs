//! The commands.

mod args;
mod demo;
mod judge;
mod run;
mod validate;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

pub use self::validate::validate;
use self::{
    args::{Cli, Command},
    demo::demo,
    run::run,
};

/// Reads the command line and does what it says.
///
/// # Errors
/// What ends the command, with its causes.
pub fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run(options) => run(&options).map(|()| ExitCode::SUCCESS),
        Command::Demo(options) => demo(&options).map(|()| ExitCode::SUCCESS),
        Command::Validate { paths } => {
            let clean = validate(&paths, &mut io::stdout().lock())?;
            Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Crds => {
            io::stdout().lock().write_all(nantian_crd::crds_yaml().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
