use proptest::prelude::*;

use super::*;

fn pods(weights: impl IntoIterator<Item = u32>) -> Vec<(String, u32)> {
    let name = |(at, weight): (usize, u32)| (format!("shop/pod-{at}"), weight);
    weights.into_iter().enumerate().map(name).collect()
}

fn turns_of(fillers: &[Filler]) -> Vec<u32> {
    turns(fillers, rounds(fillers))
}

/// The owner of each slot by name.
fn owners(pods: &[(String, u32)], slots: u32) -> Vec<&str> {
    let shares: Vec<_> = pods.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
    let owners = fill(&shares, slots).into_iter();
    owners.map(|owner| shares[owner as usize].0).collect()
}

/// The number of slots of each, in the order of the pods.
fn quotas(pods: &[(String, u32)], slots: u32) -> Vec<u64> {
    let owners = owners(pods, slots);
    let count = |id: &str| owners.iter().filter(|&&owner| owner == id).count() as u64;
    pods.iter().map(|(id, _)| count(id)).collect()
}

/// The share, in 1/10 000, of slots that changed hands though neither owner came or went.
fn needlessly_moved(before: &[(String, u32)], after: &[(String, u32)]) -> usize {
    let has = |pods: &[(String, u32)], owner: &str| pods.iter().any(|(id, _)| id == owner);
    let (old, new) = (owners(before, SLOTS), owners(after, SLOTS));
    let moved = old.iter().zip(&new).filter(|(old, new)| old != new && has(after, old) && has(before, new));
    moved.count() * 10_000 / SLOTS as usize
}

/// P3, of its first part.
#[test]
fn equal_endpoints_have_equal_shares_give_or_take_a_slot() {
    for n in [1, 2, 3, 10, 100, 655] {
        let quotas = quotas(&pods(vec![1; n]), SLOTS);
        let (least, most) = (quotas.iter().min().unwrap(), quotas.iter().max().unwrap());
        assert!(most - least <= 1, "n {n}: {least} to {most}");
    }
}

/// P3: of 10 000 keys at most 200 move between endpoints that stay; a new one has its share but for 200 at
/// once.
#[test]
fn a_change_of_the_set_moves_hardly_a_key_that_it_need_not_move() {
    for n in [2, 10, 100, 655] {
        let many = pods(vec![1; n]);
        for gone in [0, n / 2, n - 1] {
            let mut fewer = many.clone();
            fewer.remove(gone);
            for (before, after) in [(&many, &fewer), (&fewer, &many)] {
                let moved = needlessly_moved(before, after);
                assert!(moved <= 200, "n {n}, {gone} gone: {moved} in 10 000");
            }
            let taken = quotas(&many, SLOTS)[gone] * 10_000 / u64::from(SLOTS);
            assert!(taken + 200 >= 10_000 / n as u64, "n {n}: {taken} in 10 000 move to the new one");
        }
    }
}

#[test]
fn a_change_of_weight_moves_little_beyond_the_difference() {
    let before = pods([10, 10, 10, 10]);
    let after = pods([10, 10, 10, 5]);
    // 1/28 of all keys leave the endpoint for each of the others.
    let (old, new) = (owners(&before, SLOTS), owners(&after, SLOTS));
    let moved = old.iter().zip(&new).filter(|(old, new)| old != new).count();
    assert!(moved * 100 / SLOTS as usize <= 13, "{moved} of {SLOTS}");
}

#[test]
fn the_least_endpoint_keeps_a_slot() {
    let mut weights = vec![1; 500];
    weights.extend([1_000_000, 999_999]);
    let quotas = quotas(&pods(weights), SLOTS);
    assert!(quotas[..500].iter().all(|&quota| quota == 1));
    assert_eq!(quotas.iter().sum::<u64>(), u64::from(SLOTS));
    assert!(quotas[500].abs_diff(quotas[501]) <= 1);
}

#[test]
fn one_very_heavy_endpoint_costs_no_more_turns_than_equal_ones() {
    let mut weights = vec![1; 5_000];
    weights[17] = u32::MAX;
    let heavy = pods(weights);
    let shares: Vec<_> = heavy.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
    assert_eq!(turns_of(&fillers(&shares, SLOTS)).len(), SLOTS as usize);
    let quotas = quotas(&heavy, SLOTS);
    assert_eq!(quotas[17], u64::from(SLOTS) - 4_999);
    assert!(quotas.iter().all(|&quota| quota >= 1));
}

#[test]
fn very_many_light_endpoints_beside_heavy_ones_are_filled_at_once() {
    let mut weights = vec![1; 200_000];
    weights.extend([u32::MAX, u32::MAX / 2, 7]);
    let pods = pods(weights);
    let shares: Vec<_> = pods.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
    assert_eq!(turns_of(&fillers(&shares, MANY_SLOTS)).len(), MANY_SLOTS as usize);
}

#[test]
fn more_endpoints_than_slots_fill_the_table() {
    let quotas = quotas(&pods(vec![1; 120]), 101);
    assert_eq!(quotas.iter().filter(|&&quota| quota == 1).count(), 101);
}

#[test]
fn very_many_endpoints_share_the_large_table() {
    let pods = pods(vec![1; MANY]);
    let shares: Vec<_> = pods.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
    let table = Maglev::new(&shares);
    assert!(matches!(&table, Maglev::Large(owners) if owners.len() == MANY_SLOTS as usize));
    assert!(table.at(u64::MAX) < MANY);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// P3: to within a slot while there are 100 slots for each endpoint.
    #[test]
    fn weighted_shares_are_exact_to_a_slot(weights in prop::collection::vec(1u32..1000, 1..60)) {
        let pods = pods(weights.clone());
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        for (quota, weight) in quotas(&pods, SLOTS).into_iter().zip(weights) {
            let exact = u64::from(weight) * u64::from(SLOTS) / sum;
            prop_assert!((exact..=exact + 1).contains(&quota), "{quota} for {exact}");
        }
    }

    #[test]
    fn turns_come_as_if_each_collected_its_quota_every_round_and_paid_the_largest_for_a_slot(
        quotas in prop::collection::vec(1u32..500, 1..40),
    ) {
        let filler = |&quota| Filler { quota, ..Filler::new((0, &("", 1)), 1, SLOTS) };
        let fillers: Vec<_> = quotas.iter().map(filler).collect();
        let price = *quotas.iter().max().unwrap();
        let mut credits = vec![price - 1; quotas.len()];
        let mut expected = Vec::new();
        for _ in 0..price {
            for (position, (credit, quota)) in (0..).zip(credits.iter_mut().zip(&quotas)) {
                *credit += quota;
                if *credit >= price {
                    *credit -= price;
                    expected.push(position);
                }
            }
        }
        prop_assert_eq!(turns_of(&fillers), expected);
    }

    /// P3.
    #[test]
    fn the_order_of_the_endpoints_is_irrelevant(
        weights in prop::collection::vec(1u32..10, 1..40),
        seed: u64,
    ) {
        let pods = pods(weights);
        let mut shuffled = pods.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        prop_assert!(owners(&pods, SLOTS) == owners(&shuffled, SLOTS));
    }
}
