//! What goes wrong on the way to an endpoint.

use std::{io, time::Duration};

use http::Request;

use super::Destination;
use crate::{
    body::{Body, BoxError},
    socket::{EMFILE, ENFILE},
};

/// A request that an endpoint did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// No connection. Nothing was sent. Maps to 502.
    #[error("no connection to {destination}")]
    Connect {
        /// Where to.
        destination: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No connection in time. Nothing was sent. Maps to 504.
    #[error("no connection to {destination} within {limit:?}")]
    ConnectTimeout {
        /// Where to.
        destination: String,
        /// The limit.
        limit: Duration,
    },
    /// No connection, because nothing says how the backend is verified. Nothing was sent. Maps to 500.
    #[error("nothing says who may answer for {destination}, and TLS is asked for")]
    Refused {
        /// Where to.
        destination: String,
    },
    /// The Host header, as a filter or a plugin has written it, cannot be said in HTTP/2. Nothing was sent.
    /// Maps to 500.
    #[error("the Host header of a request to {destination} is no authority")]
    InvalidHost {
        /// Where to.
        destination: String,
    },
    /// The connection broke, or what came was not HTTP. Maps to 502.
    #[error("the exchange with {destination} broke off")]
    Exchange {
        /// Where to.
        destination: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The client has chosen a version of HTTP that nobody has said of the backend. Maps to 502.
    #[error("{destination} does not seem to speak {protocol}")]
    Unspoken {
        /// Where to.
        destination: String,
        /// The version, and what has chosen it.
        protocol: &'static str,
        /// What came of it.
        #[source]
        source: BoxError,
    },
    /// The body of the request broke off. Maps to what its own error maps to.
    #[error("the request to {destination} cannot be sent whole")]
    Upload {
        /// Where to.
        destination: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The backend takes nothing of the body of the request. Maps to 504.
    #[error("{destination} takes nothing of the request for {limit:?}")]
    Stalled {
        /// Where to.
        destination: String,
        /// The limit.
        limit: Duration,
    },
    /// A change of protocol that the client did not ask for. Maps to 502.
    #[error("{destination} changed the protocol unasked")]
    Switched {
        /// Whose answer it was.
        destination: String,
    },
    /// The content is in a transfer coding other than chunks. Maps to 502.
    #[error("{destination} answers in a transfer coding that is not known here")]
    Encoded {
        /// Whose answer it was.
        destination: String,
    },
}

impl UpstreamError {
    /// Whether it speaks against the endpoint; what goes wrong with the content that the client sends does
    /// not, nor does what this machine has not enough of.
    pub fn is_of_endpoint(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::InvalidHost { .. }
            | Self::Upload { .. }
            | Self::Unspoken { .. }
            | Self::Encoded { .. } => false,
            Self::Exchange { source, .. } => !source.is_user(),
            Self::Connect { source, .. } => !is_of_this_machine(source),
            _ => true,
        }
    }

    /// Whether another endpoint may answer a request of which nothing was written: ports run out for each
    /// address, and where files did another endpoint may have a connection.
    pub fn is_worth_another(&self) -> bool {
        matches!(self, Self::Connect { .. }) || self.is_of_endpoint()
    }

    /// The same for another request that waited for the same connection.
    pub(super) fn for_another(&self) -> Self {
        let connect =
            |destination: &String, source| Self::Connect { destination: destination.clone(), source };
        match self {
            Self::Connect { destination, source } => {
                let told = || io::Error::new(source.kind(), source.to_string());
                connect(destination, source.raw_os_error().map_or_else(told, io::Error::from_raw_os_error))
            }
            Self::ConnectTimeout { destination, limit } => {
                Self::ConnectTimeout { destination: destination.clone(), limit: *limit }
            }
            Self::Refused { destination } => Self::Refused { destination: destination.clone() },
            Self::InvalidHost { destination } => Self::InvalidHost { destination: destination.clone() },
            Self::Exchange { destination, source } => {
                connect(destination, io::Error::new(NOT_SPOKEN, source.to_string()))
            }
            Self::Upload { destination, .. }
            | Self::Stalled { destination, .. }
            | Self::Switched { destination }
            | Self::Encoded { destination }
            | Self::Unspoken { destination, .. } => connect(destination, io::Error::other(self.to_string())),
        }
    }
}

/// Whether there was no connection for want of files, memory or ports here.
fn is_of_this_machine(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
        || error.raw_os_error().is_some_and(|code| [EMFILE, ENFILE, ENOBUFS].contains(&code))
}

/// The kind of what goes wrong once there is a connection, but the other side does not speak what was
/// expected: of failed handshakes of TLS, and of those of HTTP/2 as others who wait for the connection are
/// told of them.
pub(super) const NOT_SPOKEN: io::ErrorKind = io::ErrorKind::InvalidData;

/// "No buffer space", as Linux numbers it (errno(3)).
const ENOBUFS: i32 = 105;

/// A request without an answer, and the request itself if nothing of it was written.
#[derive(Debug)]
pub struct Unanswered {
    /// What went wrong.
    pub error: UpstreamError,
    pub(super) unsent: Option<Box<Unsent>>,
}

/// A request of which nothing was written, and where it was to go.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) request: Request<Body>,
    pub(super) destination: Destination,
}

impl Unanswered {
    pub(super) fn unsent(error: UpstreamError, request: Request<Body>, destination: Destination) -> Self {
        Self { error, unsent: Some(Box::new(Unsent { request, destination })) }
    }

    /// The same of a request in a `protocol` that the client alone has chosen: an endpoint that does not
    /// speak it is well, and others will not speak it either.
    pub(super) fn of_chosen_protocol(self, protocol: &'static str) -> Self {
        let (destination, source): (_, BoxError) = match self.error {
            UpstreamError::Exchange { destination, source } => (destination, source.into()),
            UpstreamError::Connect { destination, source } if source.kind() == NOT_SPOKEN => {
                (destination, source.into())
            }
            error => return Self { error, ..self },
        };
        UpstreamError::Unspoken { destination, protocol, source }.into()
    }
}

impl From<UpstreamError> for Unanswered {
    fn from(error: UpstreamError) -> Self {
        Self { error, unsent: None }
    }
}

impl From<Unanswered> for BoxError {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.error.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_has_not_enough_of_does_not_speak_against_an_endpoint() {
        let of_endpoint = |source| {
            let error = UpstreamError::Connect { destination: "a".to_owned(), source };
            assert_eq!(error.is_of_endpoint(), error.for_another().is_of_endpoint());
            error.is_of_endpoint()
        };
        for code in [EMFILE, ENFILE, ENOBUFS] {
            assert!(!of_endpoint(io::Error::from_raw_os_error(code)), "{code}");
        }
        assert!(!of_endpoint(io::ErrorKind::AddrNotAvailable.into()));
        assert!(of_endpoint(io::ErrorKind::ConnectionRefused.into()));
        assert!(of_endpoint(io::Error::other("no certificate")));
    }
}
