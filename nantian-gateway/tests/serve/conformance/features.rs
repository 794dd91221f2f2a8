//! What a GatewayClass claims.

use std::{collections::BTreeSet, fs};

use nantian_gateway::{controller::supported, source::kube::Addressing};

use super::{expect::Expected, files};

/// Features whose tests are elsewhere: those of routes below HTTP.
const ELSEWHERE: [&str; 3] = ["TCPRoute", "TLSRoute", "UDPRoute"];

#[test]
fn the_features_that_are_claimed_are_those_that_have_a_test() {
    let files = files().into_iter().map(|file| fs::read_to_string(file).unwrap());
    let tested: BTreeSet<String> = files.flat_map(|text| Expected::read(&text).0.features).collect();
    let claimed = supported(&Addressing::Nobody).into_iter();
    let claimed = claimed.filter(|name| !ELSEWHERE.iter().any(|elsewhere| name.starts_with(elsewhere)));
    assert_eq!(claimed.map(str::to_owned).collect::<BTreeSet<_>>(), tested);
}
