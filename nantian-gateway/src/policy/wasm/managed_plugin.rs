//! A plugin of the process, and how far its present configuration has come.

use std::{sync::Arc, time::Duration};

use nantian_wasm::Plugin;
use tokio::time::Instant;

use super::{
    NotRunning,
    host::PluginHost,
    module_key,
    starter::{Compiled, PendingStart, Retry, StartFailure, StartOutcome},
};
use crate::{ir, translate::conditions::Reason};

/// A plugin of the process.
#[derive(Debug)]
pub(super) struct ManagedPlugin {
    pub(super) config: ir::Plugin,
    /// The last good one: an edit that cannot be started leaves it in place.
    pub(super) plugin: Option<Plugin>,
    /// What it may reach, whichever configuration runs.
    pub(super) host: Arc<PluginHost>,
    /// The module of the configuration, once it is known: not compiled again for as long as it is kept.
    pub(super) module: Option<Arc<Compiled>>,
    pub(super) state: StartState,
    pub(super) retry: Option<Retry>,
}

/// How far the present configuration of a plugin has come.
#[derive(Debug)]
pub(super) enum StartState {
    /// Its module is not there.
    Waits(NotRunning),
    /// It is being compiled and started; meanwhile this is told.
    Starts(PendingStart, NotRunning),
    Runs,
    Fails(NotRunning),
}

// === impl ManagedPlugin ===

impl ManagedPlugin {
    /// A plugin that is new or edited: what served before serves on until it has started.
    pub(super) fn new(config: &ir::Plugin, host: Arc<PluginHost>, last: Option<Self>) -> Self {
        let (plugin, module) = last.map(|last| (last.plugin, last.module)).unwrap_or_default();
        let config = config.clone();
        Self { config, plugin, host, module, state: StartState::Waits(starting()), retry: None }
    }

    /// Takes over what changes nothing that runs: Services, of which the host has been told, and other
    /// credentials for a module that has come with those before.
    pub(super) fn take_over(&mut self, config: &ir::Plugin) {
        self.config.upstreams.clone_from(&config.upstreams);
        self.config.grants.clone_from(&config.grants);
        self.config.is_pinned = config.is_pinned;
        let key = module_key(&self.config);
        if self.module.as_ref().zip(key).is_some_and(|(module, key)| module.is_what(&key)) {
            self.config.credentials.clone_from(&config.credentials);
        }
    }

    /// What it may reach; `None` if it may call out and cannot.
    pub(super) fn reachable(&self) -> Option<Arc<PluginHost>> {
        let is_there = !self.config.sandbox.allow_network || self.host.may_call();
        is_there.then(|| Arc::clone(&self.host))
    }

    /// Takes in what has become of its being started.
    pub(super) fn take_outcome(&mut self) {
        let StartState::Starts(start, _) = &self.state else { return };
        let Some(StartOutcome { module, result }) = start.take() else { return };
        self.module = module;
        match result {
            Ok(plugin) => {
                (self.plugin, self.retry, self.state) = (Some(plugin), None, StartState::Runs);
                let bytes = self.serving().unwrap_or_default();
                tracing::info!("WasmPlugin {} is served: {bytes}", self.config.object);
            }
            Err(StartFailure { why, may_pass }) => {
                self.retry = may_pass.then(|| Retry::after(self.retry, self.module.as_deref()));
                self.state = StartState::Fails(why);
            }
        }
    }

    /// Which bytes run, if the present configuration does.
    pub(super) fn serving(&self) -> Option<String> {
        let plugin = self.plugin.as_ref().filter(|_| matches!(self.state, StartState::Runs))?;
        let pinned = if self.config.is_pinned { "" } else { ", not pinned" };
        Some(format!("sha256 {}{pinned}", plugin.module().digest()))
    }

    pub(super) fn is_to_start(&self) -> bool {
        match self.state {
            StartState::Waits(_) => true,
            StartState::Fails(_) => self.due().is_some_and(|due| due <= Instant::now()),
            StartState::Starts(..) | StartState::Runs => false,
        }
    }

    /// When to try again.
    pub(super) fn due(&self) -> Option<Instant> {
        matches!(self.state, StartState::Fails(_)).then_some(self.retry?.at)
    }

    /// Why the present configuration is not the one that runs.
    pub(super) fn fault(&self) -> Option<NotRunning> {
        match &self.state {
            StartState::Waits(why) | StartState::Starts(_, why) | StartState::Fails(why) => Some(why.clone()),
            StartState::Runs => None,
        }
    }

    /// Whether it has not run yet, and may do so soon.
    pub(super) fn is_to_come(&self) -> bool {
        let is_on_its_way = match &self.state {
            StartState::Waits(why) => why.reason == Reason::Pending,
            StartState::Starts(..) => true,
            StartState::Runs | StartState::Fails(_) => false,
        };
        self.plugin.is_none() && self.retry.is_none() && is_on_its_way
    }

    /// Until when a reload waits for it: not at all for one that is tried again.
    pub(super) fn awaited(&self, patience: Duration) -> Option<Instant> {
        let StartState::Starts(start, _) = &self.state else { return None };
        let until = start.begun + patience;
        (self.retry.is_none() && !start.is_over() && Instant::now() < until).then_some(until)
    }
}

pub(super) fn starting() -> NotRunning {
    NotRunning {
        reason: Reason::Pending,
        message: "spec.wasm: the module is being compiled and started".to_owned(),
    }
}
