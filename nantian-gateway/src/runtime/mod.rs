//! Threads and tasks: the only place that spawns.

mod calls;
mod local;
mod spawn;
mod worker;
mod workers;

pub use self::{
    calls::CallThread,
    local::LocalSnapshot,
    spawn::{LocalExecutor, blocking, spawn, spawn_local},
    worker::{Worker, WorkerConfig},
    workers::{BindReport, Workers},
};
