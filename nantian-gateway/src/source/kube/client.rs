//! The API server, which may stop to answer.

use std::time::Duration;

use kube::{Client, Config, Error, client::ClientBuilder};
use tokio::time::timeout;
use tower::{BoxError, util::MapFutureLayer};

/// How long an answer may take to begin. Lists come in pages, and a watch begins at once.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a connection may say nothing: longer than any watch lasts.
const SILENCE: Duration = Duration::from_secs(90);

/// The server has not begun to answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {ANSWER:?}")]
struct Unanswered;

/// A client of the API server whose requests end, also where the server, or what is between, is silent.
///
/// # Errors
/// When there is no such client.
pub fn connect(mut config: Config) -> Result<Client, Error> {
    config.read_timeout = Some(SILENCE);
    let bounded = MapFutureLayer::new(answered);
    Ok(ClientBuilder::try_from(config)?.with_layer(&bounded).build())
}

async fn answered<T>(answer: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(Unanswered.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_an_error() {
        let silent = answered(std::future::pending::<Result<(), BoxError>>()).await;
        assert_eq!(silent.unwrap_err().to_string(), "no answer within 10s");
        assert_eq!(answered(async { Ok(1) }).await.unwrap(), 1);
    }
}
