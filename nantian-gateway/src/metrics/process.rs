//! The process, by the names that the client libraries of Prometheus agree on.

use std::{
    fmt, fs,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike as _,
};
use prometheus_client::encoding::DescriptorEncoder;

use super::family::{counter, gauge};

/// Tells what the system knows of the process; what it does not tell is left out.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, started: SystemTime) -> fmt::Result {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        #[expect(clippy::cast_precision_loss, reason = "exact for 285 years")]
        let seconds = (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6;
        counter(encoder, "process_cpu_seconds", "CPU time, of the user and of the system", seconds)?;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = bytes(&status, "VmRSS:") {
        gauge(encoder, "process_resident_memory_bytes", "Resident memory", bytes)?;
    }
    if let Some(bytes) = bytes(&status, "VmSize:") {
        gauge(encoder, "process_virtual_memory_bytes", "Virtual memory", bytes)?;
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        gauge(encoder, "process_open_fds", "Open files, sockets among them", open.count() as u64)?;
    }
    if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        gauge(encoder, "process_max_fds", "Files that may be open", limit)?;
    }
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    gauge(encoder, "process_start_time_seconds", "When it was started, in seconds since 1970", started)
}

/// A size of `/proc/self/status`, which is in units of 1024 bytes.
fn bytes(status: &str, field: &str) -> Option<u64> {
    let size = status.lines().find_map(|line| line.strip_prefix(field))?;
    size.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|size| size * 1024)
}
