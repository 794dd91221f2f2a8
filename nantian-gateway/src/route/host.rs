//! Values by host pattern.

use std::collections::BTreeMap;

use super::{
    depths::{Depths, depth},
    index::{Index, TableId, narrow},
};
use crate::ir::HostPattern;

/// Tables of values by host pattern; the most specific comes first.
#[derive(Debug)]
pub(super) struct Hosts<V> {
    index: Index<V>,
    tables: Box<[Table<V>]>,
}

/// What a table has beside the names in the index.
#[derive(Debug, Clone, Copy)]
struct Table<V> {
    has_names: bool,
    /// By the suffix without `*.`.
    suffixes: Depths,
    any: Option<V>,
}

/// The names of a table and its suffixes are apart.
fn spaces(table: u32) -> (TableId, TableId) {
    (TableId(table * 2), TableId(table * 2 + 1))
}

impl<V: Copy> Hosts<V> {
    /// Makes a table of each of `patterns`; they are numbered from 0.
    pub(super) fn new(patterns: &[BTreeMap<HostPattern, V>]) -> Self {
        let mut entries = Vec::new();
        let mut tables = Vec::new();
        for (number, patterns) in patterns.iter().enumerate() {
            let (names, suffixes) = spaces(narrow(number));
            let mut table = Table { has_names: false, suffixes: Depths::default(), any: None };
            for (pattern, value) in patterns {
                match pattern {
                    HostPattern::Exact(name) => {
                        table.has_names = true;
                        entries.push((names, name.as_str(), *value));
                    }
                    HostPattern::Suffix(suffix) => {
                        table.suffixes.insert(depth(suffix, b'.'));
                        entries.push((suffixes, suffix.as_str(), *value));
                    }
                    HostPattern::Any => table.any = Some(*value),
                }
            }
            tables.push(table);
        }
        Self { index: Index::new(entries.into_iter()), tables: tables.into() }
    }

    /// Every value of `table` whose pattern covers `host`, the most specific first.
    pub(super) fn covering<'a>(&'a self, table: u32, host: &'a str) -> impl Iterator<Item = &'a V> {
        let (names, suffixes) = spaces(table);
        let table = self.tables.get(table as usize);
        let name = table.filter(|table| table.has_names).and_then(|_| self.index.get(names, host));
        let wild = table.filter(|table| !table.suffixes.is_empty()).into_iter().flat_map(move |table| {
            let dots = memchr::memchr_iter(b'.', host.as_bytes()).enumerate();
            let all = depth(host, b'.');
            dots.filter_map(move |(before, dot)| {
                // A wildcard stands for at least one label.
                if dot == 0 || !table.suffixes.contains(all - before - 1) {
                    return None;
                }
                self.index.get(suffixes, host.get(dot + 1..)?)
            })
        });
        name.into_iter().chain(wild).chain(table.and_then(|table| table.any.as_ref()))
    }
}
