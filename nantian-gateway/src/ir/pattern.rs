//! Regular expressions in matches.

use regex::{Error, Regex, RegexBuilder};

/// Most memory that one compiled expression may take, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// Compiles an expression of [`PathMatch::Regex`](super::PathMatch::Regex) or
/// [`ValueMatch::Regex`](super::ValueMatch::Regex), so that it matches whole values only.
///
/// The translator refuses a route whose expressions do not compile here, so that the compiler meets none of them.
///
/// # Errors
///
/// The expression is malformed, or takes more than 1 MiB when compiled.
pub fn whole_match(expression: &str) -> Result<Regex, Error> {
    let compile = |expression: &str| RegexBuilder::new(expression).size_limit(SIZE_LIMIT).build();
    // By itself first: `a)(b` must not become valid between the anchors.
    compile(expression)?;
    compile(&format!("^(?:{expression})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_whole_values_only() {
        let regex = whole_match("/v1|/v1/users").unwrap();
        assert!(regex.is_match("/v1/users"));
        assert!(!regex.is_match("/v1/users/7"));
        assert!(!regex.is_match("/api/v1"));
    }

    #[test]
    fn an_unbalanced_or_huge_expression_is_refused() {
        assert!(whole_match("a)(b").is_err());
        assert!(whole_match(r"(\w{200}){200}").is_err());
    }
}
