//! What an answer says where its provider does not.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::Echo;

/// What is written into an answer where the provider does not say it.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a new member must not be forgotten by those who write answers"
)]
pub struct Defaults {
    /// The id of the answer.
    pub id: String,
    /// The model that has written it.
    pub model: String,
    /// When it was written.
    pub created: SystemTime,
    /// How long before that it was asked for.
    pub took: Duration,
    /// Whether an OpenAI client is told the usage of a stream.
    pub stream_usage: bool,
    /// The input tokens.
    pub input_estimate: u64,
    /// What an answer of Responses repeats of its request.
    pub echo: Echo,
}

// === impl Defaults ===

impl Defaults {
    /// Those of an answer that has failed, which repeats nothing.
    pub(crate) fn of_failure(id: String, model: String) -> Self {
        let (created, took, echo) = (SystemTime::now(), Duration::ZERO, Echo::default());
        Self { id, model, created, took, stream_usage: true, input_estimate: 0, echo }
    }

    /// As OpenAI has it: Unix time in seconds.
    pub(crate) fn created_seconds(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    /// As Ollama has it: RFC 3339 in UTC, to the microsecond; nothing for a time after the year 9999.
    pub(crate) fn created_text(&self) -> String {
        Timestamp::try_from(self.created).map(|time| format!("{time:.6}")).unwrap_or_default()
    }

    fn since_epoch(&self) -> Duration {
        self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_ollama_does() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000000Z"),
        ] {
            let defaults = Defaults {
                id: String::new(),
                model: String::new(),
                created: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
                took: Duration::ZERO,
                stream_usage: false,
                input_estimate: 0,
                echo: Echo::default(),
            };
            assert_eq!(defaults.created_text(), text);
        }
    }
}
