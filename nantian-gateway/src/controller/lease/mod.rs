//! Which of the replicas writes.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Error,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{ir::ControllerName, source::kube::said};

/// The name of the object, in the namespace of the process, by which the replicas of the default controller
/// choose.
const NAME: &str = "nantian-gateway";
/// How long a leader that says nothing more is waited for, unless its lease tells another time.
const DURATION: Duration = Duration::from_secs(15);
/// How often the leader says that it is there, and the others look.
const PERIOD: Duration = Duration::from_secs(3);
/// After how long without an answer the leader takes itself for none; well before others do.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A candidate for the lease that only one replica holds.
#[derive(Debug)]
pub(crate) struct Lease {
    api: Api<Object>,
    name: String,
    controller: ControllerName,
    identity: String,
    holds: watch::Sender<bool>,
    /// The version of the object that was last seen, and since when, by this process' own clock.
    seen: Option<(Option<String>, Instant)>,
    renewed: Instant,
    failing: Option<Failing>,
}

/// The lease cannot be read or written.
#[derive(Debug)]
struct Failing {
    since: Instant,
    is_told: bool,
}

impl Lease {
    /// A candidate of this identity, which no other replica of `controller` has.
    pub(crate) fn new(client: Client, controller: ControllerName, identity: String) -> Self {
        let api = Api::default_namespaced(client);
        let (name, holds) = (name(&controller), watch::Sender::new(false));
        Self { api, name, controller, identity, holds, seen: None, renewed: Instant::now(), failing: None }
    }

    /// Whose replicas choose.
    pub(super) fn controller(&self) -> &ControllerName {
        &self.controller
    }

    /// Which replica this is.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether the lease is held.
    pub(crate) fn holds(&self) -> watch::Receiver<bool> {
        self.holds.subscribe()
    }

    /// Takes the lease when it is free and keeps it, until `end`; it is given back then.
    ///
    /// # Cancellation
    /// Dropping the future leaves the lease to expire.
    pub(crate) async fn run(mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            let failure = match timeout(PERIOD, self.step()).await {
                Ok(Ok(holds)) => {
                    self.failing = None;
                    self.set(holds);
                    None
                }
                Ok(Err(error)) => Some(said(&error)),
                Err(_) => Some(format!("no answer within {PERIOD:?}")),
            };
            if let Some(error) = failure {
                self.fail(&error);
            }
            tokio::select! {
                () = sleep(PERIOD) => {}
                () = &mut end => break,
            }
        }
        if *self.holds.borrow() {
            self.set(false);
            // Whoever comes next waits for it to expire otherwise.
            let _ = timeout(PERIOD, self.give_back()).await;
        }
    }

    /// Leads on for a while, and says once that something is wrong if that does not end by itself.
    fn fail(&mut self, error: &str) {
        let failing = self.failing.get_or_insert(Failing { since: Instant::now(), is_told: false });
        if !failing.is_told && failing.since.elapsed() >= GIVE_UP {
            failing.is_told = true;
            tracing::warn!(error, "the lease cannot be had; no status is written until it can");
        }
        let holds = *self.holds.borrow() && self.renewed.elapsed() < GIVE_UP;
        self.set(holds);
    }

    fn set(&self, holds: bool) {
        if self.holds.send_if_modified(|held| std::mem::replace(held, holds) != holds) {
            tracing::info!(identity = self.identity, holds, "leader election");
        }
    }

    /// Looks at the lease once. Returns whether it is held now.
    async fn step(&mut self) -> Result<bool, Error> {
        let now = Instant::now();
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Object { metadata, spec: Some(self.spec(None)) };
            let created = self.api.create(&PostParams::default(), &lease).await;
            return self.outcome(created, now);
        };
        let version = lease.metadata.resource_version.clone();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, now));
        }
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        // Clocks of other machines are not believed: what counts is how long the object has not changed.
        let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = lasts.map_or(DURATION, Duration::from_secs);
        let is_stale = self.seen.as_ref().is_some_and(|(_, since)| now.duration_since(*since) >= lasts);
        if holder != self.identity && !holder.is_empty() && !is_stale {
            return Ok(false);
        }
        lease.spec = Some(self.spec(Some(&spec)));
        let replaced = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        self.outcome(replaced, now)
    }

    fn outcome(&mut self, written: Result<Object, Error>, now: Instant) -> Result<bool, Error> {
        match written {
            Ok(lease) => {
                self.seen = Some((lease.metadata.resource_version, now));
                self.renewed = now;
                Ok(true)
            }
            // Another replica was faster.
            Err(Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let same = before.filter(|before| before.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            acquire_time: same.map_or_else(|| Some(now.clone()), |before| before.acquire_time.clone()),
            renew_time: Some(now),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: Some(if same.is_some() || before.is_none() {
                transitions
            } else {
                transitions + 1
            }),
            ..LeaseSpec::default()
        }
    }

    async fn give_back(&self) -> Result<(), Error> {
        let mut lease = self.api.get(&self.name).await?;
        if let Some(spec) =
            lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
        {
            spec.holder_identity = None;
            self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

/// That of the object for the replicas of another controller: the name in lower case, with a hyphen for what
/// no name of an object may have anywhere. The chart names it, too, in the role of the replicas.
fn name(controller: &ControllerName) -> String {
    if *controller == ControllerName::default() {
        return NAME.to_owned();
    }
    let name = controller.as_str().to_ascii_lowercase();
    let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    name.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests;
