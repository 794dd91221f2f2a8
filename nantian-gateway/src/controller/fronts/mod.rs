//! The Services in front of Gateways, and the endpoints behind them.

mod plan;
mod wanted;

use std::sync::Arc;

use kube::{
    Api, Client, Error,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use tokio::{sync::watch, time::sleep};

use self::plan::{Plan, plan};
use super::{Lease, writer::RETRY};
use crate::{ir::ObjectName, source::Objects};

/// Whose fields of an object are ours, as the API server keeps it.
const FIELD_MANAGER: &str = "nantian-gateway";

/// How Gateways are reached that ask for no address.
#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// What their Services are.
    pub kind: ServiceKind,
    /// The Service whose endpoints are the replicas of this gateway.
    pub own_service: ObjectName,
}

/// The type of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[clap(rename_all = "PascalCase")]
#[non_exhaustive]
pub enum ServiceKind {
    /// An address outside of the cluster, from whoever provides load balancers.
    LoadBalancer,
    /// An address inside of the cluster.
    #[value(name = "ClusterIP")]
    ClusterIp,
}

/// Takes care of them while this replica leads.
pub struct Fronts {
    client: Client,
    config: FrontConfig,
    objects: watch::Receiver<Arc<Objects>>,
    leads: watch::Receiver<bool>,
    warned: Vec<String>,
}

impl std::fmt::Debug for Fronts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fronts").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Fronts {
    /// Keeps the Services of the Gateways among `objects` as `config` has them, while the process holds `lease`.
    pub fn new(
        client: Client,
        config: FrontConfig,
        objects: watch::Receiver<Arc<Objects>>,
        lease: &Lease,
    ) -> Self {
        Self { client, config, objects, leads: lease.holds(), warned: Vec::new() }
    }

    /// Writes until the objects are no more.
    ///
    /// # Cancellation
    /// Dropping the future may leave something unwritten; whoever leads next writes it.
    pub async fn run(mut self) {
        let mut is_done = true;
        loop {
            tokio::select! {
                changed = self.objects.changed() => if changed.is_err() { return },
                changed = self.leads.changed() => if changed.is_err() { return },
                () = sleep(RETRY), if !is_done => {}
            }
            is_done = !*self.leads.borrow_and_update() || self.bring_about().await;
        }
    }

    /// Writes what is not as it should be. Returns whether all of it is now.
    async fn bring_about(&mut self) -> bool {
        let objects = Arc::clone(&self.objects.borrow_and_update());
        let Plan { apply, delete, obstacles } = plan(&objects, &self.config);
        self.warn(obstacles);
        let mut all = true;
        for object in apply {
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            let api = self.api(&object.resource, &object.name);
            let written = api.patch(&object.name.name, &parameters, &Patch::Apply(&object.body)).await;
            all &= is_done(&object.resource, &object.name, written);
        }
        let services = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        for service in delete {
            let deleted = self.api(&services, &service).delete(&service.name, &DeleteParams::default()).await;
            all &= is_done(&services, &service, deleted);
        }
        all
    }

    /// Says once what is in the way.
    fn warn(&mut self, obstacles: Vec<String>) {
        for obstacle in obstacles.iter().filter(|obstacle| !self.warned.contains(obstacle)) {
            tracing::warn!("{obstacle}");
        }
        self.warned = obstacles;
    }

    fn api(&self, resource: &ApiResource, name: &ObjectName) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &name.namespace, resource)
    }
}

fn is_done<T>(resource: &ApiResource, name: &ObjectName, outcome: Result<T, Error>) -> bool {
    match outcome {
        Ok(_) => true,
        // It, or its namespace, is gone; what takes its place is seen later.
        Err(Error::Api(status)) if status.code == 404 => true,
        Err(error) => {
            tracing::warn!(%error, kind = resource.kind, %name, "an object in front of a Gateway cannot be written");
            false
        }
    }
}
