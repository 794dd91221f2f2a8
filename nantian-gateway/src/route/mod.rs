//! Which rule a request belongs to.
//!
//! [`Router`] answers for one socket: first the listener with the most specific host name, then among its
//! routes the most specific host name, then the path, then what Gateway API says about ties.

mod candidate;
mod depths;
mod host;
mod index;
mod path;
mod query;
mod router;
mod server_names;

pub(crate) use self::server_names::{ServerNames, ServerNamesBuilder};
pub use self::{
    candidate::InvalidMatch,
    router::{RequestHead, Router, RouterBuilder, RuleIndex, TooMuchToRead},
};
