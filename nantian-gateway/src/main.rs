//! The `nantian-gateway` binary.

fn main() {}
