//! When there is something to read.

use crate::{metrics::Metrics, source::Watcher};

/// Tells when there is something to read; an error is that it never will again.
pub(super) trait Changes {
    /// Lets `metrics` tell how the source is, if there is anything to tell.
    fn show_source(&self, _: &Metrics) {}

    /// Waits until everything can be read for the first time.
    async fn complete(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Waits for the next change.
    async fn changed(&mut self) -> anyhow::Result<()>;
}

impl Changes for Watcher {
    async fn changed(&mut self) -> anyhow::Result<()> {
        self.changed().await;
        Ok(())
    }
}

/// The changes of a source, and those of the session key file.
pub(super) struct WithKeyFile<C> {
    changes: C,
    key_file: Option<Watcher>,
}

impl<C> WithKeyFile<C> {
    pub(super) fn new(changes: C, key_file: Option<Watcher>) -> Self {
        Self { changes, key_file }
    }
}

impl<C: Changes> Changes for WithKeyFile<C> {
    async fn complete(&mut self) -> anyhow::Result<()> {
        self.changes.complete().await
    }

    async fn changed(&mut self) -> anyhow::Result<()> {
        match &mut self.key_file {
            Some(file) => tokio::select! {
                changed = self.changes.changed() => changed,
                () = file.changed() => Ok(()),
            },
            None => self.changes.changed().await,
        }
    }
}
