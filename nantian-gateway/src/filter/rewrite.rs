//! URLRewrite, and the path arithmetic that redirects share.

use http::{Uri, header, request::Parts, uri::PathAndQuery};

use crate::ir::{PathRewrite, UrlRewrite};

/// The rewritten target is longer than a URI can be, and the one from before must not be sent on in its
/// place.
#[derive(Debug)]
pub(super) struct TargetTooLong;

impl UrlRewrite {
    /// Changes authority and path.
    pub(super) fn apply(&self, parts: &mut Parts) -> Result<(), TargetTooLong> {
        if let Some(path) = &self.path {
            let path = rewritten(path, parts.uri.path());
            parts.uri = with_path(&parts.uri, &path).ok_or(TargetTooLong)?;
        }
        if let Some(hostname) = &self.hostname {
            parts.headers.insert(header::HOST, hostname.clone());
            let target = parts.uri.path_and_query().cloned();
            parts.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
        }
        Ok(())
    }
}

/// The path after `rewrite`.
///
/// A prefix is replaced by whole segments (GEP-726): no `//` appears and no `/` is lost at the seam.
pub(super) fn rewritten(rewrite: &PathRewrite, path: &str) -> String {
    let (matched, replacement) = match rewrite {
        PathRewrite::Full(replacement) => return replacement.clone(),
        PathRewrite::Prefix { matched, replacement } => (matched.as_str(), replacement.as_str()),
    };
    let rest = path.strip_prefix(matched).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match (replacement, rest) {
        (_, None) => path.to_owned(),
        ("", Some("")) => "/".to_owned(),
        (replacement, Some("")) => replacement.to_owned(),
        (replacement, Some(rest)) => {
            format!("{}{rest}", replacement.strip_suffix('/').unwrap_or(replacement))
        }
    }
}

/// `uri` with another path; the query stays. `None` if that is more than a URI can hold: the translator
/// accepts only paths that one can carry.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        let cases = [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "/", "/foo/bar", "/bar"),
            ("/foo", "", "/foo/bar", "/bar"),
            ("/foo", "/", "/foo", "/"),
            ("/foo", "/", "/foo/", "/"),
            ("", "/xyz", "/bar", "/xyz/bar"),
            ("", "/xyz", "/", "/xyz/"),
            ("/foo", "/xyz", "/food", "/food"),
            ("/foo", "/xyz", "/other/foo", "/other/foo"),
        ];
        for (matched, replacement, path, expected) in cases {
            let rewrite =
                PathRewrite::Prefix { matched: matched.to_owned(), replacement: replacement.to_owned() };
            assert_eq!(rewritten(&rewrite, path), expected, "{matched} {replacement} {path}");
        }
    }

    #[test]
    fn a_full_path_replaces_all_but_the_query() {
        let uri: Uri = "/a/b?c=d".parse().unwrap();
        let path = rewritten(&PathRewrite::Full("/x".to_owned()), uri.path());
        assert_eq!(with_path(&uri, &path).unwrap(), "/x?c=d");
    }
}
