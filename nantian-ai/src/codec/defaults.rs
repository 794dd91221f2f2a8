//! What an answer says where its provider does not.

use std::time::{Duration, SystemTime};

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
    /// Whether an OpenAI client is told the usage of a stream.
    pub stream_usage: bool,
    /// The input tokens.
    pub input_estimate: u64,
    /// What an answer of Responses repeats of its request.
    pub echo: Echo,
}

// === impl Defaults ===

impl Defaults {
    /// As OpenAI has it: Unix time in seconds.
    pub(crate) fn created_seconds(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    /// As Ollama has it: RFC 3339 in UTC.
    pub(crate) fn created_text(&self) -> String {
        let since = self.since_epoch();
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let micros = since.subsec_micros();
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }

    fn since_epoch(&self) -> Duration {
        self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

/// Year, month and day of a number of days after 1970-01-01, by years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
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
                stream_usage: false,
                input_estimate: 0,
                echo: Echo::default(),
            };
            assert_eq!(defaults.created_text(), text);
        }
    }
}
