//! Replays the committed corpora on any toolchain.
#![cfg(test)]

use std::{fs, path::Path};

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "{target} has {} inputs", files.len());
    for file in files {
        println!("{}", file.display());
        check(&fs::read(file).unwrap());
    }
}

#[test]
fn edits_of_bodies_hold() {
    replay("ai_edit", nantian_fuzz::ai_edit);
}

#[test]
fn embeddings_hold() {
    replay("ai_embed", nantian_fuzz::ai_embed);
}

#[test]
fn hidden_usage_holds() {
    replay("ai_hide", nantian_fuzz::ai_hide);
}

#[test]
fn requests_hold() {
    replay("ai_request", nantian_fuzz::ai_request);
}

#[test]
fn replies_hold() {
    replay("ai_reply", nantian_fuzz::ai_reply);
}

#[test]
fn streams_hold() {
    replay("ai_stream", nantian_fuzz::ai_stream);
}

#[test]
fn frames_hold() {
    replay("ai_frames", nantian_fuzz::ai_frames);
}

#[test]
fn event_streams_hold() {
    replay("ai_sse", nantian_fuzz::ai_sse);
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
