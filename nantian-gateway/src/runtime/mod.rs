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
