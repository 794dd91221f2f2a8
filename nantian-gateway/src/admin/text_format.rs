//! Prometheus' text format before OpenMetrics.

use std::fmt::Write as _;

/// Says in the older format what `openmetrics` says: there a counter's metadata bear the name of its sample.
pub(super) fn plain(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        let kind = if line.starts_with("# HELP ") { lines.peek().copied() } else { Some(line) };
        let is_of_counter =
            kind.is_some_and(|kind| kind.starts_with("# TYPE ") && kind.ends_with(" counter"));
        let written = match line.splitn(4, ' ').collect::<Vec<_>>().as_slice() {
            ["#", "EOF", ..] | ["#", "UNIT", ..] => Ok(()),
            ["#", what, name, rest] if is_of_counter => writeln!(text, "# {what} {name}_total {rest}"),
            _ => writeln!(text, "{line}"),
        };
        // Writing to a String cannot fail.
        let _ = written;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_of_under_the_names_of_their_samples() {
        let openmetrics = "# HELP a_requests Requests, a counter\n# TYPE a_requests counter\na_requests_total{b=\"c\"} 1\n\
                           # HELP open Open\n# TYPE open gauge\n# UNIT open bytes\nopen 2\n# EOF\n";
        let text = "# HELP a_requests_total Requests, a counter\n# TYPE a_requests_total counter\n\
                    a_requests_total{b=\"c\"} 1\n# HELP open Open\n# TYPE open gauge\nopen 2\n";
        assert_eq!(plain(openmetrics), text);
    }
}
