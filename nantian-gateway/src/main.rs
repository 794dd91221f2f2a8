//! The `nantian-gateway` binary.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    nantian_gateway::cli::main()
}
