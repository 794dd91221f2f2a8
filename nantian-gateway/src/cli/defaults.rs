//! Options whose default depends on the memory of the process.

use super::args::Common;

/// The most client connections, however much memory there is, and where nobody knows how much.
const MOST_CONNECTIONS: u64 = 65_536;
/// The memory for each. With a request under way it holds two thirds of that.
const BYTES_FOR_CONNECTION: u64 = 64 * 1024;

impl Common {
    /// The most bytes of memory that plugins have together in a process that may have so many.
    pub(super) fn plugin_memory(&self, memory: Option<u64>) -> usize {
        let usual =
            memory.map_or(512 << 20, |memory| memory.saturating_sub(1 << 30).max(512 << 20).min(memory / 2));
        usize::try_from(self.max_plugin_memory_bytes.unwrap_or(usual)).unwrap_or(usize::MAX)
    }

    /// The most client connections of a process that may have so many bytes of memory.
    pub(super) fn connections(&self, memory: Option<u64>) -> usize {
        let usual = memory.map_or(MOST_CONNECTIONS, |memory| memory / BYTES_FOR_CONNECTION);
        let usual = usual.clamp(1, MOST_CONNECTIONS);
        let most = self.max_connections.map_or(usual, |most| most.get().into());
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn common(options: &[&str]) -> Common {
        let run = ["nantian-gateway", "run", "--manifests", "a"];
        let run = run.into_iter().chain(options.iter().copied());
        let Cli { command: Command::Run(run) } = Cli::parse_from(run) else { panic!("not run") };
        run.common
    }

    #[test]
    fn there_are_as_many_connections_as_there_is_memory_for() {
        let connections = |mebibytes: u64| common(&[]).connections(Some(mebibytes << 20));
        assert_eq!([0, 128, 2_048, 4_096, 65_536].map(connections), [1, 2_048, 32_768, 65_536, 65_536]);
        assert_eq!(common(&[]).connections(None), 65_536);
        assert_eq!(common(&["--max-connections", "100000"]).connections(Some(128 << 20)), 100_000);
    }

    #[test]
    fn plugins_have_half_of_the_memory_unless_all_else_needs_it_or_they_do() {
        let memory = |options: &[&str], bytes| common(options).plugin_memory(bytes);
        let mebibytes = |bytes: u64| memory(&[], Some(bytes << 20)) >> 20;
        let pods = [512, 1_024, 1_536, 1_792, 2_048, 65_536];
        assert_eq!(pods.map(mebibytes), [256, 512, 512, 768, 1_024, 32_768]);
        assert_eq!(memory(&[], None), 512 << 20);
        assert_eq!(memory(&["--max-plugin-memory-bytes", "4194304"], Some(64 << 30)), 4 << 20);
    }
}
