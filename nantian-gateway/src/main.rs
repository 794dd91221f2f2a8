//! The `nantian-gateway` binary.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request allocates a dozen small blocks and frees them on the same worker, which this allocator does
/// best.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    nantian_gateway::cli::main()
}
