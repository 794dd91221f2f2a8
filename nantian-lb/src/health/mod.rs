//! What is known about the well-being of an endpoint, and what follows from it.

pub(crate) mod select;
pub(crate) mod state;

mod check;
mod outlier;
mod probe;
mod run;
mod slow_start;

pub use self::check::{CheckConfig, Checks, Verdict};
pub use self::outlier::OutlierConfig;
pub use self::probe::{GrpcCheck, HttpCheck};
pub use self::run::run;
pub use self::slow_start::SlowStartConfig;
pub use self::state::Health;
