//! The admin server: health, readiness, metrics and the configuration.

mod patient;
mod text_format;

use std::{
    future::{Future, IntoFuture},
    io,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::oneshot, time::sleep};

use self::patient::PatientListener;
use crate::{control::View, metrics::Metrics, runtime::blocking};

/// What OpenMetrics text calls itself.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What Prometheus' own text calls itself.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone)]
struct Shared {
    view: View,
    metrics: Arc<Metrics>,
}

/// How long a client of the admin server may take to end once it is stopped.
const LAST: Duration = Duration::from_millis(500);

/// Serves the admin endpoints on `listener` until `stopped` is done, and then what was asked before for a
/// moment.
///
/// # Errors
/// When the socket fails.
///
/// # Cancellation
/// Dropping the future closes the server.
pub(crate) async fn serve(
    listener: TcpListener,
    view: View,
    metrics: Arc<Metrics>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/config", get(config))
        .with_state(Shared { view, metrics });
    let (stop, stopping) = oneshot::channel();
    let server = axum::serve(PatientListener(listener), router).with_graceful_shutdown(async move {
        stopped.await;
        // The server may have failed already.
        let _ = stop.send(());
    });
    let overdue = async move {
        let _ = stopping.await;
        sleep(LAST).await;
    };
    tokio::select! {
        served = server.into_future() => served,
        () = overdue => Ok(()),
    }
}

/// How long a worker may not be at work until the process is better started anew.
const OVERDUE: Duration = Duration::from_secs(10);

/// Healthy as long as every worker is at work; those that have drained are no more.
async fn healthy(State(shared): State<Shared>) -> (StatusCode, String) {
    let overdue = shared.metrics.overdue_worker(OVERDUE);
    match overdue.filter(|_| shared.view.get().is_some()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(worker) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("worker {worker} stands still for {OVERDUE:?}\n"))
        }
    }
}

/// Ready once listeners are bound and the first snapshot serves, with the plugins that routes cannot do
/// without.
async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    match shared.view.unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

/// In OpenMetrics for whoever asks for it; else in the older format, which every scraper reads.
async fn scrape(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_open = accepted.any(|types| types.contains("application/openmetrics-text"));
    aside(move || match shared.metrics.encode() {
        Ok(text) if is_open => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Ok(text) => ([(header::CONTENT_TYPE, PLAIN)], text_format::plain(&text)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
    .await
}

async fn config(State(shared): State<Shared>) -> Response {
    aside(move || match shared.view.get() {
        Some(view) => Json(view.to_json()).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    })
    .await
}

/// Writes a long answer where it delays nothing: the thread that serves has the store of the limits to talk
/// to.
async fn aside(answer: impl FnOnce() -> Response + Send + 'static) -> Response {
    let failed = |error: tokio::task::JoinError| {
        (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
    };
    blocking(answer).await.unwrap_or_else(failed)
}
