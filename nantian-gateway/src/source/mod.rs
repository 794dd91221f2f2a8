//! Where objects come from.

mod objects;

pub use self::objects::{ByName, ObjectRef, Objects};
