//! What a service answers.

use http::Response;

/// Responses, so that the type of their bodies can be named.
///
/// Sealed: [`Response`] alone is one.
pub trait Reply: sealed::Sealed {
    /// The body.
    type Body;
}

impl<T> Reply for Response<T> {
    type Body = T;
}

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for http::Response<T> {}
}
