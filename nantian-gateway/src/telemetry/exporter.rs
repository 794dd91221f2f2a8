//! Tells one collector of the calls of one AIService.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    Method, Request,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue},
};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, interval_at, sleep, timeout},
};

use super::{CallRecord, ExportCounts, Place, ServiceInfo, content::Redaction, measures::Measures, otlp};
use crate::{body::Body, ir, upstream::Client};

/// How many records are told at once at most.
const BATCH: usize = 512;

/// How long a record may wait for others.
const LINGER: Duration = Duration::from_secs(1);

/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often metrics are told, as OpenTelemetry's own exporters do.
const PERIOD: Duration = Duration::from_secs(60);

/// The most that is read of an answer, in bytes.
const MOST_SAID: usize = 64 * 1024;

/// With it, Langfuse shows a trace at once.
const LANGFUSE_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-langfuse-ingestion-version"), HeaderValue::from_static("4"));

/// Tells one collector of the calls of one AIService.
#[derive(Debug)]
pub(super) struct Exporter {
    pub(super) place: Place,
    pub(super) collector: ir::Collector,
    pub(super) service: Arc<ServiceInfo>,
    pub(super) counts: Arc<ExportCounts>,
    /// `None` tells no contents.
    pub(super) redaction: Option<Redaction>,
}

/// Why a collector has not taken something.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("the collector did not answer within {PATIENCE:?}")]
    Late,
    #[error("the collector cannot be reached")]
    Unreachable,
    #[error("the collector answered with status {0}")]
    Refused(u16),
    #[error("the authorization is no header value")]
    Authorization,
}

// === impl Exporter ===

impl Exporter {
    /// Tells what comes, until nothing more can come and all of it is told.
    pub(super) async fn run(self, client: Client, mut inbox: Receiver<CallRecord>) {
        let mut measures = Measures::new(SystemTime::now());
        let mut period = interval_at(Instant::now() + PERIOD, PERIOD);
        let measured = self.collector.kind == ir::CollectorKind::Otlp;
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
                    batch.iter().for_each(|record| measures.add(record));
                    self.tell(&client, &batch).await;
                    batch.clear();
                }
                _ = period.tick(), if measured => self.measure(&client, &measures).await,
            }
        }
        if measured {
            self.measure(&client, &measures).await;
        }
    }

    async fn tell(&self, client: &Client, batch: &[CallRecord]) {
        let told =
            self.post(client, "traces", &otlp::traces(batch, &self.collector, self.redaction.as_ref())).await;
        let counter = if told.is_ok() { &self.counts.sent } else { &self.counts.failed };
        counter.fetch_add(batch.len() as u64, Relaxed);
        if let Err(error) = told {
            let (service, collector) = (&self.service.name, &self.place.authority);
            tracing::warn!(%service, %collector, spans = batch.len(), %error, "traces are lost");
        }
    }

    async fn measure(&self, client: &Client, measures: &Measures) {
        let Some(body) = measures.to_otlp(&self.service, &self.collector, SystemTime::now()) else { return };
        if let Err(error) = self.post(client, "metrics", &body).await {
            let (service, collector) = (&self.service.name, &self.place.authority);
            tracing::warn!(%service, %collector, %error, "metrics are told later");
        }
    }

    async fn post(&self, client: &Client, signal: &str, body: &Value) -> Result<(), NotTaken> {
        let mut request = Request::new(Body::full(Bytes::from(body.to_string())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.place.path(signal).parse().map_err(|_| NotTaken::Unreachable)?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&self.place.authority).map_err(|_| NotTaken::Unreachable)?;
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(secret) = &self.collector.authorization {
            let mut value = HeaderValue::from_bytes(&secret.0).map_err(|_| NotTaken::Authorization)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if self.collector.kind == ir::CollectorKind::Langfuse {
            let (name, value) = LANGFUSE_VERSION;
            headers.insert(name, value);
        }
        let exchange = async {
            let sent = client.send(self.place.destination.clone(), request).await;
            let (head, body) = sent.map_err(|_| NotTaken::Unreachable)?.into_parts();
            // Read to its end, the connection can be used again.
            let _ = Limited::new(body, MOST_SAID).collect().await;
            if head.status.is_success() { Ok(()) } else { Err(NotTaken::Refused(head.status.as_u16())) }
        };
        timeout(PATIENCE, exchange).await.unwrap_or(Err(NotTaken::Late))
    }
}
