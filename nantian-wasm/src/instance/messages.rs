//! The callbacks of an instance about the parts of messages.

use super::Instance;
use crate::error::{Cause, Phase};
use crate::proxy_wasm::{Headers, ROOT, Step, carry_out};

// === impl Instance ===

impl Instance {
    /// Creates the context of a stream and shows it the headers of its request.
    pub(crate) async fn on_begin(&mut self, context: u32, count: u32, end: bool) -> Result<u32, Cause> {
        if let Some(begin) = &self.guest.begin {
            self.store.enter(context, Phase::RequestHeaders);
            return self.store.call(begin, (context, ROOT, count, u32::from(end))).await;
        }
        self.on_create(context).await?;
        if !self.store.inner.data_mut().begin_next() {
            return Ok(0);
        }
        self.on_headers(context, Phase::RequestHeaders, count, end).await
    }

    pub(crate) async fn on_headers(
        &mut self,
        context: u32,
        phase: Phase,
        count: u32,
        end: bool,
    ) -> Result<u32, Cause> {
        self.store.enter(context, phase);
        if let Some(verdict) = self.judge(phase, end).await {
            return verdict;
        }
        let callback = match phase {
            Phase::RequestHeaders => &self.guest.on_request_headers,
            _ => &self.guest.on_response_headers,
        };
        match callback {
            Headers::Absent => Ok(0),
            Headers::Short(callback) => self.store.call(callback, (context, count)).await,
            Headers::Long(callback) => self.store.call(callback, (context, count, u32::from(end))).await,
        }
    }

    pub(crate) async fn on_body(
        &mut self,
        context: u32,
        phase: Phase,
        length: u32,
        end: bool,
    ) -> Result<u32, Cause> {
        self.store.enter(context, phase);
        if let Some(verdict) = self.judge(phase, end).await {
            return verdict;
        }
        let callback = match phase {
            Phase::RequestBody => &self.guest.on_request_body,
            _ => &self.guest.on_response_body,
        };
        match callback {
            Some(callback) => self.store.call(callback, (context, length, u32::from(end))).await,
            None => Ok(0),
        }
    }

    pub(crate) async fn on_trailers(&mut self, context: u32, phase: Phase, count: u32) -> Result<u32, Cause> {
        self.store.enter(context, phase);
        let callback = match phase {
            Phase::RequestTrailers => &self.guest.on_request_trailers,
            _ => &self.guest.on_response_trailers,
        };
        match callback {
            Some(callback) => self.store.call(callback, (context, count)).await,
            None => Ok(0),
        }
    }

    /// Asks a guest that has hooks in the place of callbacks.
    async fn judge(&mut self, phase: Phase, end: bool) -> Option<Result<u32, Cause>> {
        let verdicts = self.guest.verdicts.as_ref()?;
        let exchange = self.store.inner.data().exchange();
        let is_streaming = exchange.is_some_and(|exchange| verdicts.takes_parts(exchange.streaming));
        match verdicts.step(phase, end, is_streaming) {
            Step::Done(code) => Some(Ok(code)),
            Step::Call(hook) => {
                let called = self.store.call(hook, ()).await;
                Some(called.map(|verdict| carry_out(self.store.inner.data_mut(), verdict, is_streaming)))
            }
        }
    }
}
