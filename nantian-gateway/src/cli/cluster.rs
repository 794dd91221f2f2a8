//! `run` without `--manifests`: the objects of a cluster.

use std::sync::Arc;

use anyhow::Context as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use tokio::{sync::watch, task::JoinHandle};

use super::{
    args::{ClusterOptions, Common},
    run::{Changes, serve},
};
use crate::{
    control::View,
    controller::{FrontConfig, Fronts, Lease, Writer, supported},
    ir::ObjectName,
    source::{
        Objects,
        kube::{Addressing, Cluster, Mirror, connect, follow},
    },
};

/// Serves what is in the cluster until SIGTERM or SIGINT.
///
/// # Errors
/// When something that the command line names cannot be had.
pub(super) async fn serve_cluster(options: &ClusterOptions, common: &Common) -> anyhow::Result<()> {
    let config = config(options).await?;
    tracing::info!(server = %config.cluster_url, "serving the objects of a cluster");
    let client = connect(config).context("the API server")?;
    let mirror = Arc::new(Mirror::default());
    let view = View::default();
    let (stop, stopped) = watch::channel(false);
    let (addressing, fronts) = addressing(options, &client);
    let features = supported(&addressing);
    let reporting = report(client.clone(), Arc::clone(&mirror), &view, features, fronts, stopped);
    let following = crate::runtime::spawn(follow(client, Arc::clone(&mirror)));
    let cluster = Cluster::new(Arc::clone(&mirror), addressing);
    let served = serve(cluster, mirror, common.feature_gates, common, &view, || {}).await;
    following.abort();
    stop.send_replace(true);
    // The lease is given back before the process ends.
    reporting.await?;
    served
}

/// Who gives addresses to Gateways, and what takes care of that.
fn addressing(options: &ClusterOptions, client: &Client) -> (Addressing, Option<ToFront>) {
    if let Some(pool) = &options.gateway_address_pool {
        return (Addressing::Pool(pool.clone()), None);
    }
    let Some(kind) = options.gateway_service else { return (Addressing::Nobody, None) };
    let own_service = ObjectName::new(client.default_namespace(), options.own_service.as_str());
    let (show, objects) = watch::channel(Arc::new(Objects::default()));
    (Addressing::Services(show), Some((FrontConfig { kind, own_service }, objects)))
}

/// How Services are made, and for which objects.
type ToFront = (FrontConfig, watch::Receiver<Arc<Objects>>);

/// Writes status, events and what stands in front of Gateways while this replica leads, until it drains.
fn report(
    client: Client,
    mirror: Arc<Mirror>,
    view: &View,
    features: Vec<&'static str>,
    to_front: Option<ToFront>,
    mut stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "nantian-gateway".to_owned());
    let identity = format!("{host}_{:08x}", fastrand::u32(..));
    let lease = Lease::new(client.clone(), identity.clone());
    let fronts = to_front
        .map(|(config, objects)| Fronts::new(client.clone(), config, objects, &lease, identity.clone()));
    let fronts = async {
        match fronts {
            Some(fronts) => fronts.run().await,
            None => std::future::pending().await,
        }
    };
    let writer = Writer::new(client, mirror, view, &lease, identity, features);
    let mut shown = view.watch();
    let end = async move {
        let drains = async {
            // Nothing is shown before the first world is complete, and when the process drains.
            let _ = shown.wait_for(Option::is_some).await;
            let _ = shown.wait_for(Option::is_none).await;
        };
        tokio::select! {
            () = drains => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    };
    crate::runtime::spawn(async move {
        tokio::select! {
            () = lease.run(end) => {}
            () = writer.run() => {}
            () = fronts => {}
        }
    })
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
