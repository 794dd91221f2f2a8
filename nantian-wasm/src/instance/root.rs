//! The end of the root context.

use super::Instance;
use crate::error::{Cause, Phase};
use crate::proxy_wasm::ROOT;

// === impl Instance ===

impl Instance {
    /// Whether the guest has anything to do when its root context ends.
    pub(crate) fn has_root_end(&self) -> bool {
        self.guest.on_done.is_some() || self.guest.on_delete.is_some()
    }

    /// Tells the guest that nothing more comes; false if it wants to say itself when it is done.
    pub(crate) async fn on_root_done(&mut self) -> Result<bool, Cause> {
        let Some(done) = &self.guest.on_done else { return Ok(true) };
        self.store.enter_root(Phase::End);
        let is_done = self.store.call(done, ROOT).await? != 0;
        self.store.inner.data_mut().is_ending = !is_done;
        drop(self.give_back());
        Ok(is_done)
    }

    /// Whether the guest has not said yet that it is done.
    pub(crate) fn is_ending(&self) -> bool {
        self.store.inner.data().is_ending
    }

    /// Ends an instance in whose place there is another, which does not wait until the guest is done.
    pub(crate) async fn end(mut self) {
        if self.on_root_done().await.is_ok() {
            // What it does now nobody sees.
            let _ = self.on_root_delete().await;
        }
    }

    /// Deletes the root context; the instance is of no use then.
    pub(crate) async fn on_root_delete(&mut self) -> Result<(), Cause> {
        let Some(delete) = &self.guest.on_delete else { return Ok(()) };
        self.store.enter_root(Phase::End);
        self.store.call(delete, ROOT).await
    }
}
