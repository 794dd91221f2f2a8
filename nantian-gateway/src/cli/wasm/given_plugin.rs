//! The plugin of a command line: a module with options, or a WasmPlugin.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use nantian_wasm::{Digest, PluginConfig, Sandbox};

use super::{PluginOptions, read};
use crate::{
    ir::{self, PluginSource},
    policy,
    source::Files,
    translate,
};

/// A plugin of one instance, which sees everything in order.
pub(super) struct GivenPlugin {
    /// Where the module is.
    pub(super) place: String,
    pub(super) module: Vec<u8>,
    /// The digest that the module has to have.
    pub(super) sha256: Option<Digest>,
    pub(super) config: PluginConfig,
}

// === impl PluginOptions ===

impl PluginOptions {
    /// Reads what the options name.
    ///
    /// # Errors
    /// When a file cannot be read or understood.
    pub(super) fn given(&self) -> anyhow::Result<GivenPlugin> {
        let manifest = self.manifest.as_deref().map(wasm_plugin).transpose()?;
        let (place, module) = match (&self.plugin, manifest.as_ref().map(|plugin| &plugin.source)) {
            (Some(path), _) => (path.display().to_string(), read(path)?),
            (None, Some(PluginSource::Bytes(bytes))) => ("in the manifest".to_owned(), bytes.clone()),
            (None, Some(PluginSource::Missing(reason))) => bail!("{reason}"),
            (None, Some(PluginSource::Url(url))) => bail!("nothing is fetched from {url}: name PLUGIN.WASM"),
            (None, None) => bail!("no module is named"),
        };
        let sha256 = manifest.as_ref().and_then(|plugin| plugin.sha256.as_deref());
        let sha256 = sha256.map(str::parse).transpose()?;
        let config =
            manifest.as_ref().map_or_else(|| self.config(), |plugin| Ok(policy::plugin_config(plugin)))?;
        let config = config.with_instances(NonZeroUsize::MIN);
        Ok(GivenPlugin { place, module, sha256, config })
    }

    fn config(&self) -> anyhow::Result<PluginConfig> {
        let configuration = match (&self.config, &self.config_file) {
            (Some(text), _) => Bytes::from(text.clone()),
            (None, Some(path)) => Bytes::from(read(path)?),
            (None, None) => Bytes::new(),
        };
        let variables = self.env.iter().map(|variable| {
            let named = variable.split_once('=');
            named.with_context(|| format!("--env {variable}: no `=`"))
        });
        let environment = variables.collect::<anyhow::Result<Vec<_>>>()?;
        let sandbox = Sandbox::default()
            .with_max_memory(usize::try_from(self.max_memory_bytes)?)
            .with_max_execution_time(Duration::from_millis(self.max_execution_time_ms));
        let name = self.plugin.as_ref().and_then(|path| path.file_stem()).unwrap_or_default();
        let config = PluginConfig::new(name.to_string_lossy()).with_configuration(configuration);
        Ok(config.with_root_id(&self.root_id).with_environment(environment).with_sandbox(sandbox))
    }
}

/// The one WasmPlugin of these manifests.
fn wasm_plugin(path: &Path) -> anyhow::Result<ir::Plugin> {
    let load = Files::new([path.to_owned()]).load();
    if let Some(fault) = load.faults.first() {
        bail!("{fault}");
    }
    let mut names = load.objects.wasm_plugins.keys();
    let (Some(name), None) = (names.next(), names.next()) else {
        bail!("{}: {} WasmPlugins in the place of one", path.display(), load.objects.wasm_plugins.len());
    };
    translate::wasm_plugin(&load.objects, name).map_err(|reason| anyhow!("WasmPlugin {name}: {reason}"))
}
