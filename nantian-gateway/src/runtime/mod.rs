//! Threads and tasks: the only place that spawns.

mod local;
mod spawn;
mod worker;
mod workers;

pub use self::{
    local::LocalSnapshot,
    spawn::{LocalExecutor, blocking, spawn, spawn_local},
    worker::{Worker, WorkerConfig},
    workers::{BindReport, Workers},
};
