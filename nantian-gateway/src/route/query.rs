//! Query parameters, decoded once for a request and only if a rule asks.

use std::{borrow::Cow, cell::OnceCell};

use percent_encoding::percent_decode_str;

use crate::pattern::Effort;

/// The query of a request, and what expressions may still read of the request.
#[derive(Debug)]
pub(super) struct Query<'a> {
    text: &'a str,
    pairs: OnceCell<Vec<(Cow<'a, str>, Cow<'a, str>)>>,
    pub(super) effort: Effort,
}

impl<'a> Query<'a> {
    pub(super) fn new(text: Option<&'a str>) -> Self {
        Self { text: text.unwrap_or_default(), pairs: OnceCell::new(), effort: Effort::default() }
    }

    /// The first value of `name`, as Gateway API says of repeated parameters.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        let pairs = self.pairs.get_or_init(|| parse(self.text));
        pairs.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value.as_ref())
    }
}

fn parse(text: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Decodes `application/x-www-form-urlencoded`; bytes that are no UTF-8 match nothing but themselves.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Cow::Owned(decoded.into_owned()),
        Err(_) => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_first_one_counts() {
        let query = Query::new(Some("a=1&b=x%20y+z&a=2&c&=d&bad=%ff"));
        assert_eq!(query.first("a"), Some("1"));
        assert_eq!(query.first("b"), Some("x y z"));
        assert_eq!(query.first("c"), Some(""));
        assert_eq!(query.first("bad"), Some("%ff"));
        assert_eq!(query.first("d"), None);
    }
}
