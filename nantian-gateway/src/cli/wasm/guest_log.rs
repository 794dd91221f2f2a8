//! What guests log, kept until it is shown.

use std::{
    fmt::{self, Write as _},
    mem,
    sync::{Arc, Mutex},
};

use tracing::{Event, Subscriber, field, level_filters::LevelFilter};
use tracing_subscriber::{
    filter::Targets,
    layer::{Context, Layer, SubscriberExt as _},
    registry::Registry,
    util::SubscriberInitExt as _,
};

use crate::sync::lock;

/// Lines of guests, and what the sandbox says about them.
#[derive(Debug, Clone, Default)]
pub(super) struct GuestLog(Arc<Mutex<Vec<String>>>);

/// The text of an event.
#[derive(Default)]
struct Text(String);

// === impl GuestLog ===

impl GuestLog {
    /// Takes all logs of the process.
    pub(super) fn install(self) -> anyhow::Result<()> {
        Ok(self.subscriber().try_init()?)
    }

    pub(super) fn subscriber(self) -> impl Subscriber + Send + Sync {
        let wanted = Targets::new().with_target("nantian_wasm", LevelFilter::TRACE);
        Registry::default().with(self.with_filter(wanted))
    }

    /// The lines since the last time.
    pub(super) fn take(&self) -> Vec<String> {
        mem::take(&mut *lock(&self.0))
    }
}

impl<S: Subscriber> Layer<S> for GuestLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let line = format!("{:<5} {}", event.metadata().level(), text.0);
        lock(&self.0).push(line);
    }
}

impl field::Visit for Text {
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        // There is one plugin and one stream; writing into a string does not fail.
        let _ = match field.name() {
            "message" if self.0.is_empty() => write!(self.0, "{value:?}"),
            "message" => {
                let rest = mem::take(&mut self.0);
                write!(self.0, "{value:?}{rest}")
            }
            "plugin" | "context" => Ok(()),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
