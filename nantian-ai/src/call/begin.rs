//! How a call begins.

use bytes::Bytes;
use http::request::Parts;

use super::Call;
use crate::call::deadline::Deadline;
use crate::call::timeout::Watch;
use crate::dialect::{Operation, Surface};
use crate::error::Error;
use crate::layer_parts::LayerParts;
use crate::memory::HeldMemory;
use crate::outbound::Way;
use crate::outbound::answer_model;
use crate::route::Onward;
use crate::usage::{Metering, UsageObserver};

// === impl LayerParts ===

impl<O: UsageObserver> LayerParts<O> {
    /// Takes a request whose body has been read, and is `held`.
    pub(crate) fn begin(
        &self,
        surface: Surface,
        head: Parts,
        body: Bytes,
        held: Option<&HeldMemory>,
    ) -> Result<Call<O::Sink>, Error> {
        let keeps = self.observer.keeps();
        let kept = surface.operation() == Operation::Chat && keeps > 0;
        let kept = kept.then(|| body.clone());
        let estimate = (surface.operation() == Operation::CountTokens).then(|| self.estimate(&body));
        let prepared = self.target.prepare(&surface, head, body)?;
        let facts = prepared.facts();
        let sink = self.observer.begin(prepared.extensions(), facts);
        let onward = prepared.extensions().get::<Onward>().copied().unwrap_or_default();
        let deadline = prepared.extensions().get::<Deadline>().copied();
        let way = prepared.way().clone();
        let mut meter = prepared.meter();
        let spoken = meter.dialect();
        if onward.sent {
            meter.mark_sent();
        }
        let mut metering = Metering::new(meter, sink);
        metering.hold(held.map(HeldMemory::beside));
        if !facts.refers && !facts.runs_tools {
            metering.teach(self.target.calibration());
        }
        if !prepared.losses().is_empty() {
            metering.note_losses(prepared.losses());
        }
        let lost = match &way {
            // It is named where the answer is written.
            Way::Translated(_) => None,
            Way::Same | Way::HidingUsage | Way::Renamed(_) => prepared.losses().header_value(),
        };
        let renamed = answer_model::name(&surface, facts, self.target.model());
        if let Some(request) = kept {
            metering.keep(surface.dialect(), &request, spoken, keeps, held.map(HeldMemory::beside));
        }
        let withdrawn = prepared.wishes().cleared();
        Ok(Call {
            streaming: facts.stream,
            metering,
            onward,
            watch: Watch::new(self.target.config().timeouts, deadline, facts.stream),
            deadline,
            prepared: Some(prepared),
            lost,
            is_renamed: renamed.is_some() && !matches!(way, Way::Same),
            way,
            surface,
            estimate,
            turn: fastrand::usize(..self.target.secrets().max(1)),
            retries: 0,
            withdrawn,
            fitted: false,
            budgeted: Some(self.target.budget().begin()),
        })
    }
}
