//! Members of a JSON object read and replaced in place: every other byte stays as the client wrote it.
//!
//! Providers key their prompt caches by bytes, so a body that is parsed and written anew costs money.

pub(crate) mod cut;
pub(crate) mod lookalike;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use self::lookalike::resembled;
use crate::wire::{
    BYTE_ORDER_MARK,
    json::{Malformed, Mark, Scanner},
};

/// The members of the outermost object of a body.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    body: &'a [u8],
    members: Vec<Member>,
}

/// Members of an object, at most. Each takes more memory than the few bytes in which it can be written, and
/// is looked at for every name that is looked for.
const MOST_MEMBERS: usize = 1 << 14;

/// What is wrong with a text in another encoding, which no scanner would name.
const NOT_UTF_8: &str = "JSON must be UTF-8, not UTF-16 or UTF-32 (RFC 8259, section 8.1)";

#[derive(Clone, Debug)]
struct Member {
    key: Range<usize>,
    /// There are escapes in the name.
    is_escaped: bool,
    value: Range<usize>,
}

// === impl Object ===

impl<'a> Object<'a> {
    /// Finds the members of a body.
    ///
    /// # Errors
    /// [`Malformed`] if the body is not JSON, or not an object.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        if is_wide(body) {
            return Err(Malformed { offset: 0, reason: NOT_UTF_8 });
        }
        let mut scanner = Scanner::new();
        let mut members = Vec::with_capacity(16);
        let mut member = Member { key: 0..0, is_escaped: false, value: 0..0 };
        let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let before = body.len() - text.len();
        scanner.push(text, |mark, at| match (mark, before + at) {
            (Mark::KeyStart, at) => member.key.start = at,
            (Mark::KeyEnd, at) => {
                member.key.end = at;
                member.is_escaped = body.get(member.key.clone()).is_some_and(|key| key.contains(&b'\\'));
            }
            (Mark::ValueStart, at) => member.value.start = at,
            (Mark::ValueEnd, at) => {
                member.value.end = at;
                if members.len() <= MOST_MEMBERS {
                    members.push(member.clone());
                }
            }
        })?;
        scanner.finish()?;
        if let Some(member) = members.get(MOST_MEMBERS) {
            return Err(Malformed { offset: member.key.start as u64, reason: "too many members" });
        }
        if !scanner.is_object() {
            return Err(Malformed { offset: 0, reason: "not an object" });
        }
        Ok(Self { body, members })
    }

    /// The JSON of a member's value. Of several members with one name the last counts, as it does for
    /// most readers.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        let member = self.named(name).last()?;
        self.body.get(member.value.clone())
    }

    /// Where the value of a member is, and its JSON.
    pub(crate) fn place(&self, name: &str) -> Option<(usize, &'a [u8])> {
        let member = self.named(name).last()?;
        Some((member.value.start, self.body.get(member.value.clone())?))
    }

    /// Where the names of the members of a name are, without their quotes.
    pub(crate) fn keys(&self, name: &str) -> impl Iterator<Item = Range<usize>> {
        self.named(name).map(|member| member.key.clone())
    }

    /// The names of the members as they are written, and where each is with its value.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&'a [u8], Range<usize>)> {
        self.members.iter().map(|member| {
            let name = self.body.get(member.key.clone()).unwrap_or_default();
            (name, member.key.start - 1..member.value.end)
        })
    }

    /// A member that is a string.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let value = self.value(name)?;
        let inside = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if inside.contains(&b'\\') {
            serde_json::from_slice(value).ok().map(Cow::Owned)
        } else {
            std::str::from_utf8(inside).ok().map(Cow::Borrowed)
        }
    }

    /// Whether some readers take another member for one of these names: Go's JSON knows a name also by
    /// letters of another case, and of several members the last counts. Of names by which nothing is decided
    /// here it is not known.
    pub fn is_shadowed(&self, name: &str) -> bool {
        self.members().any(|(written, _)| resembled(written) == Some(name))
    }

    /// The JSON of members that some readers take for one of this name.
    pub(crate) fn resembling(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let alike = self.members.iter().filter(move |member| {
            self.body.get(member.key.clone()).and_then(resembled).is_some_and(|known| known == name)
        });
        alike.filter_map(|member| self.body.get(member.value.clone()))
    }

    /// A member that is a whole number, not negative.
    pub fn number(&self, name: &str) -> Option<u64> {
        serde_json::from_slice(self.value(name)?).ok()
    }

    /// A member that is true or false.
    pub fn flag(&self, name: &str) -> Option<bool> {
        serde_json::from_slice(self.value(name)?).ok()
    }

    /// Sets members to JSON values: every member of a name, so that no reader sees another one; a member that
    /// is absent becomes the first. Gives the pieces of the new body, which share the memory of the old one.
    /// `body` is what the object was parsed from.
    pub(crate) fn set(&self, body: &Bytes, values: &[(&str, &str)]) -> Vec<Bytes> {
        self.set_and(body, values, Vec::new())
    }

    /// The same, and other places of the body replaced besides. Of two that overlap the one that begins first
    /// is, but for members that are cut out one by one: all of them are.
    pub(crate) fn set_and<'e>(
        &self,
        body: &Bytes,
        values: &[(&str, &'e str)],
        mut edits: Vec<(Range<usize>, &'e str)>,
    ) -> Vec<Bytes> {
        let mut absent = String::new();
        for (name, value) in values {
            if self.named(name).next().is_none() {
                let comma = if absent.is_empty() { "" } else { "," };
                absent.push_str(&format!("{comma}\"{name}\":{value}"));
            }
            let differing = self
                .named(name)
                .filter(|member| self.body.get(member.value.clone()) != Some(value.as_bytes()));
            edits.extend(differing.map(|member| (member.value.clone(), *value)));
        }
        edits.sort_by_key(|(range, _)| range.start);
        if absent.is_empty() {
            return replaced(body, 0, edits);
        }
        let inside = self.body.iter().position(|&byte| byte == b'{').unwrap_or(0) + 1;
        let rest = replaced(body, inside, edits);
        let next = rest.iter().flatten().find(|byte| !byte.is_ascii_whitespace());
        if next != Some(&b'}') {
            absent.push(',');
        }
        [body.slice(..inside), Bytes::from(absent)].into_iter().chain(rest).collect()
    }

    /// The object without the members of a name, as pieces of its body.
    pub(crate) fn without(&self, name: &str) -> Vec<&'a [u8]> {
        let mut pieces = Vec::with_capacity(3);
        let mut from = 0;
        let mut first = true;
        for member in &self.members {
            let start = member.key.start - 1;
            if !self.is_named(member, name) {
                first = false;
                continue;
            }
            // With a member goes the comma that sets it apart: the one before it, or after the first one.
            let comma_before = self.body.get(from..start).and_then(|before| memchr::memrchr(b',', before));
            let (until, next) = match comma_before {
                Some(comma) if !first => (from + comma, member.value.end),
                _ => {
                    let after = self.body.get(member.value.end..).unwrap_or_default();
                    let space = after.len() - after.trim_ascii_start().len();
                    let comma = usize::from(after.trim_ascii_start().starts_with(b","));
                    (start, member.value.end + if comma == 1 { space + 1 } else { 0 })
                }
            };
            pieces.push(self.body.get(from..until).unwrap_or_default());
            from = next;
        }
        pieces.push(self.body.get(from..).unwrap_or_default());
        pieces
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| self.is_named(member, name))
    }

    fn is_named(&self, member: &Member, name: &str) -> bool {
        if !member.is_escaped {
            return self.body.get(member.key.clone()) == Some(name.as_bytes());
        }
        let quoted = member.key.start - 1..member.key.end + 1;
        self.body
            .get(quoted)
            .and_then(|quoted| serde_json::from_slice::<String>(quoted).ok())
            .is_some_and(|key| key == name)
    }
}

/// Whether a text is UTF-16 or UTF-32: it begins with the mark of one, or with more than a byte for what
/// takes one in UTF-8. What a `charset` says counts for nothing, for JSON has none.
fn is_wide(text: &[u8]) -> bool {
    matches!(text, [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [0, ..] | [_, 0, ..])
}

/// A body from a place on, with other places in it replaced, which are in order.
fn replaced(body: &Bytes, mut from: usize, edits: Vec<(Range<usize>, &str)>) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(2 * edits.len() + 1);
    for (range, value) in edits {
        // It is in what has been replaced, or follows on the first of a list, with which its comma has gone.
        if range.start < from {
            if value.is_empty() && range.end > from {
                from = cut_on(body, from, range.end);
            }
            continue;
        }
        pieces.push(body.slice(from..range.start));
        if !value.is_empty() {
            pieces.push(Bytes::copy_from_slice(value.as_bytes()));
        }
        from = range.end;
    }
    pieces.push(body.slice(from..));
    pieces
}

/// Where a cut up to `from` ends that goes on to `to`: with the first of a list goes the comma behind it.
fn cut_on(body: &[u8], from: usize, to: usize) -> usize {
    let is_first = body.get(..from).is_some_and(|before| before.trim_ascii_end().ends_with(b","));
    let after = body.get(to..).unwrap_or_default().trim_ascii_start().strip_prefix(b",");
    after.filter(|_| is_first).map_or(to, |after| body.len() - after.trim_ascii_start().len())
}

/// The `model` of a body, without building anything else. `None` if there is none, or no JSON object.
///
/// ```
/// let body = br#"{"messages":[{"role":"user","content":"hi"}],"model":"gpt-4o"}"#;
/// assert_eq!(nantian_ai::edit::model_of(body).as_deref(), Some("gpt-4o"));
/// ```
pub fn model_of(body: &[u8]) -> Option<Cow<'_, str>> {
    Object::parse(body).ok()?.text("model")
}

#[cfg(test)]
mod tests;
