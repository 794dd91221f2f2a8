//! The `nantian-gateway` binary.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// What a request frees is what the next one on the same worker is given, while the caches still know it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    nantian_gateway::cli::main()
}
