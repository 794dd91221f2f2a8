//! `run` without `--manifests`: the objects of a cluster.

use std::sync::Arc;

use anyhow::Context as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{
    args::{ClusterOptions, Common},
    run::{Changes, serve},
};
use crate::{
    control::View,
    source::kube::{Cluster, Mirror, follow},
};

/// Serves what is in the cluster until SIGTERM or SIGINT.
///
/// # Errors
/// When something that the command line names cannot be had.
pub(super) async fn serve_cluster(options: &ClusterOptions, common: &Common) -> anyhow::Result<()> {
    let config = config(options).await?;
    tracing::info!(server = %config.cluster_url, "serving the objects of a cluster");
    let client = Client::try_from(config).context("the API server")?;
    let mirror = Arc::new(Mirror::default());
    let view = View::default();
    let following = crate::runtime::spawn(follow(client, Arc::clone(&mirror)));
    let cluster = Cluster::new(Arc::clone(&mirror));
    let served = serve(cluster, mirror, common.feature_gates, common, &view, || {}).await;
    following.abort();
    served
}

async fn config(options: &ClusterOptions) -> anyhow::Result<Config> {
    match &options.kubeconfig {
        Some(path) => {
            let file =
                Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            Ok(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)
        }
        None => Config::infer().await.context("neither KUBECONFIG nor a pod of a cluster"),
    }
}

impl Changes for Arc<Mirror> {
    async fn complete(&mut self) {
        Mirror::complete(self).await;
    }

    async fn changed(&mut self) {
        Mirror::changed(self).await;
    }
}
