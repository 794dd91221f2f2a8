//! What the expressions of one namespace may take of the memory that all share.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

use super::{Finder, InvalidPattern, Patterns};

/// Most memory that the expressions of one namespace may take, in bytes.
const SHARE: usize = 16 << 20;

/// How many of them may be refused, by which the time is bounded that is spent on such ones.
const MAX_REFUSED: usize = 128;

/// How many others one counts for that is too large, which only compiling it tells.
const TOO_LARGE: usize = 8;

/// The shares of all namespaces, as one translation deals them out.
#[derive(Debug)]
pub(crate) struct Shares<'a> {
    patterns: &'a Patterns,
    spent: RefCell<HashMap<String, Spent>>,
}

/// The share of one namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share<'s> {
    shares: &'s Shares<'s>,
    namespace: &'s str,
}

#[derive(Debug, Default)]
struct Spent {
    memory: usize,
    refused: usize,
    /// What has been counted, and whether it is looked for within texts.
    known: HashSet<(bool, Box<str>)>,
}

// === impl Shares ===

impl<'a> Shares<'a> {
    pub(crate) fn new(patterns: &'a Patterns) -> Self {
        Self { patterns, spent: RefCell::default() }
    }

    pub(crate) fn of<'s>(&'s self, namespace: &'s str) -> Share<'s> {
        Share { shares: self, namespace }
    }
}

// === impl Share ===

impl Share<'_> {
    /// Whether an expression can match whole values.
    ///
    /// # Errors
    /// As [`Patterns::whole_match`], or the share is exhausted.
    pub(crate) fn whole_match(&self, expression: &str) -> Result<(), InvalidPattern> {
        self.take(false, expression, |patterns| Ok(patterns.whole_match(expression)?.memory()))
    }

    /// Whether an expression can be looked for within texts.
    ///
    /// # Errors
    /// As [`Patterns::finder`], or the share is exhausted.
    pub(crate) fn finder(&self, expression: &str) -> Result<(), InvalidPattern> {
        self.take(true, expression, |patterns| {
            patterns.finder(expression).map(|found: Finder| found.memory())
        })
    }

    fn take(
        &self,
        is_within: bool,
        expression: &str,
        compile: impl FnOnce(&Patterns) -> Result<usize, InvalidPattern>,
    ) -> Result<(), InvalidPattern> {
        let mut spent = self.shares.spent.borrow_mut();
        let spent = spent.entry(self.namespace.to_owned()).or_default();
        let key = (is_within, expression.into());
        let is_known = spent.known.contains(&key);
        if !is_known && spent.memory > SHARE {
            return Err(InvalidPattern::ShareExhausted { namespace: self.namespace.to_owned() });
        }
        if !is_known && spent.refused >= MAX_REFUSED {
            return Err(InvalidPattern::TooManyRefused { namespace: self.namespace.to_owned() });
        }
        let compiled = compile(self.shares.patterns);
        if !is_known {
            spent.known.insert(key);
            match &compiled {
                Ok(memory) => spent.memory += memory,
                Err(InvalidPattern::TooLarge) => spent.refused += TOO_LARGE,
                Err(_) => spent.refused += 1,
            }
        }
        compiled.map(drop)
    }
}
