//! What is valid and cannot be served after all.

use std::fmt;

use super::RulePosition;
use crate::{
    ir::{self, ListenerId, ObjectName},
    listen::InvalidCertificate,
    source::{FORMER_SERVES, ObjectRef, Refusal},
    translate::{
        conditions::{ConditionType, Reason},
        status::declarer,
    },
};

/// Something valid that cannot be served after all; becomes a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The object.
    pub(crate) object: ObjectRef,
    /// The listener, where the object is a Gateway and one of its listeners is meant.
    pub(crate) listener: Option<ListenerId>,
    /// What is not true of it.
    pub(crate) condition: ConditionType,
    /// Why, for programs.
    pub(crate) reason: Reason,
    /// The field and what is wrong with it.
    pub(crate) message: String,
    /// Whether the last good version of it serves on.
    pub(crate) has_last_good: bool,
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(kind: &'static str, name: ObjectName, reason: Reason, message: String) -> Self {
        let object = ObjectRef { kind, name };
        let condition = ConditionType::Programmed;
        Self { object, listener: None, condition, reason, message, has_last_good: false }
    }

    /// The same, where the last good version may serve on.
    pub(super) fn beside_last_good(self, has_last_good: bool) -> Self {
        Self { has_last_good, ..self }
    }

    /// Whether a refusal is how a condition tells of it.
    pub(crate) fn is_told_by(&self, refusal: &Refusal) -> bool {
        self.object == refusal.object && self.message == refusal.reason
    }

    pub(super) fn of_certificate(fault: &InvalidCertificate) -> Self {
        let (condition, reason) = (ConditionType::ResolvedRefs, Reason::InvalidCertificateRef);
        Self::of_listener(&fault.listener, condition, reason, fault.to_string())
            .beside_last_good(fault.has_last_good)
    }

    /// A listener that cannot be served.
    pub(super) fn of_unserved(listener: &ListenerId, message: String) -> Self {
        Self::of_listener(listener, ConditionType::Programmed, Reason::Invalid, message)
    }

    fn of_listener(id: &ListenerId, condition: ConditionType, reason: Reason, message: String) -> Self {
        let (object, listener) = (declarer(id), Some(id.clone()));
        Self { object, listener, condition, reason, message, has_last_good: false }
    }

    pub(super) fn of_client_certificate(
        gateway: &ObjectName,
        certificate: &ir::Certificate,
        reason: &str,
    ) -> Self {
        let secret = &certificate.secret;
        Self {
            object: ObjectRef { kind: "Gateway", name: gateway.clone() },
            listener: None,
            condition: ConditionType::ResolvedRefs,
            reason: Reason::InvalidClientCertificateRef,
            message: format!("the certificate of Secret {secret} cannot be presented to backends: {reason}"),
            has_last_good: false,
        }
    }

    pub(super) fn of_route(place: &RulePosition, message: String) -> Self {
        let object = ObjectRef { kind: place.id.kind.as_str(), name: place.id.name.clone() };
        let (condition, reason) = (ConditionType::Accepted, Reason::UnsupportedValue);
        Self { object, listener: None, condition, reason, message, has_last_good: false }
    }
}

/// The line of the log.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if let (Some(listener), ConditionType::Programmed) = (&self.listener, self.condition) {
            write!(f, "listener {} is not served: ", listener.name)?;
        }
        f.write_str(&self.message)?;
        if self.has_last_good { write!(f, "; {FORMER_SERVES}") } else { Ok(()) }
    }
}
