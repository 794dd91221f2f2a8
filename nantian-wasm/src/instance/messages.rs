//! The callbacks of an instance about the parts of messages.

use super::Instance;
use crate::error::{Cause, Phase};
use crate::proxy_wasm::{Headers, Step, carry_out};

// === impl Instance ===

impl Instance {
    pub(crate) async fn on_headers(
        &mut self,
        context: u32,
        phase: Phase,
        count: u32,
        end: bool,
    ) -> Result<u32, Cause> {
        self.enter(context, phase);
        if let Some(verdict) = self.judge(phase, end).await {
            return verdict;
        }
        let callback = match phase {
            Phase::RequestHeaders => &self.guest.on_request_headers,
            _ => &self.guest.on_response_headers,
        };
        match callback {
            Headers::Absent => Ok(0),
            Headers::Short(callback) => self.call(&callback.clone(), (context, count)).await,
            Headers::Long(callback) => self.call(&callback.clone(), (context, count, u32::from(end))).await,
        }
    }

    pub(crate) async fn on_body(
        &mut self,
        context: u32,
        phase: Phase,
        length: u32,
        end: bool,
    ) -> Result<u32, Cause> {
        self.enter(context, phase);
        if let Some(verdict) = self.judge(phase, end).await {
            return verdict;
        }
        let callback = match phase {
            Phase::RequestBody => &self.guest.on_request_body,
            _ => &self.guest.on_response_body,
        };
        match callback.clone() {
            Some(callback) => self.call(&callback, (context, length, u32::from(end))).await,
            None => Ok(0),
        }
    }

    pub(crate) async fn on_trailers(&mut self, context: u32, phase: Phase, count: u32) -> Result<u32, Cause> {
        self.enter(context, phase);
        let callback = match phase {
            Phase::RequestTrailers => &self.guest.on_request_trailers,
            _ => &self.guest.on_response_trailers,
        };
        match callback.clone() {
            Some(callback) => self.call(&callback, (context, count)).await,
            None => Ok(0),
        }
    }

    /// Asks a guest that has hooks in the place of callbacks.
    async fn judge(&mut self, phase: Phase, end: bool) -> Option<Result<u32, Cause>> {
        let verdicts = self.guest.verdicts.as_ref()?;
        let is_streaming = self.store.data().exchange().is_some_and(|exchange| exchange.is_streaming);
        match verdicts.step(phase, end, is_streaming) {
            Step::Done(code) => Some(Ok(code)),
            Step::Call(hook) => {
                let called = self.call(&hook, ()).await;
                Some(called.map(|verdict| carry_out(self.store.data_mut(), verdict)))
            }
        }
    }
}
