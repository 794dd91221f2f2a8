//! Conditions: what is true of an object, and why.

use std::fmt;

use serde::Serialize;

/// Declares an enum whose variants are spelt in Kubernetes as they are in Rust.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Whether this is the spelling of one of them.
            pub fn is_known(text: &str) -> bool {
                [$(stringify!($variant),)+].contains(&text)
            }

            /// The spelling in Kubernetes.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// What a condition is about.
    ConditionType {
        /// The object is valid and takes effect.
        Accepted,
        /// Everything that the object refers to was found.
        ResolvedRefs,
        /// The data plane serves the object.
        Programmed,
        /// Clients without a valid certificate are served although the Gateway asks for one.
        InsecureFrontendValidationMode,
        /// A listener clashes with another one.
        Conflicted,
        /// A listener with TLS shares hosts with another one, so that requests may come over the wrong
        /// connection.
        OverlappingTLSConfig,
        /// The version of the Gateway API that the cluster has is known.
        SupportedVersion,
    }
}

named! {
    /// Whether a condition holds.
    ConditionStatus {
        /// It holds.
        True,
        /// It does not hold.
        False,
        /// It is not known yet.
        Unknown,
    }
}

named! {
    /// Why a condition is what it is.
    Reason {
        /// Nothing is wrong with the object.
        Accepted,
        /// All references resolve.
        ResolvedRefs,
        /// It is served.
        Programmed,
        /// No listener clashes with this one.
        NoConflicts,
        /// It waits for something, such as a module that is being fetched.
        Pending,
        /// The object breaks a rule of its kind.
        Invalid,
        /// `parametersRef` is not supported.
        InvalidParameters,
        /// An address of the Gateway is of a type, or has a form, that is not supported.
        UnsupportedAddress,
        /// Nobody has assigned an address to the Gateway.
        AddressNotAssigned,
        /// An address could not be bound.
        AddressNotUsable,
        /// A listener of the Gateway is not valid.
        ListenersNotValid,
        /// The protocol is not served.
        UnsupportedProtocol,
        /// Another Gateway uses the port for another protocol, or it could not be bound.
        PortUnavailable,
        /// A field has a value that is not valid or not enforced.
        UnsupportedValue,
        /// Two listeners have the same port and hostname.
        HostnameConflict,
        /// Two listeners with TLS have the same port, and hosts in common.
        OverlappingHostnames,
        /// Two listeners of the Gateway have the same port and different protocols.
        ProtocolConflict,
        /// A certificate is missing or malformed.
        InvalidCertificateRef,
        /// The certificate for backends is missing or malformed.
        InvalidClientCertificateRef,
        /// Certificates of authorities are missing or malformed.
        InvalidCACertificateRef,
        /// Certificates of authorities are in an object of a kind that is not supported.
        InvalidCACertificateKind,
        /// The configuration asks for it.
        ConfigurationChanged,
        /// The Gateway takes no ListenerSets of the namespace.
        NotAllowed,
        /// The Gateway of a ListenerSet is not accepted.
        ParentNotAccepted,
        /// No authority is left to trust.
        NoValidCACertificate,
        /// `allowedRoutes.kinds` names a kind that is not served.
        InvalidRouteKinds,
        /// No ReferenceGrant permits the reference into another namespace.
        RefNotPermitted,
        /// No listener has the section name or port that the route asks for.
        NoMatchingParent,
        /// No listener allows the route's kind or namespace.
        NotAllowedByListeners,
        /// No listener serves any of the route's hostnames.
        NoMatchingListenerHostname,
        /// Two filters of a rule exclude one another.
        IncompatibleFilters,
        /// The kind of a reference is not served.
        InvalidKind,
        /// A backend, or its port, does not exist.
        BackendNotFound,
        /// The plugin that a filter names is not to be had.
        InvalidExtensionRef,
        /// A Secret, or its entry, is not to be had.
        SecretNotFound,
        /// A ConfigMap, or its entry, is not to be had.
        ConfigMapNotFound,
        /// A policy asks for what is not enforced.
        Unsupported,
        /// A policy is valid, and nothing refers to it.
        Idle,
        /// An older policy of the kind has the target.
        Conflicted,
        /// The target of a policy does not exist.
        TargetNotFound,
        /// A Wasm module could not be fetched, or what came is none or has another digest.
        FetchFailed,
        /// The CRDs of the Gateway API are all of known versions.
        SupportedVersion,
        /// One of them is of another version, or says none.
        UnsupportedVersion,
        /// Running it takes more than this process may have.
        NoResources,
        /// A Wasm module does not compile, or one in the cluster has another digest.
        ModuleInvalid,
    }
}

/// One condition in the shape of Kubernetes, without `lastTransitionTime`, which its writer adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// The message taken apart, where it tells what is wrong with fields; not shown.
    #[serde(skip)]
    pub details: Vec<Detail>,
    /// `metadata.generation` of the object that was judged; absent where the object has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// One thing that is wrong, one of those that the message of a condition joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// The field; `None` where it is about the object as a whole.
    pub path: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// Whether it is that something which the object refers to is not there, or not good.
    pub is_absence: bool,
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl Condition {
    /// A condition without a generation; [`Conditions::set`] fills it in.
    pub fn new(
        kind: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, status, reason, message: message.into(), details: Vec::new(), observed_generation: None }
    }

    /// A condition that holds.
    pub fn holds(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(kind, ConditionStatus::True, reason, message)
    }

    /// A condition that does not hold.
    pub fn fails(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(kind, ConditionStatus::False, reason, message)
    }

    /// Whether it does not hold, and should: what nothing refers to need not be served.
    pub(crate) fn is_unmet(&self) -> bool {
        let should_hold = match self.kind {
            ConditionType::Accepted
            | ConditionType::ResolvedRefs
            | ConditionType::Programmed
            | ConditionType::SupportedVersion => true,
            ConditionType::InsecureFrontendValidationMode
            | ConditionType::Conflicted
            | ConditionType::OverlappingTLSConfig => false,
        };
        should_hold && self.status == ConditionStatus::False && self.reason != Reason::Idle
    }
}

/// The conditions of one object (or listener, parent, ancestor), each type once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Conditions {
    #[serde(skip)]
    generation: Option<i64>,
    list: Vec<Condition>,
}

impl Conditions {
    /// No conditions yet, of an object in this `metadata.generation`.
    pub fn new(generation: Option<i64>) -> Self {
        Self { generation, list: Vec::new() }
    }

    /// They are about an object in this `metadata.generation`.
    pub fn observe(&mut self, generation: Option<i64>) {
        self.generation = generation;
        self.list.iter_mut().for_each(|condition| condition.observed_generation = generation);
    }

    /// Sets a condition in place of the one of the same type.
    pub fn set(&mut self, condition: Condition) {
        let condition = Condition { observed_generation: self.generation, ..condition };
        match self.list.iter_mut().find(|present| present.kind == condition.kind) {
            Some(present) => *present = condition,
            None => self.list.push(condition),
        }
    }

    /// The condition of this type.
    pub fn get(&self, kind: ConditionType) -> Option<&Condition> {
        self.list.iter().find(|condition| condition.kind == kind)
    }

    /// Whether the condition of this type is present and holds.
    pub fn holds(&self, kind: ConditionType) -> bool {
        self.get(kind).is_some_and(|condition| condition.status == ConditionStatus::True)
    }

    /// All of them, in the order in which they were first set.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.list.iter()
    }
}
