//! Numbers of the Proxy-Wasm ABI.

use std::fmt;

/// The ABI of a module: the version of Proxy-Wasm it announces by its marker export, or the one its imports
/// are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Abi {
    /// No Proxy-Wasm: the five functions of the module `pingora`, and the hooks `on_request`, `on_response`
    /// and `on_stream_chunk`. Zero lets a message pass, anything else refuses it with this status;
    /// `set_header` sets headers of the response. Hooks of modules that import `get_body` see whole bodies,
    /// but for streams.
    Pingora,
    /// `proxy_abi_version_0_1_0`: header callbacks without end-of-stream.
    V0_1_0,
    /// `proxy_abi_version_0_2_0`.
    V0_2_0,
    /// `proxy_abi_version_0_2_1`.
    V0_2_1,
    /// `proxy_abi_version_0_2_100`: Higress.
    V0_2_100,
}

/// What a host call answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// A header map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapKind {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    GrpcInitial,
    GrpcTrailing,
    CallHeaders,
    CallTrailers,
}

/// A byte buffer a guest may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BufferKind {
    RequestBody,
    ResponseBody,
    /// Connections and foreign-function buffers: known to the ABI, always empty here.
    Empty,
    CallBody,
    GrpcMessage,
    VmConfiguration,
    PluginConfiguration,
}

/// What a header or trailer callback asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadersVerdict {
    Continue,
    /// Nothing more of the message reaches the guest before it continues the stream.
    StopAll,
    /// The same, and a body longer than may be held is refused meanwhile.
    StopAllAndBuffer,
    /// The headers wait while body parts reach the guest.
    Stop,
}

/// What a body callback asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyVerdict {
    Continue,
    /// Keep what was shown and show it again with the next bytes.
    Buffer,
    /// Keep what was shown; show the next bytes alone.
    Watermark,
    /// Forget what was shown.
    Discard,
}

// === impl Abi ===

impl Abi {
    /// The ABI a marker export stands for.
    pub(crate) fn from_marker(name: &str) -> Option<Self> {
        match name {
            "proxy_abi_version_0_1_0" => Some(Self::V0_1_0),
            "proxy_abi_version_0_2_0" => Some(Self::V0_2_0),
            "proxy_abi_version_0_2_1" => Some(Self::V0_2_1),
            "proxy_abi_version_0_2_100" => Some(Self::V0_2_100),
            _ => None,
        }
    }

    /// The ABI of a module with these markers: the first that Envoy knows, as there, or else Higress'.
    pub(crate) fn of_markers(markers: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut markers = markers.into_iter();
        let first = markers.next()?;
        Some([first].into_iter().chain(markers).find(|abi| *abi != Self::V0_2_100).unwrap_or(first))
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pingora => "pingora",
            Self::V0_1_0 => "Proxy-Wasm 0.1.0",
            Self::V0_2_0 => "Proxy-Wasm 0.2.0",
            Self::V0_2_1 => "Proxy-Wasm 0.2.1",
            Self::V0_2_100 => "Proxy-Wasm 0.2.100",
        })
    }
}

// === impl MapKind ===

impl MapKind {
    pub(crate) fn from_code(code: u32) -> Result<Self, Status> {
        match code {
            0 => Ok(Self::RequestHeaders),
            1 => Ok(Self::RequestTrailers),
            2 => Ok(Self::ResponseHeaders),
            3 => Ok(Self::ResponseTrailers),
            4 => Ok(Self::GrpcInitial),
            5 => Ok(Self::GrpcTrailing),
            6 => Ok(Self::CallHeaders),
            7 => Ok(Self::CallTrailers),
            _ => Err(Status::BadArgument),
        }
    }
}

// === impl BufferKind ===

impl BufferKind {
    pub(crate) fn from_code(code: u32) -> Result<Self, Status> {
        match code {
            0 => Ok(Self::RequestBody),
            1 => Ok(Self::ResponseBody),
            2 | 3 | 8 => Ok(Self::Empty),
            4 => Ok(Self::CallBody),
            5 => Ok(Self::GrpcMessage),
            6 => Ok(Self::VmConfiguration),
            7 => Ok(Self::PluginConfiguration),
            _ => Err(Status::BadArgument),
        }
    }
}

// === impl HeadersVerdict ===

impl HeadersVerdict {
    /// 2 ("continue and end the stream") continues, and 1 stops everything unless the ABI or the plugin's
    /// configuration (`allows_stop`) says otherwise: as in Envoy.
    pub(crate) fn of(code: u32, abi: Abi, allows_stop: bool) -> Self {
        match code {
            0 | 2 => Self::Continue,
            1 if allows_stop || matches!(abi, Abi::V0_2_100 | Abi::Pingora) => Self::Stop,
            3 => Self::StopAllAndBuffer,
            _ => Self::StopAll,
        }
    }
}

// === impl BodyVerdict ===

impl BodyVerdict {
    pub(crate) fn of(code: u32) -> Self {
        match code {
            0 => Self::Continue,
            1 => Self::Buffer,
            2 => Self::Watermark,
            _ => Self::Discard,
        }
    }
}
