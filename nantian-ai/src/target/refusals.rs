//! What a provider says with a status that is no success.

use http::StatusCode;

use crate::codec::fault::refused_credential;
use crate::dialect::Dialect;
use crate::ir::Fault;

/// How a provider refuses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusals {
    pub(super) dialect: Dialect,
    pub(super) is_vertex: bool,
}

// === impl Refusals ===

impl Refusals {
    /// Whether a status is always about what the configured credential may do, with words of the operator's
    /// project.
    pub(crate) fn is_denied(self, status: StatusCode) -> bool {
        self.is_vertex && status == StatusCode::FORBIDDEN
    }

    /// Reads what the provider says.
    pub(crate) fn read(self, status: StatusCode, body: &[u8]) -> Fault {
        match self.is_denied(status) {
            true => refused_credential(),
            false => self.dialect.decode_fault(status, body),
        }
    }
}
