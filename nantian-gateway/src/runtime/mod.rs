//! Threads and tasks: the only place that spawns.

mod alone;
mod background;
mod calls;
mod local;
mod open_files;
mod spawn;
mod worker;
mod workers;

pub use self::{
    alone::Alone,
    background::Background,
    calls::CallThread,
    local::LocalSnapshot,
    open_files::raise_open_files,
    spawn::{LocalExecutor, blocking, spawn, spawn_local},
    worker::{Worker, WorkerConfig},
    workers::{BindReport, Workers},
};
