//! The bridge to Prometheus.

use std::{fmt, sync::atomic::Ordering::Relaxed, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    Metrics,
    family::{counter, counters, gauge, gauges},
    route::{BOUNDS, CLASSES, MirrorResult, Totals},
};
use crate::sync::lock;

/// The route label of requests that no route answered.
const UNMATCHED: &str = "";

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_routes(&mut encoder)?;
        self.encode_streams(&mut encoder)?;
        self.encode_endpoints(&mut encoder)?;
        self.encode_config(&mut encoder)?;
        self.encode_gateway(&mut encoder)?;
        #[cfg(target_os = "linux")]
        super::process::encode(&mut encoder, self.started)?;
        self.encode_tls(&mut encoder)?;
        self.encode_preambles(&mut encoder)?;
        self.encode_limits(&mut encoder)?;
        self.encode_ai(&mut encoder)?;
        self.encode_plugins(&mut encoder)
    }
}

impl Metrics {
    fn encode_routes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let routes: Vec<(String, Totals)> = {
            let routes = lock(&self.routes);
            let named = routes.iter().map(|(name, metrics)| (name.clone(), metrics.totals()));
            named.chain([(UNMATCHED.to_owned(), self.unmatched.totals())]).collect()
        };
        let classes = routes.iter().flat_map(|(route, totals)| {
            let classes = CLASSES.into_iter().zip(totals.classes);
            classes.map(|(class, count)| ([("route", route.as_str()), ("code_class", class)], count))
        });
        counters(
            encoder,
            "nantian_http_requests",
            "Requests by route and status class, aborted where the client left before there was a status; an empty \
             route means that none matched",
            classes,
        )?;
        let mut durations = encoder.encode_descriptor(
            "nantian_http_request_duration_seconds",
            "Time from the head of a request to the end of its response, or until its client left",
            None,
            MetricType::Histogram,
        )?;
        // Nineteen lines each: of routes that nobody uses they would be most of what is scraped.
        let used = routes.iter().filter(|(_, totals)| totals.buckets.iter().any(|count| *count > 0));
        for (route, totals) in used {
            let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(totals.buckets).collect();
            let count = totals.buckets.iter().sum();
            durations.encode_family(&[("route", route.as_str())])?.encode_histogram::<NoLabelSet>(
                totals.seconds,
                count,
                &buckets,
                None,
            )?;
        }
        counters(
            encoder,
            "nantian_http_retries",
            "Requests that were sent once more, as a rule's retry asks",
            routes.iter().map(|(route, totals)| ([("route", route.as_str())], totals.retries)),
        )?;
        let mirrored = routes.iter().flat_map(|(route, totals)| {
            let copies = totals.mirrored.map(|counts| MirrorResult::LABELS.into_iter().zip(counts));
            copies
                .into_iter()
                .flatten()
                .map(|(result, count)| ([("route", route.as_str()), ("result", result)], count))
        });
        counters(
            encoder,
            "nantian_http_mirrored_requests",
            "Copies of requests for mirrors: answered, failed, or left out because they are too long or too many",
            mirrored,
        )?;
        gauges(
            encoder,
            "nantian_http_requests_in_flight",
            "Requests whose response is not over",
            routes.iter().map(|(route, totals)| ([("route", route.as_str())], totals.in_flight)),
        )
    }

    fn encode_gateway(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let connections: u64 = self.connections.iter().map(|open| open.load(Relaxed)).sum();
        gauges(
            encoder,
            "nantian_build_info",
            "The version of the program",
            [([("version", env!("CARGO_PKG_VERSION"))], 1_u64)],
        )?;
        gauge(encoder, "nantian_connections", "Open client connections", connections)?;
        counter(
            encoder,
            "nantian_access_log_lost_lines",
            "Lines of the access log that are lost, as they came faster than they could be written or the disk was full",
            self.lost_log_lines.load(Relaxed),
        )?;
        if let Some(lost) = self.log.get() {
            counter(
                encoder,
                "nantian_log_lost_lines",
                "Lines of the log that are lost, as nobody took them",
                lost.load(Relaxed),
            )?;
        }
        if let Some(memory) = self.body_memory.get() {
            gauge(
                encoder,
                "nantian_body_memory_bytes",
                "Bytes of the bodies that are read whole or held by plugins, of requests and answers",
                memory.held(),
            )?;
            counter(
                encoder,
                "nantian_body_memory_refused_requests",
                "How often there was no room for a body or an answer: the request is answered with 503, or waits as long as a plugin holds its headers",
                memory.refused(),
            )?;
        }
        Ok(())
    }
}
