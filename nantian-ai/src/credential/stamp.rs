//! A checked credential, ready to be written into requests.

use std::sync::Arc;
use std::time::SystemTime;

use http::Request;
use http::header::{HeaderMap, HeaderName};

use crate::body::RequestBody;
#[cfg(feature = "aws")]
use crate::credential::aws::Signer;
use crate::credential::{Secret, header_value};
use crate::token::{Look, Source};

/// A checked credential, ready to be written into requests.
#[derive(Clone, Debug)]
pub(crate) enum Stamp {
    /// The same in every request.
    Header { name: HeaderName, value: Secret },
    /// Made for each request.
    #[cfg(feature = "aws")]
    Signature(Signer),
    /// What the credential has been exchanged for.
    Token(Arc<Source>),
}

// === impl Stamp ===

impl Stamp {
    /// Writes it where it depends neither on the request nor on the time.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Self::Header { name, value } = self
            // A checked secret is a header's value.
            && let Some(value) = header_value(value)
        {
            headers.insert(name.clone(), value);
        }
    }

    /// Writes it into a request that is sent now.
    ///
    /// Without it the provider refuses the request, which is told like any refused credential.
    pub(crate) fn sign_at(&self, now: SystemTime, request: &mut Request<RequestBody>) {
        match self {
            Self::Header { .. } => self.write(request.headers_mut()),
            #[cfg(feature = "aws")]
            Self::Signature(signer) => {
                if let Err(error) = signer.sign_at(now, request) {
                    tracing::warn!(%error, "a request cannot be signed");
                }
            }
            Self::Token(source) => {
                if let Look::Ready(stamp) = source.look_at(now) {
                    stamp.sign_at(now, request);
                }
            }
        }
    }
}
