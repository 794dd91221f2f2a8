//! Tells one collector of the calls of one AIService.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use super::{
    CallRecord, ExportCounts, ServiceInfo,
    content::Redaction,
    delivery::{Accepted, Delivery, DeliveryError},
    measures::SharedMeasures,
    otlp,
};
use crate::{ir, respond::ErrorChain, upstream::Client};

/// How many records are told at once at most.
const BATCH: usize = 512;

/// How long contents may become that are told at once, in bytes; a longer one is told alone.
const MOST_CONTENT: usize = 2 << 20;

/// How long a record may wait for others.
const LINGER: Duration = Duration::from_secs(1);

/// How often metrics are told, as OpenTelemetry's own exporters do, and losses at most.
const PERIOD: Duration = Duration::from_secs(60);

/// Tells one collector of the calls of one AIService.
#[derive(Debug)]
pub(super) struct Exporter {
    pub(super) delivery: Delivery,
    pub(super) collector: ir::Collector,
    /// Which of the processes of a name this one is.
    pub(super) instance: Arc<str>,
    pub(super) service: Arc<ServiceInfo>,
    pub(super) counts: Arc<ExportCounts>,
    /// What calls have been counted; `None` tells no metrics.
    pub(super) measures: Option<SharedMeasures>,
    /// `None` tells no contents.
    pub(super) redaction: Option<Redaction>,
    pub(super) losses: Losses,
}

/// What the log tells of spans that a collector does not take: at once, then once a minute, and when they are
/// taken again.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// When the log told of one last.
    told: Option<Instant>,
    /// The log has told of one, and not that spans are taken again.
    is_open: bool,
    /// How many were lost since the log told of them.
    untold: u64,
}

// === impl Exporter ===

impl Exporter {
    /// Tells what comes, until nothing more can come and all of it is told.
    pub(super) async fn run(mut self, client: Client, mut inbox: Receiver<CallRecord>) {
        let mut period = interval_at(Instant::now() + PERIOD, PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                came = inbox.recv_many(&mut batch, BATCH) => {
                    if came == 0 {
                        break;
                    }
                    if came < BATCH && !inbox.is_closed() {
                        sleep(LINGER).await;
                    }
                    while batch.len() < BATCH && let Ok(record) = inbox.try_recv() {
                        batch.push(record);
                    }
                    for part in parts(&batch, |record| record.content_len()) {
                        self.tell(&client, part).await;
                    }
                    batch.clear();
                }
                _ = period.tick() => {
                    self.tell_measures(&client).await;
                    let rest = self.losses.rest_at(Instant::now());
                    self.tell_rest(rest);
                }
            }
        }
        self.tell_last_measures(&client).await;
        let rest = self.losses.rest();
        self.tell_rest(rest);
    }

    /// Tells a batch.
    async fn tell(&mut self, client: &Client, batch: &[CallRecord]) {
        let traces = otlp::traces(batch, (&self.collector, &self.instance), self.redaction.as_ref()).await;
        let (attempts, told) = self.insist(client, "traces", Bytes::from(traces.to_string())).await;
        let spans = batch.len() as u64;
        let rejected = told.as_ref().map_or(spans, |taken| taken.rejected.min(spans));
        self.counts.sent.fetch_add(spans - rejected, Relaxed);
        self.counts.failed.fetch_add(rejected, Relaxed);
        let (service, collector) = (&self.service.name, self.delivery.collector());
        let Some(spans) = self.losses.note_at(Instant::now(), rejected) else { return };
        match told {
            Err(error) => {
                let error = ErrorChain(&error);
                tracing::warn!(%service, %collector, spans, attempts, %error, "traces are lost");
            }
            Ok(_) if rejected > 0 => tracing::warn!(%service, %collector, spans, "traces are refused"),
            Ok(_) => tracing::info!(%service, %collector, lost = spans, "traces are taken again"),
        }
    }

    /// Logs spans that were lost, and of which no batch has told.
    fn tell_rest(&self, spans: u64) {
        let (service, collector) = (&self.service.name, self.delivery.collector());
        if spans > 0 {
            tracing::warn!(%service, %collector, spans, "traces were lost");
        }
    }

    /// Tells what has been counted, once: the next time makes up for it, since that holds all from the start.
    async fn tell_measures(&self, client: &Client) {
        let Some(body) = self.measures() else { return };
        if let Err(error) = self.delivery.post(client, "metrics", body).await {
            let (service, collector) = (&self.service.name, self.delivery.collector());
            tracing::warn!(%service, %collector, error = %ErrorChain(&error), "metrics are told later");
        }
    }

    /// Tells what has been counted when there is no next time.
    async fn tell_last_measures(&self, client: &Client) {
        let Some(body) = self.measures() else { return };
        if let (attempts, Err(error)) = self.insist(client, "metrics", body).await {
            let (service, collector, error) =
                (&self.service.name, self.delivery.collector(), ErrorChain(&error));
            tracing::warn!(%service, %collector, attempts, %error, "the last metrics are lost");
        }
    }

    /// The body that tells what has been counted until now; `None` if nothing has.
    fn measures(&self) -> Option<Bytes> {
        let told = (&self.collector, &*self.instance);
        let body = self.measures.as_ref()?.so_far().to_otlp(&self.service, told, SystemTime::now())?;
        Some(Bytes::from(body.to_string()))
    }

    /// Tells the body of a signal, more than once if the collector cannot take it now; says how often.
    async fn insist(
        &self,
        client: &Client,
        signal: &str,
        body: Bytes,
    ) -> (u32, Result<Accepted, DeliveryError>) {
        let mut attempts = 1;
        loop {
            let told = self.delivery.post(client, signal, body.clone()).await;
            let wait = told.as_ref().err().and_then(|error| error.again_after(attempts, fastrand::f64()));
            let Some(wait) = wait else { return (attempts, told) };
            sleep(wait).await;
            attempts += 1;
        }
    }
}

// === impl Losses ===

impl Losses {
    /// Notes how many spans of a batch are lost, or that none is; if the log is to tell that, how many were
    /// lost that it has not told of.
    fn note_at(&mut self, now: Instant, lost: u64) -> Option<u64> {
        self.untold += lost;
        let is_over = lost == 0 && self.is_open;
        if !is_over && (self.untold == 0 || !self.is_due_at(now)) {
            return None;
        }
        self.is_open = lost > 0;
        if !is_over {
            self.told = Some(now);
        }
        Some(self.rest())
    }

    /// How many the log has not told of, if it is time to.
    fn rest_at(&mut self, now: Instant) -> u64 {
        if self.untold == 0 || !self.is_due_at(now) {
            return 0;
        }
        self.told = Some(now);
        self.rest()
    }

    /// How many the log has not told of.
    fn rest(&mut self) -> u64 {
        mem::take(&mut self.untold)
    }

    fn is_due_at(&self, now: Instant) -> bool {
        self.told.is_none_or(|told| now.saturating_duration_since(told) >= PERIOD)
    }
}

/// Cuts a batch where its contents become too long to be told at once.
fn parts<T>(mut batch: &[T], length: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut total = 0_usize;
        let mut fits = |record: &T| {
            total = total.saturating_add(length(record));
            total <= MOST_CONTENT
        };
        let count = batch.iter().take_while(|record| fits(record)).count().max(1);
        let (part, rest) = batch.split_at_checked(count)?;
        batch = rest;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_told_in_parts_that_are_not_too_long() {
        let mebibyte = 1 << 20;
        let batch = [mebibyte, mebibyte, 1, 0, 5 * mebibyte, 7, 7];
        let parts: Vec<_> = parts(&batch, |length| *length).collect();
        assert_eq!(parts, [&batch[..2], &batch[2..4], &batch[4..5], &batch[5..]]);
        assert_eq!(super::parts(&[0; BATCH], |length| *length).count(), 1);
        assert_eq!(super::parts(&[], |length: &usize| *length).count(), 0);
    }

    #[test]
    fn a_collector_that_takes_nothing_is_told_of_once_a_minute_and_when_it_takes_spans_again() {
        let (mut losses, begun) = (Losses::default(), Instant::now());
        let mut note = |second, lost| losses.note_at(begun + Duration::from_secs(second), lost);
        assert_eq!(note(0, 0), None, "nothing was lost");
        let told: Vec<_> = (0..150).filter_map(|second| Some((second, note(second, 3)?))).collect();
        assert_eq!(told, [(0, 3), (60, 180), (120, 180)]);
        assert_eq!((note(151, 0), note(152, 0)), (Some(87), None));
    }

    #[test]
    fn losses_that_begin_again_within_a_minute_are_told_when_it_is_over() {
        let begun = Instant::now();
        let at = |second| begun + Duration::from_secs(second);
        // Of each two batches the first is lost; or then no batch comes any more.
        let lost = |second: u64| if second.is_multiple_of(2) { 3 } else { 0 };
        let mut losses = Losses::default();
        let told: Vec<_> =
            (0..130).filter_map(|second| Some((second, losses.note_at(at(second), lost(second))?))).collect();
        let (begins, ends) = ([(0, 3), (60, 90), (120, 90)], [(1, 0), (61, 0), (121, 0)]);
        assert_eq!(told, [begins[0], ends[0], begins[1], ends[1], begins[2], ends[2]]);
        assert_eq!(losses.rest_at(at(179)), 0, "the log has told of some a moment ago");
        assert_eq!((losses.rest_at(at(180)), losses.rest_at(at(300))), (12, 0));
    }
}
