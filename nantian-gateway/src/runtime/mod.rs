//! Threads and tasks: the only place that spawns.

mod calls;
mod job_thread;
mod local;
mod open_files;
mod spawn;
mod task_thread;
mod worker;
mod workers;

pub(crate) use self::{
    calls::{CallThread, CallThreads},
    job_thread::JobThread,
    local::LocalSnapshot,
    open_files::raise_open_files,
    spawn::{blocking, spawn, spawn_local},
    task_thread::TaskThread,
    worker::{Worker, WorkerConfig},
    workers::Workers,
};

/// Threads of a runtime that opens connections, each of which asks a resolver for one name at a time. Tokio's
/// 512 for every worker would be the process's memory when a resolver is slow; what waits for a thread is
/// given up with its connection.
const MAX_LOOKUPS: usize = 16;
