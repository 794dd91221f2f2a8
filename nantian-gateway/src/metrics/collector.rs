//! The bridge to Prometheus.

use std::{
    fmt,
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    Metrics,
    route::{BOUNDS, CLASSES, Totals},
};

/// The route label of requests that no route answered.
const UNMATCHED: &str = "";

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_routes(&mut encoder)?;
        self.encode_streams(&mut encoder)?;
        self.encode_endpoints(&mut encoder)?;
        self.encode_process(&mut encoder)?;
        self.encode_limits(&mut encoder)?;
        self.encode_ai(&mut encoder)?;
        self.encode_plugins(&mut encoder)
    }
}

impl Metrics {
    fn encode_routes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let routes: Vec<(String, Totals)> = {
            let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
            let named = routes.iter().map(|(name, metrics)| (name.clone(), metrics.totals()));
            named.chain([(UNMATCHED.to_owned(), self.unmatched.totals())]).collect()
        };
        let mut requests = encoder.encode_descriptor(
            "nantian_http_requests",
            "Requests by route and status class; an empty route means that none matched",
            None,
            MetricType::Counter,
        )?;
        for (route, totals) in &routes {
            for (class, value) in CLASSES.iter().zip(totals.classes).filter(|(_, value)| *value > 0) {
                requests
                    .encode_family(&[("route", route.as_str()), ("code_class", class)])?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        let mut durations = encoder.encode_descriptor(
            "nantian_http_request_duration_seconds",
            "Time from the head of a request to the end of its response",
            None,
            MetricType::Histogram,
        )?;
        for (route, totals) in &routes {
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
        let mut retries = encoder.encode_descriptor(
            "nantian_http_retries",
            "Requests that were sent once more, as a rule's retry asks",
            None,
            MetricType::Counter,
        )?;
        for (route, totals) in routes.iter().filter(|(_, totals)| totals.retries > 0) {
            retries
                .encode_family(&[("route", route.as_str())])?
                .encode_counter::<NoLabelSet, _, u64>(&totals.retries, None)?;
        }
        let mut mirrored = encoder.encode_descriptor(
            "nantian_http_mirrored_requests",
            "Copies of requests for mirrors: sent, or left out because they are too long or too many",
            None,
            MetricType::Counter,
        )?;
        for (route, totals) in &routes {
            for (result, value) in [("sent", totals.mirrored), ("left_out", totals.unmirrored)] {
                if value > 0 {
                    mirrored
                        .encode_family(&[("route", route.as_str()), ("result", result)])?
                        .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                }
            }
        }
        let mut in_flight = encoder.encode_descriptor(
            "nantian_http_requests_in_flight",
            "Requests whose response is not over",
            None,
            MetricType::Gauge,
        )?;
        for (route, totals) in &routes {
            in_flight.encode_family(&[("route", route.as_str())])?.encode_gauge(&totals.in_flight)?;
        }
        Ok(())
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let connections: u64 = self.connections.iter().map(|open| open.load(Relaxed)).sum();
        gauge(encoder, "nantian_connections", "Open client connections", connections)?;
        gauge(
            encoder,
            "nantian_config_faults",
            "Faults in the sources of the configuration",
            self.faults.load(Relaxed),
        )?;
        gauge(
            encoder,
            "nantian_config_last_reload_duration_microseconds",
            "Time that the last reload took",
            self.reload_micros.load(Relaxed),
        )?;
        let mut reloads = encoder.encode_descriptor(
            "nantian_config_reloads",
            "Reloads by result",
            None,
            MetricType::Counter,
        )?;
        for (result, counter) in [("clean", &self.reloads), ("with_faults", &self.rejected_reloads)] {
            reloads
                .encode_family(&[("result", result)])?
                .encode_counter::<NoLabelSet, _, u64>(&counter.load(Relaxed), None)?;
        }
        let mut limited = encoder.encode_descriptor(
            "nantian_rate_limited_requests",
            "Requests over the limit of a TokenPolicy, by what became of them",
            None,
            MetricType::Counter,
        )?;
        for (decision, counter) in [("refused", &self.limited), ("warned", &self.warned)] {
            limited
                .encode_family(&[("decision", decision)])?
                .encode_counter::<NoLabelSet, _, u64>(&counter.load(Relaxed), None)?;
        }
        let mut ignored = encoder.encode_descriptor(
            "nantian_config_gated_objects",
            "Objects that a closed feature gate hides",
            None,
            MetricType::Gauge,
        )?;
        for (feature, count) in &*self.ignored.lock().unwrap_or_else(PoisonError::into_inner) {
            ignored.encode_family(&[("feature", feature.name())])?.encode_gauge(count)?;
        }
        Ok(())
    }
}

pub(super) fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}
