use std::fmt;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// An aspect that a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConditionType {
    /// The object is valid and attached.
    Accepted,
    /// All objects it refers to exist and may be used.
    ResolvedRefs,
    /// It is in force for traffic.
    Programmed,
}

/// Why a condition has its status, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// `Accepted`: valid and attached.
    Accepted,
    /// `Accepted`: another policy was there first.
    Conflicted,
    /// `Accepted`: the specification contradicts itself or the schema.
    Invalid,
    /// `Accepted`: the target, or the section of it, does not exist.
    TargetNotFound,
    /// `Accepted`: a field asks for what this gateway cannot enforce.
    Unsupported,
    /// `Accepted`: valid, but nothing refers to it.
    Idle,
    /// `ResolvedRefs`: all references resolve.
    ResolvedRefs,
    /// `ResolvedRefs`: a reference is of a kind that cannot be used there.
    InvalidKind,
    /// `ResolvedRefs`: no ReferenceGrant allows a reference.
    RefNotPermitted,
    /// `ResolvedRefs`: a Secret or its entry does not exist.
    SecretNotFound,
    /// `ResolvedRefs`: a ConfigMap or its entry does not exist.
    ConfigMapNotFound,
    /// `Programmed`: in force.
    Programmed,
    /// `Programmed`: not yet in force, for want of nothing.
    Pending,
    /// `Programmed`: a module could not be fetched.
    FetchFailed,
    /// `Programmed`: a module does not compile, or its digest is another.
    ModuleInvalid,
}

/// What a controller found out about one aspect of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The aspect.
    pub type_: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for humans.
    pub message: String,
}

/// The API conventions allow no longer message.
pub(super) const MAX_MESSAGE: usize = 32_768;

/// Merges `verdict` into `conditions` by type and says whether anything changed.
///
/// `lastTransitionTime` moves to `now` only when the status changes. A condition that was seen at a newer generation than
/// `generation` is left alone.
pub fn merge_at(
    conditions: &mut Vec<Condition>,
    now: Timestamp,
    generation: Option<i64>,
    verdict: Verdict,
) -> bool {
    let mut new = Condition {
        last_transition_time: Time(now),
        message: shorten(verdict.message),
        observed_generation: generation,
        reason: verdict.reason.as_str().to_owned(),
        status: if verdict.holds { "True" } else { "False" }.to_owned(),
        type_: verdict.type_.as_str().to_owned(),
    };
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    if old.observed_generation > generation {
        return false;
    }
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != new;
    *old = new;
    changed
}

fn shorten(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    message
}

// === impl Verdict ===

impl Verdict {
    /// The aspect holds.
    pub fn holds(type_: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { type_, holds: true, reason, message: message.into() }
    }

    /// The aspect does not hold.
    pub fn fails(type_: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { type_, holds: false, reason, message: message.into() }
    }
}

// === impl ConditionType ===

impl ConditionType {
    /// The spelling in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Reason ===

impl Reason {
    /// The spelling in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Conflicted => "Conflicted",
            Self::Invalid => "Invalid",
            Self::TargetNotFound => "TargetNotFound",
            Self::Unsupported => "Unsupported",
            Self::Idle => "Idle",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::InvalidKind => "InvalidKind",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::SecretNotFound => "SecretNotFound",
            Self::ConfigMapNotFound => "ConfigMapNotFound",
            Self::Programmed => "Programmed",
            Self::Pending => "Pending",
            Self::FetchFailed => "FetchFailed",
            Self::ModuleInvalid => "ModuleInvalid",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
