//! The API server, which may stop to answer.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Uri};
use kube::{Client, Config, Error, client::ClientBuilder};
use tokio::time::timeout;
use tower::{BoxError, Service, layer::layer_fn};

/// How long an answer may take to begin. A watch begins at once.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a page of a list may take. The server reads on until it has found as many objects as a page has,
/// which takes long where most are left out, and gives up by itself after a minute.
const LIST: Duration = Duration::from_secs(75);
/// How long a connection may say nothing: longer than any watch lasts.
const SILENCE: Duration = Duration::from_secs(90);

/// The server has not begun to answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct Unanswered(Duration);

/// A client of the API server whose requests end, also where the server, or what is between, is silent.
///
/// # Errors
/// When there is no such client.
pub fn connect(mut config: Config) -> Result<Client, Error> {
    config.read_timeout = Some(SILENCE);
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer_fn(Bounded)).build())
}

/// Requests end where their answer does not begin.
#[derive(Debug, Clone)]
struct Bounded<S>(S);

impl<S, B> Service<Request<B>> for Bounded<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let limit = limit(request.uri());
        let answer = timeout(limit, self.0.call(request));
        answer.map(move |answer| answer.map_err(|_| Unanswered(limit))?.map_err(Into::into)).boxed()
    }
}

/// How long the answer to a request may take to begin: only lists say how long a page is.
fn limit(uri: &Uri) -> Duration {
    let is_list = uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("limit=")));
    if is_list { LIST } else { ANSWER }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_an_error() {
        let silent = Bounded(service_fn(|_: Request<()>| pending::<Result<(), BoxError>>()));
        for (path, expected) in [
            ("/api/v1/secrets?limit=500&fieldSelector=type", "no answer within 75s"),
            ("/api/v1/secrets?watch=true&timeoutSeconds=60", "no answer within 10s"),
            ("/readyz", "no answer within 10s"),
        ] {
            let request = Request::get(path).body(()).unwrap();
            let error = silent.clone().oneshot(request).await.unwrap_err();
            assert_eq!(error.to_string(), expected, "{path}");
        }
        let answering = Bounded(service_fn(|_: Request<()>| ready(Ok::<_, BoxError>(1))));
        assert_eq!(answering.oneshot(Request::new(())).await.unwrap(), 1);
    }
}
