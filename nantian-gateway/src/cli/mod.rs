//! The commands.

mod validate;

pub use self::validate::validate;
