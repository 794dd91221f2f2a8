//! What the admin server tells about the configuration.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use nantian_lb::Balancer;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use crate::{
    compile::Problem, ir::BackendId, source::Unserved, translate::Translation, upstream::Destination,
};

/// The configuration as `/config` shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfigView {
    /// The generation that serves.
    pub(crate) generation: u64,
    /// The IR, the status of each object, and what closed gates hide.
    pub(crate) translation: Arc<Translation>,
    /// Valid configuration that cannot be served.
    pub(crate) problems: Vec<Problem>,
    /// Faults in the sources.
    pub(crate) faults: Vec<String>,
    /// What the source leaves out.
    pub(crate) unserved: Unserved,
    /// Whether a socket is bound, or none is asked for.
    pub(crate) listening: bool,
    /// Until when readiness waits for plugins that routes cannot do without; none once it need not.
    pub(crate) awaits_plugins_until: Option<Instant>,
    /// The endpoints of each backend; what is told of them is as of the moment of the question.
    pub(crate) balancers: Vec<(BackendId, Balancer<Destination>)>,
}

/// The present [`ConfigView`], shared with the admin server and whoever reports it.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    present: Arc<watch::Sender<Option<Arc<ConfigView>>>>,
    /// Whether nothing is shown any more.
    is_cleared: Arc<AtomicBool>,
    /// What is still to be read before anything is shown, and why it is not.
    unread: Option<watch::Receiver<String>>,
}

impl View {
    /// Of a source that tells what of it is still to be read.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn awaiting(unread: watch::Receiver<String>) -> Self {
        Self { unread: Some(unread), ..Self::default() }
    }

    /// Shows `config` from now on.
    pub(crate) fn set(&self, config: ConfigView) {
        self.present.send_replace(Some(Arc::new(config)));
    }

    /// Shows nothing any more: the process is about to end.
    pub(crate) fn clear(&self) {
        self.is_cleared.store(true, Relaxed);
        self.present.send_replace(None);
    }

    /// Why the process is not ready, if it is not.
    pub(crate) fn unready(&self) -> Option<Cow<'static, str>> {
        match self.get() {
            Some(config) => config.unready().map(Cow::Borrowed),
            None if self.is_cleared.load(Relaxed) => Some("the process ends".into()),
            None => {
                let unread = self.unread.as_ref().map(|unread| unread.borrow().clone());
                let unread = unread.filter(|unread| !unread.is_empty());
                let unread = unread.map_or_else(String::new, |unread| format!(": {unread}"));
                Some(format!("the configuration is not read yet{unread}").into())
            }
        }
    }

    /// What is served, once something is.
    pub(crate) fn get(&self) -> Option<Arc<ConfigView>> {
        self.present.borrow().clone()
    }

    /// What is served from now on, and whenever it changes.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<ConfigView>>> {
        self.present.subscribe()
    }
}

impl ConfigView {
    /// Why clients may not be sent here.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        if !self.listening {
            Some("no port can be bound")
        } else if self.awaits_plugins_until.is_some_and(|until| until > Instant::now()) {
            Some("a WasmPlugin that routes cannot do without is still to come")
        } else {
            None
        }
    }

    /// The view as JSON; secrets are redacted by their type.
    pub(crate) fn to_json(&self) -> Value {
        let problems: Vec<Value> = self
            .problems
            .iter()
            .map(|problem| {
                json!({
                    "object": problem.object.to_string(),
                    "reason": problem.reason,
                    "message": problem.message,
                })
            })
            .collect();
        json!({
            "generation": self.generation,
            "ir": value(&self.translation.ir),
            "conditions": value(&self.translation.statuses),
            "ignored": value(&self.translation.ignored),
            "warnings": value(&self.translation.warnings),
            "problems": problems,
            "faults": self.faults,
            "unserved": self.unserved.kinds,
            "withheld": self.unserved.namespaces,
            "endpoints": self.endpoints(),
        })
    }

    fn endpoints(&self) -> Value {
        let backends = self.balancers.iter().map(|(id, balancer)| {
            let endpoints = balancer.status().into_iter().map(|endpoint| {
                json!({
                    "id": endpoint.id.as_str(),
                    "address": endpoint.target.to_string(),
                    "readiness": format!("{:?}", endpoint.readiness),
                    "tier": endpoint.tier,
                    "health": format!("{:?}", endpoint.health),
                    "weightPercent": endpoint.weight_percent,
                    "inFlight": endpoint.in_flight,
                    "ejections": endpoint.ejections,
                })
            });
            (id.to_string(), endpoints.collect())
        });
        Value::Object(backends.collect())
    }
}

fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_else(|error| Value::String(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn plugins_that_never_come_keep_nobody_from_being_ready_for_ever() {
        let patience = Duration::from_secs(60);
        let mut view = ConfigView { listening: true, ..ConfigView::default() };
        assert!(view.unready().is_none());
        view.awaits_plugins_until = Some(Instant::now() + patience);
        assert!(view.unready().is_some());
        tokio::time::advance(patience).await;
        assert!(view.unready().is_none());
        assert!(ConfigView::default().unready().is_some(), "without a socket");
    }
}
