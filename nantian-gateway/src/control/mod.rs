//! From changed objects to a new generation of the data path, and the truth about it.

mod backoff;
mod clock;
mod reload;
mod view;

pub use self::{
    reload::{Control, Reload},
    view::{ConfigView, View},
};
