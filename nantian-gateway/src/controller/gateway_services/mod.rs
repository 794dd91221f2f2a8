//! The Services in front of Gateways, and the endpoints behind them.

mod desired;
mod plan;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use kube::{
    Api, Client, Error, Resource as _,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use tokio::{sync::watch, time::sleep};

use self::plan::{Desired, Obstacle, Plan, plan};
use super::{
    Lease,
    recorder::Recorder,
    writer::{AT_ONCE, REFUSED, RETRY, is_refusal},
};
use crate::{
    ir::ObjectName,
    source::{
        Objects,
        kube::{Scope, said},
    },
    translate::conditions::Reason,
};

/// What the leader is ahead of the others. Slices are written by whoever sees that they are not as they
/// should be, for they are where traffic goes, and a leader that has died stands in them itself.
const AHEAD: Duration = Duration::from_millis(500);
/// How much more for each Gateway: a rollout changes the slices of all of them.
const AHEAD_FOR_EACH: Duration = Duration::from_millis(5);

/// Whose fields of an object are ours, as the API server keeps it.
const FIELD_MANAGER: &str = "nantian-gateway";

/// How Gateways are reached.
#[derive(Debug, Clone)]
pub(crate) struct GatewayServiceConfig {
    /// What their Services are.
    pub(crate) kind: ServiceKind,
    /// The Service whose endpoints are the replicas of this gateway.
    pub(crate) own_service: ObjectName,
    /// Where Services are seen. Default: everywhere.
    pub(crate) scope: Scope,
    /// Where load balancers send to. Default: to machines with a replica.
    pub(crate) traffic_policy: TrafficPolicy,
    /// The class of load balancers for new Services; `None` is the cluster's own. Default: none.
    pub(crate) load_balancer_class: Option<String>,
}

/// The type of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[clap(rename_all = "PascalCase")]
#[non_exhaustive]
pub(crate) enum ServiceKind {
    /// An address outside of the cluster, from whoever provides load balancers.
    LoadBalancer,
    /// An address inside of the cluster.
    #[value(name = "ClusterIP")]
    ClusterIp,
}

/// Where a load balancer sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[clap(rename_all = "PascalCase")]
#[non_exhaustive]
pub(crate) enum TrafficPolicy {
    /// To machines with a replica: the address of the client is kept, and no second hop is made.
    Local,
    /// To all machines of the cluster, of which one without a replica sends on in its own name.
    Cluster,
}

/// Takes care of them: of the Services while this replica leads, of the EndpointSlices in any case.
pub(crate) struct GatewayServices {
    client: Client,
    config: GatewayServiceConfig,
    objects: watch::Receiver<Arc<Objects>>,
    leads: watch::Receiver<bool>,
    recorder: Recorder,
    told: Vec<Obstacle>,
}

impl GatewayServices {
    /// Keeps the Services of the Gateways among `objects` as `config` has them while the process holds
    /// `lease`, and their endpoints always.
    pub(crate) fn new(
        client: Client,
        config: GatewayServiceConfig,
        objects: watch::Receiver<Arc<Objects>>,
        lease: &Lease,
    ) -> Self {
        let recorder = Recorder::new(client.clone(), lease);
        Self { client, config, objects, leads: lease.holds(), recorder, told: Vec::new() }
    }

    /// Writes until the objects are no more.
    ///
    /// # Cancellation
    /// Dropping the future may leave something unwritten; whoever leads next writes it.
    pub(crate) async fn run(mut self) {
        let mut again = None;
        loop {
            tokio::select! {
                changed = self.objects.changed() => if changed.is_err() { return },
                changed = self.leads.changed() => if changed.is_err() { return },
                () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
            if !*self.leads.borrow_and_update() {
                let gateways = u32::try_from(self.objects.borrow().gateways.len()).unwrap_or(u32::MAX);
                sleep(AHEAD.saturating_add(AHEAD_FOR_EACH.saturating_mul(gateways))).await;
            }
            let leads = *self.leads.borrow_and_update();
            again = self.reconcile(leads).await;
        }
    }

    /// Writes what is not as it should be. Returns after what time that has to be tried again.
    async fn reconcile(&mut self, leads: bool) -> Option<Duration> {
        let objects = Arc::clone(&self.objects.borrow_and_update());
        let plan = plan(&objects, &self.config);
        let Plan { services, slices, delete, mut obstacles } = if leads { plan } else { plan.of_slices() };
        let mut again: Option<Duration> = None;
        let mut note = |gateway, resource: &ApiResource, name: &ObjectName, error: Error| {
            let Some(wait) = retry_after(&error) else { return };
            again = Some(again.map_or(wait, |before| before.min(wait)));
            let text = format!("{} {name} cannot be written: {}", resource.kind, said(&error));
            obstacles.push(Obstacle { gateway, text });
        };
        let written = services.into_iter().chain(slices).map(|object| self.write(object));
        let written: Vec<_> = stream::iter(written).buffer_unordered(AT_ONCE).collect().await;
        for (object, error) in written.into_iter().flatten() {
            note(Some(object.gateway), &object.resource, &object.name, error);
        }
        let services = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        for service in delete {
            let deleted = self.api(&services, &service).delete(&service.name, &DeleteParams::default()).await;
            if let Err(error) = deleted {
                note(None, &services, &service, error);
            }
        }
        if leads {
            self.tell(obstacles, &objects).await;
        }
        again
    }

    /// Writes one object. Returns it if that fails.
    async fn write(&self, object: Desired) -> Option<(Desired, Error)> {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api(&object.resource, &object.name);
        let written = api.patch(&object.name.name, &parameters, &Patch::Apply(&object.body)).await;
        written.err().map(|error| (object, error))
    }

    /// Says once what is in the way: in the log, and in an event of the Gateway.
    async fn tell(&mut self, obstacles: Vec<Obstacle>, objects: &Objects) {
        for obstacle in obstacles.iter().filter(|obstacle| !self.told.contains(obstacle)) {
            tracing::warn!("{obstacle}");
            let gateway = obstacle.gateway.as_ref().and_then(|name| objects.gateways.get(name));
            let Some(gateway) = gateway else { continue };
            let reason = Reason::AddressNotAssigned.as_str();
            if let Err(error) = self.recorder.warn(&gateway.object_ref(&()), reason, &obstacle.text).await {
                tracing::debug!(%error, "an event cannot be written");
            }
        }
        self.told = obstacles;
    }

    fn api(&self, resource: &ApiResource, name: &ObjectName) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &name.namespace, resource)
    }
}

/// When something that failed is tried again; never if it, or its namespace, is gone: what takes its place is
/// seen later.
fn retry_after(error: &Error) -> Option<Duration> {
    match error {
        Error::Api(status) if status.code == 404 => None,
        // The server has looked at it and does not want it.
        Error::Api(status) if is_refusal(status.code) => Some(REFUSED),
        _ => Some(RETRY),
    }
}
