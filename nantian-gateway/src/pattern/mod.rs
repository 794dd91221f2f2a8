//! Regular expressions, each compiled once, into automata that look at no character of a text twice.
//!
//! Tenants write the expressions and clients the texts. An engine that falls back to trying each of many ways
//! takes seconds for some of them, on a worker that serves everybody. An automaton takes some nanoseconds for
//! a character, whatever it has read before, and all the memory that it will ever take is known once it is
//! compiled; an expression that would take too much is refused then.

mod alphabet;
mod automaton;
mod share;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use foldhash::quality::RandomState;
use regex_syntax::hir::Hir;

pub use self::automaton::WholeMatch;
pub(crate) use self::{
    automaton::Finder,
    share::{Share, Shares},
};
use crate::sync::lock;

/// How many characters the expressions that one request meets may read, which takes some 40 ms.
const EFFORT: usize = 16 << 20;

/// The expressions of the configuration, compiled; its clones share them.
///
/// The translator and the compiler ask the same one, so that a reload compiles only what is new.
#[derive(Clone, Default)]
pub struct Patterns {
    whole: Arc<Mutex<Table<WholeMatch>>>,
    finders: Arc<Mutex<Table<Finder>>>,
}

type Table<T> = HashMap<Box<str>, Entry<T>, RandomState>;

struct Entry<T> {
    verdict: Result<T, InvalidPattern>,
    /// Asked for since the last sweep.
    is_used: bool,
}

/// A regular expression that is not served.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPattern {
    /// It is none.
    #[error("{0}")]
    Syntax(Arc<str>),
    /// Its automaton has too many states, or takes too long to make.
    #[error(
        "takes more than 1 MiB or too long when compiled: fewer choices take less, as do + and * in place of counts"
    )]
    TooLarge,
    /// It has more kinds of characters than an automaton can tell apart.
    #[error("tells too many kinds of characters apart")]
    TooManyCharacters,
    /// It means two kinds of words.
    #[error("\\b of ASCII and \\b of Unicode are not served in one expression")]
    MixedWords,
    /// What the objects of its namespace say takes too much already.
    #[error("the regular expressions of namespace {namespace} take more than 16 MiB")]
    ShareExhausted {
        /// The namespace.
        namespace: String,
    },
    /// So many of its namespace are refused that no more are tried.
    #[error("too many other regular expressions of namespace {namespace} are not served")]
    TooManyRefused {
        /// The namespace.
        namespace: String,
    },
}

/// How many characters expressions may still read for one request.
///
/// Where it is exhausted nothing matches any more, so that whoever asks must look at it before he takes that
/// for an answer.
#[derive(Debug)]
pub struct Effort {
    left: Cell<usize>,
}

// === impl Patterns ===

impl Patterns {
    /// The expression of a [`PathMatch::Regex`](crate::ir::PathMatch::Regex) or
    /// [`ValueMatch::Regex`](crate::ir::ValueMatch::Regex), so that it matches whole values only.
    ///
    /// The translator refuses a route whose expressions do not compile here, so that the compiler meets none
    /// of them.
    ///
    /// # Errors
    /// The expression is malformed, or takes more than 1 MiB when compiled.
    pub fn whole_match(&self, expression: &str) -> Result<WholeMatch, InvalidPattern> {
        compiled(&self.whole, expression, WholeMatch::new)
    }

    /// The same for an expression that is looked for within texts.
    ///
    /// # Errors
    /// The expression is malformed, or takes more than 1 MiB when compiled for one direction.
    pub(crate) fn finder(&self, expression: &str) -> Result<Finder, InvalidPattern> {
        compiled(&self.finders, expression, Finder::new)
    }

    /// Forgets what nobody has asked for since the last sweep.
    pub fn sweep(&self) {
        sweep(&mut lock(&self.whole));
        sweep(&mut lock(&self.finders));
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns")
            .field("whole", &lock(&self.whole).len())
            .field("finders", &lock(&self.finders).len())
            .finish()
    }
}

fn compiled<T: Clone>(
    table: &Mutex<Table<T>>,
    expression: &str,
    compile: impl FnOnce(&str) -> Result<T, InvalidPattern>,
) -> Result<T, InvalidPattern> {
    if let Some(entry) = lock(table).get_mut(expression) {
        entry.is_used = true;
        return entry.verdict.clone();
    }
    let verdict = compile(expression);
    lock(table).insert(expression.into(), Entry { verdict: verdict.clone(), is_used: true });
    verdict
}

fn sweep<T>(table: &mut Table<T>) {
    table.retain(|_, entry| std::mem::take(&mut entry.is_used));
}

/// What an expression says.
///
/// # Errors
/// [`InvalidPattern::Syntax`] says why it is none.
pub(crate) fn parse(expression: &str) -> Result<Hir, InvalidPattern> {
    regex_syntax::parse(expression).map_err(|error| InvalidPattern::Syntax(error.to_string().into()))
}

// === impl InvalidPattern ===

impl InvalidPattern {
    /// Whether it is no regular expression, rather than one that cannot be served.
    pub(crate) fn is_malformed(&self) -> bool {
        matches!(self, Self::Syntax(_))
    }
}

// === impl Effort ===

impl Effort {
    /// Whether expressions have read so much that nothing matches any more.
    pub fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }

    fn spend(&self, characters: usize) {
        self.left.set(self.left.get().saturating_sub(characters));
    }
}

impl Default for Effort {
    fn default() -> Self {
        Self { left: Cell::new(EFFORT) }
    }
}
