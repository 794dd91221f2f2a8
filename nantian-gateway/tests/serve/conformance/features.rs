//! What a GatewayClass claims.

use std::{collections::BTreeSet, fs};

use nantian_gateway::{controller::supported, source::kube::Addressing};

use super::{expect::Expected, files};

#[test]
fn the_features_that_are_claimed_are_those_that_have_a_test() {
    let files = files().into_iter().map(|file| fs::read_to_string(file).unwrap());
    let tested: BTreeSet<String> = files.flat_map(|text| Expected::read(&text).0.features).collect();
    let claimed = supported(&Addressing::Nobody).into_iter().map(str::to_owned);
    assert_eq!(claimed.collect::<BTreeSet<_>>(), tested);
}
