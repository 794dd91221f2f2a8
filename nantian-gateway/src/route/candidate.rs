//! What must hold besides host and path, and which of two matches comes first.

use std::{cmp::Reverse, collections::HashSet, num::NonZeroU32};

use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{
    index::narrow,
    query::Query,
    router::{RequestHead, RuleIndex},
};
use crate::{
    ir::{KeyMatch, RouteMatch, ValueMatch},
    pattern::{Effort, InvalidPattern, Patterns, WholeMatch},
};

/// One match of one rule, without its host and path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) rule: RuleIndex,
    /// The place of its condition, if it has any, counted from 1.
    condition: Option<NonZeroU32>,
}

/// The matches of one host and path in the order in which they are tried; most often there is one without
/// conditions, and nothing else is touched then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidates {
    first: Candidate,
    /// Where the others are.
    others: u32,
    count: u32,
}

/// What must hold for candidates, and the candidates that are not the first of their path.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    all: Vec<Condition>,
    others: Vec<Candidate>,
    /// Every header name once, so that the rules which ask for it share its memory.
    names: HashSet<HeaderName, RandomState>,
}

/// A match whose precedence is to be compared.
#[derive(Debug)]
pub(super) struct Ranked {
    rule: RuleIndex,
    condition: Condition,
}

#[derive(Debug)]
struct Condition {
    method: Option<Method>,
    headers: Box<[(HeaderName, Value)]>,
    query: Box<[(Box<str>, Value)]>,
    /// The method of a gRPC call.
    call: Option<Box<str>>,
    /// Whether the preflight of a request holds as well as the request.
    crosses: bool,
}

#[derive(Debug)]
enum Value {
    Exact(Box<str>),
    Regex(WholeMatch),
}

/// A match whose expression cannot be compiled.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{pattern:?} is not a regular expression")]
#[non_exhaustive]
pub struct InvalidMatch {
    pattern: String,
    #[source]
    error: InvalidPattern,
}

pub(super) fn whole_match(pattern: &str, patterns: &Patterns) -> Result<WholeMatch, InvalidMatch> {
    patterns.whole_match(pattern).map_err(|error| InvalidMatch { pattern: pattern.to_owned(), error })
}

// === impl Ranked ===

impl Ranked {
    pub(super) fn new(
        found: &RouteMatch,
        crosses: bool,
        rule: RuleIndex,
        patterns: &Patterns,
    ) -> Result<Self, InvalidMatch> {
        let header = |key: &KeyMatch<HeaderName>| Ok((key.name.clone(), Value::new(&key.value, patterns)?));
        let parameter =
            |key: &KeyMatch<String>| Ok((key.name.as_str().into(), Value::new(&key.value, patterns)?));
        let condition = Condition {
            method: found.method.clone(),
            headers: found.headers.iter().map(header).collect::<Result<_, _>>()?,
            query: found.query.iter().map(parameter).collect::<Result<_, _>>()?,
            call: found.call.as_deref().map(Into::into),
            crosses,
        };
        Ok(Self { rule, condition })
    }

    /// Sorts by Gateway API's precedence: the length of a call's method, method, number of headers, number of
    /// query parameters; a stable sort keeps the order of age, name, rule and match after that. A preflight
    /// holds for several methods: the one that it has comes before those that it asks for.
    pub(super) fn precedence(&self) -> impl Ord + use<> {
        let Condition { method, headers, query, call, .. } = &self.condition;
        let call = call.as_deref().map_or(0, str::len);
        let method = method.as_ref().map(|method| *method == Method::OPTIONS);
        Reverse((call, method, headers.len(), query.len()))
    }
}

// === impl Conditions ===

impl Conditions {
    /// Takes in one match.
    pub(super) fn one(&mut self, Ranked { rule, mut condition }: Ranked) -> Candidate {
        if condition.is_empty() {
            return Candidate { rule, condition: None };
        }
        for (name, _) in &mut condition.headers {
            match self.names.get(name) {
                Some(known) => name.clone_from(known),
                None => drop(self.names.insert(name.clone())),
            }
        }
        self.all.push(condition);
        Candidate { rule, condition: NonZeroU32::new(narrow(self.all.len())) }
    }

    /// Takes in the matches of one host and path, in any order of precedence; `None` where there are none.
    pub(super) fn all(&mut self, mut ranked: Vec<Ranked>) -> Option<Candidates> {
        ranked.sort_by_cached_key(Ranked::precedence);
        let mut ranked = ranked.into_iter();
        let first = self.one(ranked.next()?);
        let (others, count) = (narrow(self.others.len()), narrow(ranked.len()));
        for other in ranked {
            let other = self.one(other);
            self.others.push(other);
        }
        Some(Candidates { first, others, count })
    }

    /// The first candidate whose condition holds.
    pub(super) fn first(
        &self,
        candidates: &Candidates,
        head: &RequestHead<'_>,
        query: &Query<'_>,
    ) -> Option<RuleIndex> {
        let Candidates { first, others, count } = candidates;
        if self.hold(first, head, query) {
            return Some(first.rule);
        }
        let others = self.others.get(*others as usize..)?.get(..*count as usize)?;
        others.iter().find(|other| self.hold(other, head, query)).map(|other| other.rule)
    }

    /// Whether everything but host and path holds.
    pub(super) fn hold(&self, candidate: &Candidate, head: &RequestHead<'_>, query: &Query<'_>) -> bool {
        candidate.condition.is_none_or(|place| {
            let condition = self.all.get(place.get() as usize - 1);
            condition.is_some_and(|condition| condition.holds(head, query))
        })
    }
}

// === impl Condition ===

impl Condition {
    fn is_empty(&self) -> bool {
        self.method.is_none() && self.headers.is_empty() && self.query.is_empty() && self.call.is_none()
    }

    fn holds(&self, head: &RequestHead<'_>, query: &Query<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| {
            method == head.method || self.crosses && asked_for(head) == Some(method.as_str().as_bytes())
        }) && self.call.as_deref().is_none_or(|method| calls(head.path, method))
            && self
                .headers
                .iter()
                .all(|(name, value)| header_matches(head.headers, name, value, &query.effort))
            && self.query.iter().all(|(name, value)| {
                query.first(name).is_some_and(|text| value.matches(text.as_bytes(), &query.effort))
            })
    }
}

/// The method that a preflight asks for, if the request is one (Fetch, section 4.8).
fn asked_for<'a>(head: &RequestHead<'a>) -> Option<&'a [u8]> {
    let is_preflight = *head.method == Method::OPTIONS && head.headers.contains_key(header::ORIGIN);
    let method = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| is_preflight);
    method.map(HeaderValue::as_bytes)
}

/// Whether a path is `/service/method`, of whatever service.
fn calls(path: &str, method: &str) -> bool {
    let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    parts.is_some_and(|(service, called)| !service.is_empty() && called == method)
}

/// Several values of one header are joined as RFC 9110, section 5.3 says.
fn header_matches(headers: &HeaderMap, name: &HeaderName, value: &Value, effort: &Effort) -> bool {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    match (values.next(), values.next()) {
        (None, _) => false,
        (Some(only), None) => value.matches(only, effort),
        (Some(first), Some(second)) => {
            let all: Vec<_> = [first, second].into_iter().chain(values).collect();
            value.matches(&all.join(&b","[..]), effort)
        }
    }
}

// === impl Value ===

impl Value {
    fn new(value: &ValueMatch, patterns: &Patterns) -> Result<Self, InvalidMatch> {
        match value {
            ValueMatch::Exact(text) => Ok(Self::Exact(text.as_str().into())),
            ValueMatch::Regex(pattern) => whole_match(pattern, patterns).map(Self::Regex),
        }
    }

    /// An expression sees the replacement character where bytes are no UTF-8: a header may have any.
    fn matches(&self, bytes: &[u8], effort: &Effort) -> bool {
        match self {
            Self::Exact(expected) => expected.as_bytes() == bytes,
            Self::Regex(regex) => regex.is_match(&String::from_utf8_lossy(bytes), effort),
        }
    }
}
