//! Values by host pattern.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::ir::HostPattern;

/// Values by host pattern; the most specific comes first.
#[derive(Debug)]
pub(super) struct HostMap<T> {
    exact: HashMap<Box<str>, T, RandomState>,
    /// By the suffix without `*.`.
    suffix: HashMap<Box<str>, T, RandomState>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), suffix: HashMap::default(), any: None }
    }
}

impl<T: Default> HostMap<T> {
    /// The value of `pattern`, made if there is none.
    pub(super) fn entry(&mut self, pattern: &HostPattern) -> &mut T {
        match pattern {
            HostPattern::Exact(name) => self.exact.entry(name.as_str().into()).or_default(),
            HostPattern::Suffix(suffix) => self.suffix.entry(suffix.as_str().into()).or_default(),
            HostPattern::Any => self.any.get_or_insert_with(T::default),
        }
    }
}

impl<T> HostMap<T> {
    /// Every value whose pattern covers `host`, the most specific first.
    pub(super) fn covering<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a T> {
        let labels = if self.suffix.is_empty() { "" } else { host };
        let suffixes = labels.match_indices('.').filter_map(|(dot, _)| {
            // A wildcard stands for at least one label.
            if dot == 0 { None } else { self.suffix.get(host.get(dot + 1..)?) }
        });
        self.exact.get(host).into_iter().chain(suffixes).chain(self.any.as_ref())
    }

    /// Every value.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.suffix.values_mut()).chain(self.any.as_mut())
    }
}
