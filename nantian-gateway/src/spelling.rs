//! The one spelling of a path, so that no spelling dodges a route.
//!
//! The path that is matched is the path that the backend sees:
//!
//! - `%41` becomes `A`, `%2d` becomes `-`: unreserved characters are not encoded (RFC 3986, section 6.2.2.2);
//!   other escapes are kept, in upper case. What is not ASCII is written as the escapes of its UTF-8, which
//!   is what was meant (RFC 3987, section 3.1).
//! - `/a/./b/../c` becomes `/a/c` (section 5.2.4); `..` above the root is refused.
//! - `//` becomes `/`.
//! - `\`, control characters, `%00` and broken escapes are refused, and so is an encoded slash or backslash
//!   (`%2F`, `%5C`) beside a dot segment, because a backend that decodes it would see another path.

/// A path that is refused, because it could mean two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPath {
    #[error("the path has a broken escape")]
    Escape,
    #[error("the path has a forbidden character")]
    Character,
    #[error("the path leaves the root")]
    AboveRoot,
    #[error("the path hides a dot segment")]
    HiddenDots,
}

/// Whether a path needs no work: no escape, no backslash, no empty segment, no segment that begins with a
/// dot.
pub(crate) fn is_normal(path: &str) -> bool {
    let mut previous = 0;
    path.starts_with('/')
        && path.bytes().all(|byte| {
            let after_slash = previous == b'/';
            previous = byte;
            !(matches!(byte, b'%' | b'\\' | 0..=b' ' | 0x7f..) || after_slash && matches!(byte, b'/' | b'.'))
        })
}

/// The one spelling of a path.
pub(crate) fn normal(path: &str) -> Result<String, InvalidPath> {
    let decoded = unescaped(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in decoded.split('/') {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(InvalidPath::AboveRoot)?;
            }
            segment if hides_dots(segment) => return Err(InvalidPath::HiddenDots),
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(decoded.len() + 1);
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if ends_in_slash || normal.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

/// Whether a segment would be, or have, a dot segment if its path parameters were cut off (`..;a=b`, `..%3B`)
/// and its encoded slashes and backslashes decoded.
fn hides_dots(segment: &str) -> bool {
    is_dots(segment)
        || (segment.contains("%2F") || segment.contains("%5C"))
            && segment.split("%2F").flat_map(|part| part.split("%5C")).any(is_dots)
}

fn is_dots(part: &str) -> bool {
    let end = part.trim_start_matches('.');
    matches!(part.len() - end.len(), 1 | 2)
        && (end.is_empty() || end.starts_with(';') || end.starts_with("%3B"))
}

/// A path whose escapes have their one spelling, if they need any.
pub(crate) fn unescaped(path: &str) -> Result<String, InvalidPath> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        push_checked(&mut decoded, before)?;
        let digits = escape.get(1..3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let digits = digits.ok_or(InvalidPath::Escape)?;
        let byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidPath::Escape)?;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                decoded.push(char::from(byte))
            }
            0 => return Err(InvalidPath::Character),
            _ => {
                decoded.push('%');
                decoded.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = escape.get(3..).unwrap_or_default();
    }
    push_checked(&mut decoded, rest)?;
    Ok(decoded)
}

fn push_checked(out: &mut String, text: &str) -> Result<(), InvalidPath> {
    if text.bytes().any(|byte| byte == b'\\' || byte <= b' ' || byte == 0x7f) {
        return Err(InvalidPath::Character);
    }
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            let mut bytes = [0; 4];
            let escapes = character.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}"));
            out.extend(escapes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        let cases = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a//b", "/a/b"),
            ("//a", "/a"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61dmin", "/admin"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E/b", "/a/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/..b/c", "/a/..b/c"),
            ("/a%2fb", "/a%2Fb"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/\u{20ac}/%41", "/%E2%82%AC/A"),
            ("/a%20b", "/a%20b"),
            ("/a%0d%0ab%09%7f", "/a%0D%0Ab%09%7F"),
        ];
        for (target, expected) in cases {
            assert_eq!(normal(target).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn a_path_that_could_mean_two_things_is_refused() {
        let cases = [
            ("/..", InvalidPath::AboveRoot),
            ("/a/../../b", InvalidPath::AboveRoot),
            ("/a/%2e%2e/%2e%2e/b", InvalidPath::AboveRoot),
            ("/a/..%2fb", InvalidPath::HiddenDots),
            ("/a/x%2f..%2fb", InvalidPath::HiddenDots),
            ("/a/%2e%2e%5cb", InvalidPath::HiddenDots),
            ("/a/..;/b", InvalidPath::HiddenDots),
            ("/a/.;x=1/b", InvalidPath::HiddenDots),
            ("/a/..%3b/b", InvalidPath::HiddenDots),
            ("/a\\b", InvalidPath::Character),
            ("/a%00b", InvalidPath::Character),
            ("/a%zz", InvalidPath::Escape),
            ("/a%2", InvalidPath::Escape),
            ("/a%+1", InvalidPath::Escape),
        ];
        for (target, expected) in cases {
            assert_eq!(normal(target), Err(expected), "{target}");
        }
    }

    #[test]
    fn normalizing_twice_changes_nothing() {
        for target in ["/a//b/%41/../c%2fd/.", "/%7euser/%E2%82%AC", "/a/b/c/../../d//"] {
            let once = normal(target).unwrap();
            assert_eq!(normal(&once).as_deref(), Ok(once.as_str()));
        }
    }
}
