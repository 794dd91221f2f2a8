//! How a server wants to know who asks (RFC 9110, 11.6.1).

/// A challenge that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Challenge<'a> {
    /// With user and password.
    Basic,
    /// With a token that is to be had at `realm`.
    Bearer {
        realm: &'a str,
        service: &'a str,
        /// What the token is to be good for.
        scope: Option<&'a str>,
    },
}

// === impl Challenge ===

impl<'a> Challenge<'a> {
    /// Those of a field, in their order.
    pub(super) fn all(field: &'a str) -> impl Iterator<Item = Self> {
        let mut challenges: Vec<(&str, Vec<(&str, &str)>)> = Vec::new();
        for element in elements(field) {
            // A scheme stands before its first parameter, or alone.
            let (scheme, parameter) = match element.split_once([' ', '\t']) {
                Some((scheme, first)) if !scheme.contains('=') && !first.trim_start().starts_with('=') => {
                    (Some(scheme), first)
                }
                None if !element.contains('=') => (Some(element), ""),
                _ => (None, element),
            };
            challenges.extend(scheme.map(|scheme| (scheme, Vec::new())));
            if let (Some((_, parameters)), Some((name, value))) =
                (challenges.last_mut(), parameter.split_once('='))
            {
                parameters.push((name.trim(), value.trim().trim_matches('"')));
            }
        }
        challenges.into_iter().filter_map(|(scheme, parameters)| Self::read(scheme, &parameters))
    }

    fn read(scheme: &str, parameters: &[(&str, &'a str)]) -> Option<Self> {
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let parameter = |wanted: &str| {
            let found = parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| *value)
        };
        let realm = parameter("realm").filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
        let service = parameter("service").unwrap_or_default();
        Some(Self::Bearer { realm, service, scope: parameter("scope") })
    }
}

/// What stands between commas that are in no quotes.
fn elements(field: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let elements = field.split(move |letter| {
        let is_end = letter == ',' && !is_quoted;
        is_quoted ^= letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && is_quoted && !is_escaped;
        is_end
    });
    elements.map(str::trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_of_a_field_are_told_apart() {
        let bearer = |realm, service, scope| Challenge::Bearer { realm, service, scope };
        let wide = Some("repository:a/b:pull,push");
        for (field, expected) in [
            ("Basic realm=\"r\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"bearer realm = "https://t/x?a=b,c", Service=s"#,
                vec![bearer("https://t/x?a=b,c", "s", None)],
            ),
            (
                r#"Bearer realm="https://t",service="s",scope="repository:a/b:pull,push""#,
                vec![bearer("https://t", "s", wide)],
            ),
            (
                r#"Negotiate, Basic realm="a \", b", Digest realm="c", Bearer service=s,realm="https://t""#,
                vec![Challenge::Basic, bearer("https://t", "s", None)],
            ),
            ("Negotiate YWJj==, Basic", vec![Challenge::Basic]),
            (r#"Bearer service="s""#, vec![]),
            (r#"realm="x", , ="#, vec![]),
        ] {
            assert_eq!(Challenge::all(field).collect::<Vec<_>>(), expected, "{field}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_field_is_read_or_passed_over(field in "[BearBsic =\",\\\\]{0,40}") {
            let _ = Challenge::all(&field).count();
        }
    }
}
