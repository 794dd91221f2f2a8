//! What a reply comes to that passes as it is, once it has begun.

use bytes::Bytes;
use http_body::Body;

use super::Call;
use crate::call::attempt::{Answer, Failed, Step};
use crate::call::chunk_path::ChunkPath;
use crate::call::first_bytes::{Begun, error_in};
use crate::call::receive::Receiving;
use crate::error::BoxError;
use crate::ir::Fault;
use crate::target::Target;
use crate::usage::UsageSink;

// === impl Call ===

impl<K: UsageSink> Call<K> {
    /// Judges a reply by its beginning; of an error all has come.
    pub(super) fn begun<B>(&mut self, target: &Target, receiving: Receiving<B>) -> Step<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let begun = receiving.begun();
        let is_cut = receiving.has_all_data() && (begun.is_none() || self.metering.meter().lacks_end());
        let fault = match begun {
            Some(Begun::Error) => error_in(&receiving.joined()),
            Some(Begun::Other) => Some(Fault::unreadable()),
            Some(Begun::Answer) | None => None,
        };
        if let Some(fault) = fault.or_else(|| is_cut.then(Fault::truncated)) {
            return self.no_answer(target, fault, &receiving.head.headers);
        }
        let (head, held, rest) = receiving.into_parts();
        Step::Answer(Box::new(Answer { head, held, rest: Some((rest, ChunkPath::Pass)) }))
    }

    /// What a reply comes to that is no answer, whatever its status says.
    pub(super) fn no_answer<B>(
        &mut self,
        target: &Target,
        fault: Fault,
        headers: &http::HeaderMap,
    ) -> Step<B> {
        self.discard(fault.kind);
        Step::Failed(Failed::of(target, fault, headers))
    }
}
