//! Runs every example: each is a program that ends with an error when what it shows does not hold.
#![cfg(test)]

use std::{collections::BTreeSet, fs, process::Command};

const EXAMPLES: [(&str, &str); 11] = [
    ("axum_ai_translate", env!("CARGO_BIN_EXE_axum_ai_translate")),
    ("axum_rate_limit", env!("CARGO_BIN_EXE_axum_rate_limit")),
    ("axum_wasm_plugin", env!("CARGO_BIN_EXE_axum_wasm_plugin")),
    ("balanced_client", env!("CARGO_BIN_EXE_balanced_client")),
    ("codec", env!("CARGO_BIN_EXE_codec")),
    ("four_layers", env!("CARGO_BIN_EXE_four_layers")),
    ("hyper_ai", env!("CARGO_BIN_EXE_hyper_ai")),
    ("hyper_rate_limit", env!("CARGO_BIN_EXE_hyper_rate_limit")),
    ("hyper_reverse_proxy", env!("CARGO_BIN_EXE_hyper_reverse_proxy")),
    ("hyper_wasm_proxy", env!("CARGO_BIN_EXE_hyper_wasm_proxy")),
    ("read_resources", env!("CARGO_BIN_EXE_read_resources")),
];

#[test]
fn every_example_holds() {
    for (name, program) in EXAMPLES {
        let output = Command::new(program).output().unwrap();
        let (said, complained) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {complained}");
        assert!(!said.is_empty(), "{name} shows nothing");
    }
}

#[test]
fn no_example_is_forgotten() {
    let files = fs::read_dir("src/bin").unwrap().map(|entry| entry.unwrap().path());
    let names: BTreeSet<_> =
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, EXAMPLES.map(|(name, _)| name.to_owned()).into());
}
