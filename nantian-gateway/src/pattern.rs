//! Regular expressions in matches, each compiled once.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use foldhash::quality::RandomState;
use regex::{Error, Regex, RegexBuilder};

use crate::sync::lock;

/// Most memory that one compiled expression may take, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// The expressions of the configuration, compiled; its clones share them.
///
/// The translator and the compiler ask the same one, so that a reload compiles only what is new.
#[derive(Clone, Default)]
pub struct Patterns {
    compiled: Arc<Mutex<HashMap<Box<str>, Entry, RandomState>>>,
}

struct Entry {
    verdict: Result<Regex, Error>,
    /// Asked for since the last sweep.
    is_used: bool,
}

impl Patterns {
    /// The expression of a [`PathMatch::Regex`](crate::ir::PathMatch::Regex) or
    /// [`ValueMatch::Regex`](crate::ir::ValueMatch::Regex), so that it matches whole values only.
    ///
    /// The translator refuses a route whose expressions do not compile here, so that the compiler meets none
    /// of them.
    ///
    /// # Errors
    /// The expression is malformed, or takes more than 1 MiB when compiled.
    pub fn whole_match(&self, expression: &str) -> Result<Regex, Error> {
        if let Some(entry) = self.lock().get_mut(expression) {
            entry.is_used = true;
            return entry.verdict.clone();
        }
        let verdict = whole_match(expression);
        self.lock().insert(expression.into(), Entry { verdict: verdict.clone(), is_used: true });
        verdict
    }

    /// Forgets what nobody has asked for since the last sweep.
    pub fn sweep(&self) {
        self.lock().retain(|_, entry| std::mem::take(&mut entry.is_used));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Entry, RandomState>> {
        lock(&self.compiled)
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns").field("compiled", &self.lock().len()).finish()
    }
}

pub(crate) fn whole_match(expression: &str) -> Result<Regex, Error> {
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
    fn what_is_asked_for_again_is_kept_and_the_rest_forgotten() {
        let patterns = Patterns::default();
        for _ in 0..3 {
            patterns.whole_match("a+").unwrap();
            patterns.whole_match("(").unwrap_err();
            patterns.whole_match("b+").unwrap();
            patterns.sweep();
        }
        assert_eq!(patterns.lock().len(), 3);
        patterns.whole_match("b+").unwrap();
        patterns.sweep();
        assert_eq!(patterns.lock().keys().map(|key| &**key).collect::<Vec<_>>(), ["b+"]);
    }

    #[test]
    fn an_unbalanced_or_huge_expression_is_refused() {
        assert!(whole_match("a)(b").is_err());
        assert!(whole_match(r"(\w{200}){200}").is_err());
    }
}
