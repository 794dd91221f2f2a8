//! Threads and tasks: the only place that spawns tasks. A few threads that run none are started where they
//! are needed: those of plugins and of logs.

mod busy_poll;
mod calls;
mod job_thread;
mod local;
mod memory;
mod names;
mod open_files;
mod spawn;
mod task_thread;
mod worker;
mod workers;

pub(crate) use self::{
    busy_poll::note_read,
    calls::{CallThread, CallThreads},
    job_thread::JobThread,
    local::LocalSnapshot,
    memory::memory,
    names::lookup,
    open_files::raise_open_files,
    spawn::{blocking, spawn, spawn_local},
    task_thread::TaskThread,
    worker::{Worker, WorkerConfig},
    workers::Workers,
};
