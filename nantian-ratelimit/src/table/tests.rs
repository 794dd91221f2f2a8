use super::*;
use crate::key::Secret;

type Cells<'a> = &'a [u64];

fn keys(count: usize) -> Vec<Key> {
    let secret = Secret::new(1 << 63);
    let key = |name: usize| {
        let mut hasher = secret.hasher();
        hasher.value(Some(&name.to_be_bytes()));
        hasher.finish()
    };
    (0..count).map(key).collect()
}

fn insert(table: &Table<()>, key: Key, cells: Cells<'_>, spent: impl Fn(usize, u64) -> bool) -> bool {
    table.lock(table.position(key)).insert(key, cells, spent).is_some()
}

fn cells(table: &Table<()>, key: Key, count: usize) -> Option<Vec<u64>> {
    let slot = table.find(key)?;
    Some(slot.cells().iter().take(count).map(|cell| cell.load(Ordering::Acquire)).collect())
}

/// What the key at `position` holds.
fn values(position: usize, count: usize) -> Vec<u64> {
    (0..count).map(|cell| (position * 10 + cell) as u64).collect()
}

#[test]
fn every_key_keeps_its_cells_while_the_table_grows() {
    for count in [1, 2, 3, 7] {
        let table = Table::new(4000, count, || ());
        let keys = keys(2500);
        for (position, key) in keys.iter().enumerate() {
            assert_eq!(cells(&table, *key, count), None);
            assert!(insert(&table, *key, &values(position, count), |_, _| false));
        }
        for (position, key) in keys.iter().enumerate() {
            assert_eq!(cells(&table, *key, count), Some(values(position, count)));
        }
        assert_eq!(table.slots().count(), keys.len());
    }
}

#[test]
fn slots_are_bounded_and_no_key_in_use_loses_its_own() {
    for count in [1, 3, 7] {
        let table = Table::new(4000, count, || ());
        let keys = keys(40_000);
        let inserted: Vec<bool> =
            keys.iter().map(|key| insert(&table, *key, &values(1, count), |_, _| false)).collect();
        let total = inserted.iter().filter(|is_inserted| **is_inserted).count();
        assert!((4000..=6500).contains(&total), "{total} slots for 4000 keys");
        for (key, is_inserted) in keys.iter().zip(inserted) {
            assert_eq!(cells(&table, *key, count).is_some(), is_inserted);
        }
    }
}

#[test]
fn a_slot_is_given_away_only_if_all_its_cells_are_spent() {
    let table = Table::new(1, 2, || ());
    let keys = keys(1000);
    let spent = |_: usize, value: u64| value <= 10;
    let [half_spent, live] = [[5, 11], [11, 11]];
    let mut count = 0;
    while insert(&table, keys[count], if count == 0 { &half_spent } else { &live }, spent) {
        count += 1;
    }
    assert_eq!(cells(&table, keys[0], 2), Some(half_spent.to_vec()));
    table.find(keys[0]).unwrap().cells()[1].store(10, Ordering::Release);
    assert!(insert(&table, keys[count], &live, spent));
    assert_eq!(cells(&table, keys[0], 2), None);
    assert_eq!(cells(&table, keys[count], 2), Some(live.to_vec()));
}

#[test]
fn spent_keys_are_left_behind_when_the_table_grows() {
    let table = Table::new(1000, 1, || ());
    let keys = keys(1000);
    for (position, key) in keys.iter().enumerate() {
        let now = position as u64;
        assert!(insert(&table, *key, &[now + 10], |_, value| value <= now));
    }
    assert!(table.slots().count() < 500);
}

/// The keys of a full table that are near, of 50 000 with `cells` cells each, in buckets of `LINES` lines.
fn near<const LINES: usize>(cells: usize) -> usize {
    let table = Table::new(50_000, cells, || ());
    let keys = keys(50_000);
    for key in &keys {
        assert!(insert(&table, *key, &values(1, cells), |_, _| false));
    }
    keys.iter().filter(|key| table.find_near::<LINES>(**key).is_some()).count()
}

#[test]
fn most_keys_of_a_full_table_are_near() {
    for near in [near::<1>(1), near::<2>(3), near::<4>(7)] {
        assert!(near > 43_800, "{near} of 50000");
    }
}

#[test]
fn a_slot_stays_within_a_cache_line() {
    assert_eq!((size_of::<CacheLine>(), align_of::<CacheLine>()), (64, 64));
    assert!([2, 4, LINE].iter().all(|width| LINE.is_multiple_of(*width)));
}
