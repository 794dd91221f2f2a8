//! Replays the committed corpora on any toolchain.
#![cfg(test)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Inputs whose first byte says which of so many ways to check them is tried: each is checked in all.
fn replay_in_all(ways: u8, target: &str, check: fn(&[u8])) {
    for (file, mut input) in inputs(target) {
        for way in 0..ways {
            println!("{}, way {way}", file.display());
            input[0] = way;
            check(&input);
        }
    }
}

fn replay(target: &str, check: fn(&[u8])) {
    for (file, input) in inputs(target) {
        println!("{}", file.display());
        check(&input);
    }
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "{target} has {} inputs", files.len());
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

#[test]
fn edits_of_bodies_hold() {
    replay_in_all(6, "ai_edit", nantian_fuzz::ai_edit);
}

#[test]
fn embeddings_hold() {
    replay_in_all(36, "ai_embed", nantian_fuzz::ai_embed);
}

#[test]
fn hidden_usage_holds() {
    replay_in_all(3, "ai_hide", nantian_fuzz::ai_hide);
}

#[test]
fn meters_hold() {
    replay_in_all(144, "ai_meter", nantian_fuzz::ai_meter);
}

#[test]
fn tokens_hold() {
    replay_in_all(9, "ai_token", nantian_fuzz::ai_token);
}

#[test]
fn requests_hold() {
    replay_in_all(24, "ai_request", nantian_fuzz::ai_request);
}

#[test]
fn replies_hold() {
    replay_in_all(24, "ai_reply", nantian_fuzz::ai_reply);
}

#[test]
fn streams_hold() {
    replay_in_all(72, "ai_stream", nantian_fuzz::ai_stream);
}

#[test]
fn frames_hold() {
    replay_in_all(6, "ai_frames", nantian_fuzz::ai_frames);
}

#[test]
fn event_streams_hold() {
    replay_in_all(6, "ai_sse", nantian_fuzz::ai_sse);
}

#[test]
fn sessions_hold() {
    replay("lb_session", nantian_fuzz::lb_session);
}

#[test]
fn manifests_hold() {
    replay("validate_manifest", nantian_fuzz::validate_manifest);
}

#[test]
fn host_calls_hold() {
    replay("wasm_host_calls", nantian_fuzz::wasm_host_calls);
}

#[test]
fn modules_hold() {
    replay("wasm_module", nantian_fuzz::wasm_module);
}

#[test]
fn words_of_limits_hold() {
    replay("rate_limit_words", nantian_fuzz::rate_limit_words);
}

#[test]
fn histories_of_limits_hold() {
    replay("rate_limit_history", nantian_fuzz::rate_limit_history);
}
