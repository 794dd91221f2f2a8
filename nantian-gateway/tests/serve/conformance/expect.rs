//! What a test expects.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The first document of a test.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Expected {
    /// The features that the test is for.
    pub(super) features: Vec<String>,
    /// Certificates to make, each in a Secret of its name, and their hosts; a name with a scheme is a URI.
    pub(super) certificates: BTreeMap<String, Vec<String>>,
    /// ConfigMaps of authorities, each with one of those certificates.
    pub(super) authorities: BTreeMap<String, String>,
    /// Services that are spoken to over TLS, and their certificate; `client` is who may ask.
    pub(super) secured: BTreeMap<String, Secured>,
    /// Services that lead to the endpoint of another one.
    pub(super) aliases: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) first: Step,
    /// Edits, and what is expected after each.
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Secured {
    pub(super) certificate: String,
    pub(super) client: Option<String>,
}

/// What is true after an edit.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Step {
    /// Objects that take the place of those of their name, or are new.
    pub(super) apply: Vec<Value>,
    pub(super) requests: Vec<Exchange>,
    /// `Kind namespace/name [listener or parent]: Type Status Reason`, or `…: Type absent`; a parent is
    /// `name[/section][:port]`.
    pub(super) conditions: Vec<String>,
    /// `Kind namespace/name listener` and how many routes it has.
    pub(super) attached: BTreeMap<String, u64>,
    /// `Kind namespace/name listener` and the kinds that it takes.
    pub(super) kinds: BTreeMap<String, Vec<String>>,
    /// `Gateway namespace/name` and how many ListenerSets it has.
    pub(super) sets: BTreeMap<String, u64>,
}

/// A request and its response.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Exchange {
    /// `namespace/name`; without, `infra/same-namespace`.
    pub(super) gateway: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) method: Option<String>,
    pub(super) host: Option<String>,
    pub(super) path: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    /// A datagram, not a request.
    pub(super) datagram: bool,
    /// A call of gRPC, over HTTP/2.
    pub(super) call: bool,
    /// TLS, with this server name.
    pub(super) name: Option<String>,
    /// Which certificate the client has.
    pub(super) client: Option<String>,
    /// That the handshake, or the connection, is refused.
    pub(super) refused: bool,
    /// The status, 200 unless said.
    pub(super) status: Option<u16>,
    pub(super) grpc_status: Option<u16>,
    /// The Service that answers.
    pub(super) backend: Option<String>,
    pub(super) location: Option<String>,
    /// Headers of the response; an empty value is that it is not there.
    pub(super) answer: BTreeMap<String, String>,
    /// What the backend saw: `path`, `host`, `protocol` or a header; an empty value is that it is not there.
    pub(super) seen: BTreeMap<String, String>,
    /// The other Services that a copy comes to.
    pub(super) mirrors: Vec<String>,
    /// How many requests share out how: the percentage of each Service.
    pub(super) shares: BTreeMap<String, f64>,
    /// How many of 500 requests are copied to these Services.
    pub(super) copies: BTreeMap<String, usize>,
}

impl Expected {
    /// The expectations and the manifests of a test.
    pub(super) fn read(text: &str) -> (Self, Vec<Value>) {
        let mut documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("the test parses");
        let expected =
            serde_json::from_value(documents.remove(0)).unwrap_or_else(|error| panic!("{error}: {text}"));
        (expected, documents)
    }
}
