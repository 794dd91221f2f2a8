//! What is logged.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// A level, or a list of directives such as `info,hyper=debug`, as tracing-subscriber's [`EnvFilter`] reads
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogFilter(String);

/// A text that is no filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidLogFilter {
    /// `EnvFilter` would take it for the name of a target and log nothing else.
    #[error(
        "{0:?} is no level: expected off, error, warn, info, debug or trace, or a filter such as info,hyper=debug"
    )]
    NotALevel(String),
    /// A directive is malformed.
    #[error(transparent)]
    Directive(#[from] tracing_subscriber::filter::ParseError),
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The Kubernetes client tells every attempt that fails, which is told once elsewhere. What is signed for AWS
/// is told whole at the lowest level, prompts included. What notify tells of watches of files that are gone
/// is news to it alone. What h2 warns of is what clients do, without bound.
const SILENT: &str = "kube_client=off,kube_runtime=off,aws_sigv4=off,notify=off,h2=off";

impl LogFilter {
    /// The filter.
    ///
    /// # Errors
    /// None in practice: the text was read before.
    pub(super) fn to_filter(&self) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
        // A later directive for the same target wins.
        EnvFilter::try_new(format!("{SILENT},{}", self.0))
    }
}

impl FromStr for LogFilter {
    type Err = InvalidLogFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        let bare = text.split(',').map(str::trim).find(|word| !word.contains(['=', '[']) && !is_level(word));
        if let Some(bare) = bare {
            return Err(InvalidLogFilter::NotALevel(bare.to_owned()));
        }
        EnvFilter::try_new(text)?;
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_logged_below_a_level() {
        use tracing_subscriber::filter::LevelFilter;
        for (text, most) in
            [("off", LevelFilter::OFF), ("error", LevelFilter::ERROR), ("info", LevelFilter::INFO)]
        {
            let filter = text.parse::<LogFilter>().unwrap().to_filter().unwrap();
            assert_eq!(filter.max_level_hint(), Some(most), "{text}");
        }
    }

    #[test]
    fn a_filter_is_a_level_or_a_list_of_directives() {
        for text in ["info", "WARN", "info,hyper=debug", "nantian_gateway::control=trace,off"] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        for text in ["nope", "", "info,nope", "hyper=loud"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text}");
        }
    }
}
