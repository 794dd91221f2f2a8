//! HTTP/1.1 messages as they were on the wire.

use std::fmt;

/// A request or a response.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) start: String,
    /// Names in lower case, values as they are, in their order.
    pub(crate) headers: Vec<(String, String)>,
    /// The content, without its framing.
    pub(crate) body: Vec<u8>,
    /// The fields after a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
}

/// A request with this content.
pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Message {
    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        let status = self.start.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no response: {self:?}"))
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The content as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked"))
    }

    pub(super) fn content_length(&self) -> Option<usize> {
        self.header("content-length").map(|length| length.parse().expect("a length is a number"))
    }

    /// Whether nothing but the end of the connection ends the content.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.start.starts_with("HTTP/") && !matches!(self.status(), 100..=199 | 204 | 304)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.start)?;
        for (name, value) in self.headers.iter().chain(&self.trailers) {
            writeln!(f, "{name}: {value}")?;
        }
        write!(f, "\n{}", self.text())
    }
}
