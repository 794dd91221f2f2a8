//! Cookies, as far as sessions need them: found and taken out of requests without parsing the others.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use memchr::{memchr, memmem};

/// The most cookies of one name that are looked at.
const MAX_NAMESAKES: usize = 16;

/// The cookies of one name.
#[derive(Debug)]
pub(super) struct Cookies {
    name: memmem::Finder<'static>,
}

// === impl Cookies ===

impl Cookies {
    pub(super) fn new(name: &str) -> Self {
        Self { name: memmem::Finder::new(name).into_owned() }
    }

    /// Their values, in their order; browsers may send several, for different paths or domains.
    pub(super) fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let lines = headers.get_all(COOKIE).into_iter();
        lines.flat_map(move |line| self.values_of(line.as_bytes())).take(MAX_NAMESAKES)
    }

    fn values_of<'a>(&'a self, line: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.name.find_iter(line).filter_map(move |at| {
            let before = line.get(..at)?.trim_ascii_end();
            if !before.is_empty() && !before.ends_with(b";") {
                return None;
            }
            let value = self.value_of(line.get(at..)?)?;
            let value = value.get(..memchr(b';', value).unwrap_or(value.len()))?;
            Some(unquoted(value.trim_ascii()))
        })
    }

    /// What follows the name and the sign of a pair.
    fn value_of<'a>(&self, pair: &'a [u8]) -> Option<&'a [u8]> {
        pair.strip_prefix(self.name.needle())?.trim_ascii_start().strip_prefix(b"=")
    }

    /// Takes all of them out; the others stay as they are.
    pub(super) fn remove(&self, headers: &mut HeaderMap) {
        let has = |line: &HeaderValue| self.values_of(line.as_bytes()).next().is_some();
        if !headers.get_all(COOKIE).iter().any(has) {
            return;
        }
        let lines: Vec<_> = headers.get_all(COOKIE).iter().cloned().collect();
        headers.remove(COOKIE);
        for line in lines {
            let rest = if has(&line) { self.without(&line) } else { Some(line) };
            if let Some(rest) = rest {
                headers.append(COOKIE, rest);
            }
        }
    }

    fn without(&self, line: &HeaderValue) -> Option<HeaderValue> {
        let pairs = line.as_bytes().split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let others = pairs.filter(|pair| !pair.is_empty() && self.value_of(pair).is_none());
        let rest = others.collect::<Vec<_>>().join(&b"; "[..]);
        if rest.is_empty() { None } else { HeaderValue::from_bytes(&rest).ok() }
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn found(lines: &[&str]) -> Vec<String> {
        let (headers, cookies) = (headers(lines), Cookies::new("s"));
        cookies.values(&headers).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    fn left(lines: &[&str]) -> Vec<String> {
        let mut headers = headers(lines);
        Cookies::new("s").remove(&mut headers);
        headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_cookie_of_the_name_is_found_however_it_is_written() {
        assert_eq!(found(&["a=1; s=x; b=2;s=\"y\"", "S=no; s = z ;ss=no"]), ["x", "y", "z"]);
        assert_eq!(found(&["a=s=1", "as=1", ""]), Vec::<String>::new());
        assert_eq!(found(&["s="]), [""]);
        assert_eq!(found(&["s=1;".repeat(99).as_str()]).len(), MAX_NAMESAKES);
    }

    #[test]
    fn the_others_stay_as_they_are() {
        assert_eq!(left(&["a=1; s=x; b=2", "c=3;d=4", "s=y"]), ["a=1; b=2", "c=3;d=4"]);
        assert_eq!(left(&["a=1;b=2"]), ["a=1;b=2"]);
        assert_eq!(left(&["s=x"]), Vec::<String>::new());
    }
}
