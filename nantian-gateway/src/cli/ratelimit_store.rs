//! Where limits are kept, and what holds while nobody is there.

use std::{ffi::OsStr, io, sync::Arc, time::Duration};

use anyhow::ensure;
use clap::{Args, ValueEnum, builder::TypedValueParser};
use nantian_ratelimit::redis::{InvalidRedisUrl, OnOutage, RedisStore, RedisUrl};
use tokio::sync::Notify;

use super::{args::duration, store_files::StoreFiles};
use crate::{metrics::Metrics, observe, runtime::TaskThread, upstream::Roots};

/// Where limits are kept, and by whom.
#[derive(Debug, Args)]
pub(super) struct StoreOptions {
    /// Where limits are kept: `memory`, or redis://HOST:PORT/DB for limits that several gateways of one
    /// cluster share; rediss:// over TLS. Of a Redis or Valkey cluster any node.
    #[arg(long = "ratelimit-store", env = "NANTIAN_RATELIMIT_STORE", hide_env_values = true,
          value_name = "STORE", default_value = "memory", value_parser = StoreParser)]
    pub(super) store: RateLimitStore,
    /// What connections to the store are opened with.
    #[command(flatten)]
    files: StoreFiles,
    /// How many gateways share the limits of the store, this one included, by which each takes its share
    /// while the store is away; as many as the store has counted by default.
    #[arg(long = "ratelimit-replicas", env = "NANTIAN_RATELIMIT_REPLICAS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    replicas: Option<u32>,
    /// How long a request waits for the store before decisions are made without it, 1ms to 10s: a store that
    /// takes longer is away.
    #[arg(long = "ratelimit-store-timeout", env = "NANTIAN_RATELIMIT_STORE_TIMEOUT", value_name = "DURATION",
          default_value = "20ms", value_parser = duration::<1, 10_000>)]
    pub(super) timeout: Duration,
    /// What becomes of requests within shared limits while the store is away.
    #[arg(
        long = "ratelimit-store-failure-mode",
        env = "NANTIAN_RATELIMIT_STORE_FAILURE_MODE",
        value_name = "MODE",
        default_value = "local"
    )]
    pub(super) failure_mode: FailureMode,
}

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

impl StoreOptions {
    /// Connects the store, if limits are not kept here; `changed` is told when it comes or goes. It is heard
    /// on a thread of its own, which nothing that takes long holds up: every decision of every worker waits
    /// for it.
    ///
    /// # Errors
    /// When a file cannot be read, or an option is for another store.
    pub(super) fn start(
        &self,
        roots: &Roots,
        metrics: &Metrics,
        changed: &Arc<Notify>,
    ) -> anyhow::Result<Option<(RedisStore, TaskThread)>> {
        let RateLimitStore::Redis(url) = &self.store else {
            ensure!(
                self.replicas.is_none() && !self.files.are_given(),
                "--ratelimit-replicas and the files of a store are for --ratelimit-store redis[s]://HOST:PORT/DB: \
                 limits in memory are each gateway's own"
            );
            return Ok(None);
        };
        ensure!(
            url.is_tls() || !self.files.are_for_tls(),
            "{url} is not over TLS: --ratelimit-store-ca and -cert are for rediss://"
        );
        let builder = RedisStore::builder(url.clone()).command_timeout(self.timeout);
        let mut builder = builder.on_outage(self.failure_mode.into());
        if let Some(replicas) = self.replicas {
            builder = builder.replicas(replicas);
        }
        if self.files.password()?.is_some() {
            let files = self.files.clone();
            builder = builder.password_from(move || Ok(told(files.password())?.unwrap_or_default()));
        }
        if url.is_tls() {
            let (files, roots) = (self.files.clone(), roots.clone());
            files.tls(&roots)?;
            builder = builder.tls_from(move || told(files.tls(&roots)));
        }
        let (store, driver) = builder.build();
        metrics.show_store(store.clone());
        let driver = TaskThread::start("limits-store", driver.run())?;
        crate::runtime::spawn(observe::store(store.clone(), Arc::clone(changed)));
        Ok(Some((store, driver)))
    }
}

/// Says why something cannot be read; that it cannot is said by the store.
fn told<T>(read: anyhow::Result<T>) -> io::Result<T> {
    read.map_err(|error| {
        tracing::debug!(error = format!("{error:#}"), "the store of the limits cannot be connected");
        io::Error::other(error)
    })
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Limits {
        #[command(flatten)]
        options: StoreOptions,
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let refused = |line: &str| {
            let words = std::iter::once("gateway").chain(line.split(' '));
            let limits = Limits::try_parse_from(words).map_err(|error| error.to_string())?;
            let started = limits.options.start(&Roots::none(), &Metrics::new(1), &Arc::default());
            started.map(drop).map_err(|error| error.to_string())
        };
        for (line, told) in [
            ("--ratelimit-replicas 3", "limits in memory are each gateway's own"),
            ("--ratelimit-store-password-file /none", "limits in memory are each gateway's own"),
            ("--ratelimit-store redis://h:1 --ratelimit-store-ca /none", "redis://h:1/0 is not over TLS"),
            ("--ratelimit-store redis://h:1 --ratelimit-store-password-file /none", "/none"),
            ("--ratelimit-store rediss://h:1 --ratelimit-store-ca /none", "/none"),
            ("--ratelimit-store rediss://h:1 --ratelimit-store-cert /none", "--ratelimit-store-key"),
        ] {
            let refused = refused(line).unwrap_err();
            assert!(refused.contains(told), "{line}: {refused}");
        }
    }
}
