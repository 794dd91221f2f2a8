//! What an instance of a plugin may use.

use std::time::Duration;

use crate::error::PluginError;

/// One WebAssembly page.
const PAGE: usize = 64 * 1024;

/// What an instance may use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sandbox {
    /// Linear memory of one instance.
    ///
    /// Unit: bytes. Range: 64 KiB..=4 GiB. Default: 64 MiB. Source: `sandbox.maxMemoryBytes`.
    pub max_memory: usize,
    /// Time one callback may run, counted in calls of [`Engine::tick`](crate::Engine::tick) and rounded up to
    /// 1 ms. While its guest waits for the next slice, no time passes. All callbacks of a stream together
    /// have ten times as much, which comes back in twenty times the time that it was spent in; replies to its
    /// call-outs are counted among them. An instance may start for as long, but for a second at least and ten
    /// at most.
    ///
    /// Range: 1 ms..=60 s. Default: 100 ms. Source: `sandbox.maxExecutionTimeMs`.
    pub max_execution_time: Duration,
    /// Body bytes held back for one stream and direction while the guest asks to buffer. More of them end the
    /// stream under either failure policy: a request with 413. A guest may say that it holds less, not more.
    ///
    /// Unit: bytes. Range: 0..=1 GiB. Default: 1 MiB. Source: `sandbox.maxBufferedBodyBytes`.
    pub max_buffered_body: usize,
    /// Time a guest may hold a message of a stream before it must continue it; a call-out made for the stream
    /// extends it to the call-out's own time limit, and a second more in which the guest hears that it was
    /// reached.
    ///
    /// Range: 1 ms..=10 min. Default: 15 s. Source: `sandbox.maxPauseMs`.
    pub max_pause: Duration,
    /// Call-outs through the [`Host`](crate::host::Host).
    ///
    /// Range: false where there is no host. Default: false. Source: `sandbox.allowNetwork`.
    pub allow_network: bool,
    /// Files, which no plugin has.
    ///
    /// Range: false. Default: false. Source: `sandbox.allowFileSystem`.
    pub allow_file_system: bool,
}

// === impl Sandbox ===

impl Sandbox {
    /// Sets [`max_memory`](Self::max_memory).
    #[must_use]
    pub fn with_max_memory(mut self, bytes: usize) -> Self {
        self.max_memory = bytes;
        self
    }

    /// Sets [`max_execution_time`](Self::max_execution_time).
    #[must_use]
    pub fn with_max_execution_time(mut self, limit: Duration) -> Self {
        self.max_execution_time = limit;
        self
    }

    /// Sets [`max_buffered_body`](Self::max_buffered_body).
    #[must_use]
    pub fn with_max_buffered_body(mut self, bytes: usize) -> Self {
        self.max_buffered_body = bytes;
        self
    }

    /// Sets [`max_pause`](Self::max_pause).
    #[must_use]
    pub fn with_max_pause(mut self, limit: Duration) -> Self {
        self.max_pause = limit;
        self
    }

    /// Sets [`allow_network`](Self::allow_network).
    #[must_use]
    pub fn with_allow_network(mut self, allow: bool) -> Self {
        self.allow_network = allow;
        self
    }

    /// Sets [`allow_file_system`](Self::allow_file_system).
    #[must_use]
    pub fn with_allow_file_system(mut self, allow: bool) -> Self {
        self.allow_file_system = allow;
        self
    }

    /// Refuses what cannot be enforced.
    pub(crate) fn validate(&self, has_host: bool) -> Result<(), PluginError> {
        if self.allow_network && !has_host {
            return Err(PluginError::NoHost { field: "sandbox.allow_network" });
        }
        if self.allow_file_system {
            return Err(PluginError::Capability { field: "sandbox.allow_file_system" });
        }
        if !(PAGE..=PAGE << 16).contains(&self.max_memory) {
            return Err(PluginError::OutOfRange {
                field: "sandbox.max_memory",
                value: self.max_memory.to_string(),
                range: "64 KiB..=4 GiB",
            });
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&self.max_execution_time) {
            return Err(PluginError::OutOfRange {
                field: "sandbox.max_execution_time",
                value: format!("{:?}", self.max_execution_time),
                range: "1 ms..=60 s",
            });
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(600)).contains(&self.max_pause) {
            return Err(PluginError::OutOfRange {
                field: "sandbox.max_pause",
                value: format!("{:?}", self.max_pause),
                range: "1 ms..=10 min",
            });
        }
        if self.max_buffered_body > 1 << 30 {
            return Err(PluginError::OutOfRange {
                field: "sandbox.max_buffered_body",
                value: self.max_buffered_body.to_string(),
                range: "0..=1 GiB",
            });
        }
        Ok(())
    }

    /// The time limit of one callback in engine ticks, rounded up.
    pub(crate) fn ticks(&self) -> u64 {
        ticks(self.max_execution_time)
    }

    /// The time limit of instantiation, start and configuration together, in engine ticks: a second at least,
    /// and ten at most, since one plugin after the other is started.
    pub(crate) fn start_ticks(&self) -> u64 {
        self.ticks().clamp(1_000, 10_000)
    }

    /// The time a message may be held in engine ticks.
    pub(crate) fn pause_ticks(&self) -> u64 {
        ticks(self.max_pause)
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            max_memory: 64 << 20,
            max_execution_time: Duration::from_millis(100),
            max_buffered_body: 1 << 20,
            max_pause: Duration::from_secs(15),
            allow_network: false,
            allow_file_system: false,
        }
    }
}

/// Engine ticks of a duration, rounded up.
fn ticks(duration: Duration) -> u64 {
    let rest = u64::from(duration.subsec_micros().div_ceil(1000));
    duration.as_secs().saturating_mul(1000).saturating_add(rest)
}
