//! What plugins have taken from a request, and what becomes of it then.

use bytes::Bytes;
use http::StatusCode;

use super::LocalResponse;

/// What guests see no more of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct RemovedPseudoHeaders {
    /// What stands in the place of its path and leads nowhere: nothing, or no path.
    pub(crate) path: Option<Bytes>,
    pub(crate) method: bool,
    pub(crate) authority: bool,
    pub(crate) scheme: bool,
}

// === impl RemovedPseudoHeaders ===

impl RemovedPseudoHeaders {
    /// What Envoy's router answers to such a request; nothing, if it can be sent on.
    pub(super) fn answer(&self) -> Option<Box<LocalResponse>> {
        if self.path.is_some() {
            let mut answer = LocalResponse::new(StatusCode::NOT_FOUND, "");
            "route_not_found".clone_into(&mut answer.details);
            return Some(Box::new(answer));
        }
        self.method.then(|| {
            Box::new(LocalResponse::new(StatusCode::SERVICE_UNAVAILABLE, "missing required header: :method"))
        })
    }
}
