//! Where limits are kept, and what holds while nobody is there.

use std::ffi::OsStr;

use clap::{ValueEnum, builder::TypedValueParser};
use nantian_ratelimit::redis::{InvalidRedisUrl, OnOutage, RedisUrl};

/// Where limits are kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub(super) enum RateLimitStore {
    /// In this process.
    Memory,
    /// On a Redis or Valkey server.
    Redis(RedisUrl),
}

/// Reads a [`RateLimitStore`]; what is wrong is told without the value, which may hold a password.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreParser;

/// What becomes of requests within shared limits while their store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub(super) enum FailureMode {
    /// Each gateway decides by its share of the limits.
    Local,
    /// All of them pass, uncounted.
    Open,
    /// All of them are refused, with 503.
    Closed,
}

impl TypedValueParser for StoreParser {
    type Value = RateLimitStore;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _option: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<RateLimitStore, clap::Error> {
        match value.to_str() {
            Some("memory") => Ok(RateLimitStore::Memory),
            value => value.unwrap_or_default().parse().map(RateLimitStore::Redis).map_err(
                |error: InvalidRedisUrl| {
                    let text = format!(
                        "--ratelimit-store is neither `memory` nor redis[s]://HOST:PORT/DB: {error}\n"
                    );
                    clap::Error::raw(clap::error::ErrorKind::ValueValidation, text).with_cmd(command)
                },
            ),
        }
    }
}

impl From<FailureMode> for OnOutage {
    fn from(mode: FailureMode) -> Self {
        match mode {
            FailureMode::Local => Self::Local,
            FailureMode::Open => Self::Open,
            FailureMode::Closed => Self::Closed,
        }
    }
}
