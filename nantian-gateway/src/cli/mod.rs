//! The commands.

mod judge;
mod validate;

pub use self::validate::validate;
