//! `run` without `--manifests`: the objects of a cluster.

use std::sync::Arc;

use anyhow::Context as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
};

use super::{
    addressing::StartGatewayServices,
    args::{ClusterOptions, Common},
    changes::Changes,
    run::serve,
};
use crate::{
    control::View,
    controller::{GatewayServices, Lease, Writer, supported},
    ir::ControllerName,
    metrics::Metrics,
    source::kube::{Cluster, ObjectCache, connect, follow},
};

/// Serves what is in the cluster until SIGTERM or SIGINT.
///
/// # Errors
/// When something that the command line names cannot be had.
pub(super) async fn serve_cluster(
    options: &ClusterOptions,
    controller: &ControllerName,
    common: &Common,
) -> anyhow::Result<()> {
    let config = config(options).await?;
    tracing::info!(server = %config.cluster_url, "serving the objects of a cluster");
    let client = connect(config).context("the API server")?;
    let cache = Arc::new(ObjectCache::default());
    let (tell_unread, unread) = watch::channel(String::new());
    let view = View::awaiting(unread);
    let (stop, stopped) = watch::channel(false);
    let scope = &options.watch_namespaces;
    let (addressing, gateway_services) = options.addresses.addressing(&client, scope)?;
    let scope = gateway_services.as_ref().map_or(scope, |(config, _)| &config.scope).clone();
    let features = supported(&addressing);
    let lease = Lease::new(client.clone(), controller.clone(), identity());
    let (tell_up, is_up) = watch::channel(false);
    let leads = lease.holds();
    let reporting =
        report(client.clone(), Arc::clone(&cache), &view, lease, features, gateway_services, stopped);
    let following = crate::runtime::spawn(follow(client, scope, Arc::clone(&cache), tell_up, tell_unread));
    let cluster = Cluster::new(Arc::clone(&cache), addressing).answering_for(controller.clone());
    let changes = ClusterChanges { cache, following, is_up, leads };
    let served = serve(cluster, changes, common.feature_gates, common, &view, || {}).await;
    stop.send_replace(true);
    // The lease is given back before the process ends.
    reporting.await?;
    served
}

/// Writes status, events and what stands in front of Gateways while this replica leads, until it drains.
fn report(
    client: Client,
    cache: Arc<ObjectCache>,
    view: &View,
    lease: Lease,
    features: Vec<&'static str>,
    start_gateway_services: Option<StartGatewayServices>,
    mut stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let gateway_services = start_gateway_services
        .map(|(config, objects)| GatewayServices::new(client.clone(), config, objects, &lease));
    let gateway_services = async {
        match gateway_services {
            Some(gateway_services) => gateway_services.run().await,
            None => std::future::pending().await,
        }
    };
    let writer = Writer::new(client, cache, view, &lease, features);
    let mut shown = view.watch();
    let leading = async move {
        // Nothing is shown before the first world is complete: another replica may have more to write.
        tokio::select! {
            _ = shown.wait_for(Option::is_some) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        let end = async move {
            tokio::select! {
                // The process drains.
                _ = shown.wait_for(Option::is_none) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        };
        lease.run(end).await;
    };
    crate::runtime::spawn(async move {
        tokio::select! {
            () = leading => {}
            () = writer.run() => {}
            () = gateway_services => {}
        }
    })
}

/// Which replica this is: its pod, and a number, since one that is started anew is another one.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "nantian-gateway".to_owned());
    format!("{host}_{:08x}", fastrand::u32(..))
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

/// The changes of a cluster, as long as it is followed and told.
struct ClusterChanges {
    cache: Arc<ObjectCache>,
    following: JoinHandle<()>,
    is_up: watch::Receiver<bool>,
    leads: watch::Receiver<bool>,
}

impl Changes for ClusterChanges {
    fn show_source(&self, metrics: &Metrics) {
        metrics.show_cluster(self.is_up.clone(), self.leads.clone());
    }

    async fn complete(&mut self) -> anyhow::Result<()> {
        let cache = Arc::clone(&self.cache);
        tokio::select! {
            () = cache.complete() => Ok(()),
            error = self.failure() => Err(error),
        }
    }

    async fn changed(&mut self) -> anyhow::Result<()> {
        let cache = Arc::clone(&self.cache);
        tokio::select! {
            () = cache.changed() => Ok(()),
            error = self.failure() => Err(error),
        }
    }
}

impl ClusterChanges {
    /// Waits for the end of what goes on as long as the process serves.
    async fn failure(&mut self) -> anyhow::Error {
        tokio::select! {
            ended = &mut self.following => unfollowed(ended),
            // The lease goes with the task that reports.
            _ = self.leads.wait_for(|_| false) => anyhow::anyhow!("no status is written any more"),
        }
    }
}

impl Drop for ClusterChanges {
    fn drop(&mut self) {
        self.following.abort();
    }
}

fn unfollowed(ended: Result<(), JoinError>) -> anyhow::Error {
    let why = ended.err().map_or_else(|| "nothing more to follow".to_owned(), |error| error.to_string());
    anyhow::anyhow!("the cluster is not followed any more: {why}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// The changes of a cluster that `following` follows, and what the task that reports holds.
    fn changes(
        following: impl Future<Output = ()> + Send + 'static,
    ) -> (ClusterChanges, watch::Sender<bool>) {
        let lease = watch::Sender::new(true);
        let (is_up, leads) = (watch::Sender::new(true).subscribe(), lease.subscribe());
        let following = crate::runtime::spawn(following);
        (ClusterChanges { cache: Arc::default(), following, is_up, leads }, lease)
    }

    #[tokio::test]
    async fn a_cluster_that_is_not_followed_any_more_is_an_error_and_no_lasting_silence() {
        let (mut changes, _lease) = changes(async { panic!("a bug") });
        let error = changes.complete().await.unwrap_err().to_string();
        assert!(error.starts_with("the cluster is not followed any more"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_whose_status_is_not_written_any_more_is_an_error() {
        let (mut changes, lease) = changes(std::future::pending());
        let reporting = crate::runtime::spawn(async move {
            let _lease = lease;
            panic!("a bug");
        });
        let error = timeout(Duration::from_secs(1), changes.changed()).await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "no status is written any more");
        assert!(reporting.await.unwrap_err().is_panic());
    }
}
