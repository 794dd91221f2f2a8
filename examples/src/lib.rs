//! Small self-checking programs that use the crates from other proxies.
