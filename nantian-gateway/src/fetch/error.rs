//! Why a module was not fetched.

use std::{io, net::IpAddr, time::Duration};

use http::StatusCode;
use nantian_wasm::Digest;

/// A module could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FetchError {
    /// The URL cannot be asked.
    #[error("{url:?} is no URL that modules are fetched from: {reason}")]
    Url {
        /// The URL, as far as it may be shown.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The address must not be asked.
    #[error("{host} is at {address}, which modules are not fetched from: {reason}")]
    Denied {
        /// The host.
        host: String,
        /// Where it is.
        address: IpAddr,
        /// Why not.
        reason: &'static str,
    },
    /// The host could not be reached.
    #[error("{host} cannot be reached")]
    Connect {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What answers where TLS was begun is no TLS.
    #[error("{host} speaks no TLS")]
    NoTls {
        /// The host.
        host: String,
    },
    /// The exchange broke.
    #[error("the exchange with {host} broke")]
    Exchange {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The host took longer to answer than it is waited for.
    #[error("{host} has said nothing for {limit:?}")]
    Silent {
        /// The host.
        host: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The answer was no module.
    #[error("{url} answers {status}")]
    Status {
        /// The URL, as far as it may be shown.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// More redirects than are followed.
    #[error("{url} is redirected too often")]
    Redirects {
        /// The first URL, as far as it may be shown.
        url: String,
    },
    /// More bytes than a module may have.
    #[error("what came has more than {limit} bytes, which is what a module may have")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// It took too long.
    #[error("not there after {limit:?}")]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// The bytes are no module.
    #[error("what came is no WebAssembly module, and no archive with one")]
    NoModule,
    /// The bytes are not those that were asked for.
    #[error("it is not that of spec.wasm.sha256: sha256 is {actual}, expected {expected}")]
    Digest {
        /// What was asked for.
        expected: String,
        /// What came.
        actual: Digest,
    },
    /// The registry's answer makes no sense.
    #[error("the artifact cannot be read: {reason}")]
    Artifact {
        /// What is wrong with it.
        reason: String,
    },
}
