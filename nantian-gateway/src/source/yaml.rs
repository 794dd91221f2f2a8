//! Text of one manifest file to plain values, one document at a time.

use std::borrow::Cow;

use serde_json::Value;
use serde_saphyr::{
    DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, UserMessageFormatter, localizer::Localizer,
};

/// One document of a file, not yet read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// The line of the file on which its content begins, counted from 1.
    pub(super) line: usize,
    /// Everything between two separators.
    text: &'a str,
    /// The line of the file on which `text` begins, counted from 1.
    first_line: usize,
}

/// Text that is not YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub(super) struct SyntaxError {
    line: usize,
    column: usize,
    reason: String,
}

/// Splits a file where a line begins with `---`, as kubectl does, so that one broken document leaves the
/// others readable.
///
/// YAML allows such a line nowhere else. Comments and directives in front of the first separator are no
/// document.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut first_line = 1;
    let mut position = 0;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
            push(&mut documents, text.get(start..position).unwrap_or_default(), first_line);
            start = position + SEPARATOR.len();
            first_line = index + 1;
        }
        position += line.len();
    }
    push(&mut documents, text.get(start..).unwrap_or_default(), first_line);
    documents
}

// === impl Document ===

impl Document<'_> {
    /// Reads the document; `None` where it holds nothing but comments.
    ///
    /// Plain scalars mean what they mean to kubectl: `yes`, `no`, `on` and `off` are booleans, `0755` is
    /// octal. A field that wants a string then says so, rather than receiving the text on one machine and a
    /// boolean on the other.
    ///
    /// # Errors
    ///
    /// [`SyntaxError`] with the position in the file.
    pub(super) fn read(&self) -> Result<Option<Value>, SyntaxError> {
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::Error,
            legacy_octal_numbers: true,
            non_finite_float_policy: NonFiniteFloatPolicy::AsString,
            with_snippet: false,
        };
        if is_blank(self.text) {
            return Ok(None);
        }
        match serde_saphyr::from_str_with_options(self.text, options) {
            Ok(Value::Null) => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(error) => serde_json::from_str(self.text).map(Some).map_err(|_| self.locate(&error)),
        }
    }

    fn locate(&self, error: &serde_saphyr::Error) -> SyntaxError {
        let location = error.location();
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let line = location.map_or(1, |location| count(location.line()).max(1));
        let column = location.map_or(1, |location| count(location.column()).max(1));
        let reason = error.render_with_formatter(&UserMessageFormatter.with_localizer(&WithoutLocation));
        SyntaxError { line: self.first_line + line - 1, column, reason }
    }
}

const SEPARATOR: &str = "---";

fn is_separator(line: &str) -> bool {
    line.strip_prefix(SEPARATOR).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn push<'a>(documents: &mut Vec<Document<'a>>, text: &'a str, first_line: usize) {
    if documents.is_empty() && first_line == 1 && is_blank(text) {
        return;
    }
    let content = text.lines().take_while(|line| is_comment(line)).count();
    documents.push(Document { line: first_line + content, text, first_line });
}

fn is_blank(text: &str) -> bool {
    text.lines().all(is_comment)
}

fn is_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%')
}

/// Leaves the position out of the parser's message, where it would count from the document instead of the
/// file.
struct WithoutLocation;

impl Localizer for WithoutLocation {
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        documents(text).iter().map(|document| document.line).collect()
    }

    fn read(text: &str) -> Value {
        documents(text).first().unwrap().read().unwrap().unwrap()
    }

    fn error(text: &str) -> String {
        documents(text).last().unwrap().read().unwrap_err().to_string()
    }

    #[test]
    fn documents_begin_where_their_content_does() {
        assert_eq!(lines("a: 1\n"), [1]);
        assert_eq!(lines("# licence\n\n---\na: 1\n"), [4]);
        assert_eq!(lines("---\na: 1\n---\n# nothing\n---\n\nb: 2"), [2, 5, 7]);
        assert_eq!(lines("a: 1\n--- # second\nb: 2\n"), [1, 3]);
        assert_eq!(lines("\u{feff}a: |\n ---\n x---\n"), [1]);
    }

    #[test]
    fn a_document_of_comments_is_empty() {
        for text in ["", "# a\n  # b\n", "null\n", "~"] {
            assert!(documents(text).iter().all(|document| document.read().unwrap().is_none()), "{text:?}");
        }
    }

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubectl() {
        let text = "{a: yes, b: off, c: 'no', d: 0755, e: 1_000, f: 2024-01-01, g: 12:30, h: .inf, i: null}";
        let expected = json!({
            "a": true, "b": false, "c": "no", "d": 493, "e": 1000, "f": "2024-01-01", "g": "12:30", "h": ".inf", "i": null,
        });
        assert_eq!(read(text), expected);
    }

    #[test]
    fn json_is_read_with_its_tabs() {
        assert_eq!(read("{\n\t\"a\": [1,\n\t\t2]\n}\n"), json!({ "a": [1, 2] }));
    }

    #[test]
    fn anchors_and_merge_keys_are_expanded() {
        assert_eq!(
            read("a: &x {b: 1}\nc: {<<: *x, d: 2}"),
            json!({ "a": { "b": 1 }, "c": { "b": 1, "d": 2 } })
        );
    }

    #[test]
    fn a_syntax_error_names_the_position_in_the_file() {
        for (text, expected) in [
            (
                "a: 1\n---\nb:\n\tc: 1\n",
                "line 4, column 2: tabs disallowed within this context (block indentation)",
            ),
            (
                "a: 1\n---\na: 1\nb: 2\na: 3\n",
                "line 5, column 1: duplicate mapping key `a` is not allowed here",
            ),
            ("a: [1, 2\nb: 3\n", "line 2, column 2: illegal placement of ':' indicator"),
            ("a: *nowhere\n", "line 1, column 4: reference to unknown value"),
            ("a: 1\n...\nb: 1\n", "line 3, column 1: only single YAML document expected but multiple found"),
        ] {
            assert_eq!(error(text), expected);
        }
    }

    #[test]
    fn a_syntax_error_shows_nothing_of_the_text() {
        assert_eq!(error("password: \"hunter2\n"), "line 1, column 11: unclosed quote");
    }
}
