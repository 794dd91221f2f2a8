//! Corrections of levels.

use crate::limit::Limit;

/// Items that limits are to take, or to give back.
#[derive(Debug, Default)]
pub(super) struct Items(Vec<(Limit, i64)>);

// === impl Items ===

impl Items {
    /// Those that are not 0.
    pub(super) fn new<'a>(items: impl Iterator<Item = (&'a Limit, i64)>) -> Self {
        let items = items.filter(|(_, items)| *items != 0);
        Self(items.map(|(limit, items)| (limit.clone(), items)).collect())
    }

    /// Those of `limit`, whatever its amount was.
    pub(super) fn of(&self, limit: &Limit) -> i64 {
        let meant = self.0.iter().find(|(other, _)| other.is_same_as(limit));
        meant.map_or(0, |(_, items)| *items)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Limit, i64)> {
        self.0.iter().map(|(limit, items)| (limit, *items))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether some limit gets something back.
    pub(super) fn give_back(&self) -> bool {
        self.0.iter().any(|(_, items)| *items < 0)
    }
}
