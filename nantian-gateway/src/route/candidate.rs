//! What must hold besides host and path, and which of two matches comes first.

use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, Method};
use regex::Regex;

use super::{
    query::Query,
    router::{RequestHead, RuleIndex},
};
use crate::ir::{self, KeyMatch, RouteMatch, ValueMatch};

/// One match of one rule, without its host and path.
#[derive(Debug)]
pub(super) struct Candidate {
    method: Option<Method>,
    headers: Vec<(HeaderName, Value)>,
    query: Vec<(Box<str>, Value)>,
    pub(super) rule: RuleIndex,
}

#[derive(Debug)]
enum Value {
    Exact(Box<str>),
    Regex(Regex),
}

/// A match that cannot be compiled.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMatch {
    /// Not a regular expression.
    #[error("{0:?} is not a regular expression")]
    Regex(String, #[source] regex::Error),
    /// Not a method.
    #[error("{0:?} is not a method")]
    Method(String),
    /// Not a header name.
    #[error("{0:?} is not a header name")]
    Header(String),
}

pub(super) fn whole_match(pattern: &str) -> Result<Regex, InvalidMatch> {
    ir::whole_match(pattern).map_err(|error| InvalidMatch::Regex(pattern.to_owned(), error))
}

impl Candidate {
    pub(super) fn new(found: &RouteMatch, rule: RuleIndex) -> Result<Self, InvalidMatch> {
        let method = found
            .method
            .as_ref()
            .map(|name| Method::from_bytes(name.as_bytes()).map_err(|_| InvalidMatch::Method(name.clone())));
        let header = |key: &KeyMatch| {
            let name = HeaderName::from_bytes(key.name.as_bytes())
                .map_err(|_| InvalidMatch::Header(key.name.clone()))?;
            Ok((name, Value::new(&key.value)?))
        };
        let parameter = |key: &KeyMatch| Ok((key.name.as_str().into(), Value::new(&key.value)?));
        Ok(Self {
            method: method.transpose()?,
            headers: found.headers.iter().map(header).collect::<Result<_, _>>()?,
            query: found.query.iter().map(parameter).collect::<Result<_, _>>()?,
            rule,
        })
    }

    /// Whether everything but host and path holds.
    pub(super) fn matches(&self, head: &RequestHead<'_>, query: &Query<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == head.method)
            && self.headers.iter().all(|(name, value)| header_matches(head.headers, name, value))
            && self
                .query
                .iter()
                .all(|(name, value)| query.first(name).is_some_and(|text| value.matches(text)))
    }

    /// Sorts by Gateway API's precedence: method, number of headers, number of query parameters; a stable sort
    /// keeps the order of age, name, rule and match after that.
    pub(super) fn precedence(&self) -> impl Ord + use<> {
        Reverse((self.method.is_some(), self.headers.len(), self.query.len()))
    }
}

/// Several values of one header are joined as RFC 9110, section 5.3 says.
fn header_matches(headers: &HeaderMap, name: &HeaderName, value: &Value) -> bool {
    let mut values = headers.get_all(name).iter().map(|value| value.to_str().ok());
    match (values.next(), values.next()) {
        (None, _) => false,
        (Some(only), None) => only.is_some_and(|text| value.matches(text)),
        (Some(first), Some(second)) => {
            let all: Option<Vec<&str>> = [first, second].into_iter().chain(values).collect();
            all.is_some_and(|texts| value.matches(&texts.join(",")))
        }
    }
}

impl Value {
    fn new(value: &ValueMatch) -> Result<Self, InvalidMatch> {
        match value {
            ValueMatch::Exact(text) => Ok(Self::Exact(text.as_str().into())),
            ValueMatch::Regex(pattern) => whole_match(pattern).map(Self::Regex),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(expected) => **expected == *text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}
