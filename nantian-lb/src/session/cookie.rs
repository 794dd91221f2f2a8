//! Cookies, as far as sessions need them: found and taken out of requests without parsing the others.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// The most cookies of one name that are looked at.
const MAX_NAMESAKES: usize = 16;

/// The values of the cookies of this name, in their order; browsers may send several, for different paths or domains.
pub(super) fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(COOKIE).into_iter();
    let pairs = lines.flat_map(|line| pairs(line.as_bytes()));
    pairs.filter_map(move |pair| value_of(pair, name)).take(MAX_NAMESAKES)
}

/// Takes all cookies of this name out; the others stay as they are.
pub(super) fn remove(headers: &mut HeaderMap, name: &str) {
    let has = |line: &HeaderValue| pairs(line.as_bytes()).any(|pair| value_of(pair, name).is_some());
    if !headers.get_all(COOKIE).iter().any(has) {
        return;
    }
    let lines: Vec<_> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let rest = if has(&line) { without(&line, name) } else { Some(line) };
        if let Some(rest) = rest {
            headers.append(COOKIE, rest);
        }
    }
}

fn without(line: &HeaderValue, name: &str) -> Option<HeaderValue> {
    let others = pairs(line.as_bytes()).filter(|pair| !pair.is_empty() && value_of(pair, name).is_none());
    let rest = others.collect::<Vec<_>>().join(&b"; "[..]);
    if rest.is_empty() { None } else { HeaderValue::from_bytes(&rest).ok() }
}

fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b';').map(<[u8]>::trim_ascii)
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = pair.strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn found(lines: &[&str]) -> Vec<String> {
        let headers = headers(lines);
        values(&headers, "s").map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    fn left(lines: &[&str]) -> Vec<String> {
        let mut headers = headers(lines);
        remove(&mut headers, "s");
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
