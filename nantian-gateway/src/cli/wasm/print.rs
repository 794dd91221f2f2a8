//! What is written, one thing a line: `-` was there before the plugin, `+` is there since, the rest is as it
//! was.

use std::io::Write;

use bytes::Bytes;
use http::HeaderMap;
use nantian_wasm::observe::BudgetUsage;

/// Most lines of a body that are shown.
const MAX_LINES: usize = 40;

pub(super) fn log(lines: &[String], out: &mut impl Write) -> anyhow::Result<()> {
    for line in lines {
        writeln!(out, "log        {line}")?;
    }
    Ok(())
}

pub(super) fn list(title: &str, items: &[String], out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "{title:<10} {}", items.len())?;
    for item in items {
        writeln!(out, "           {item}")?;
    }
    Ok(())
}

pub(super) fn budgets(title: &str, budgets: &[BudgetUsage], out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "{title}")?;
    for BudgetUsage { what, used, limit, .. } in budgets {
        writeln!(out, "           {what:<30} {used} of {limit}")?;
    }
    Ok(())
}

/// The first line of a message.
pub(super) fn first_line(title: &str, before: &str, after: &str, out: &mut impl Write) -> anyhow::Result<()> {
    if before == after {
        writeln!(out, "{title:<10} {after}")?;
        return Ok(());
    }
    writeln!(out, "{title}")?;
    if !before.is_empty() {
        writeln!(out, "         - {before}")?;
    }
    writeln!(out, "         + {after}")?;
    Ok(())
}

/// All headers that are there, and behind them those that are gone. The order of names means nothing.
pub(super) fn headers(before: &HeaderMap, after: &HeaderMap, out: &mut impl Write) -> anyhow::Result<()> {
    let mut gone = fields(before);
    for field in fields(after) {
        let known = gone.iter().position(|old| *old == field).map(|place| gone.remove(place));
        writeln!(out, "         {} {field}", if known.is_some() { ' ' } else { '+' })?;
    }
    for field in gone {
        writeln!(out, "         - {field}")?;
    }
    Ok(())
}

fn fields(headers: &HeaderMap) -> Vec<String> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        format!("{name}: {}", value.as_bytes().escape_ascii())
    };
    headers.iter().map(field).collect()
}

/// How long the body was and is, and what it is now if that is text.
pub(super) fn body(
    before: &Bytes,
    after: &Result<Bytes, String>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let after = match after {
        Ok(after) => after,
        Err(error) => {
            writeln!(out, "           body broke off: {error}")?;
            return Ok(());
        }
    };
    let bytes = match after.len() {
        1 => "1 byte".to_owned(),
        length => format!("{length} bytes"),
    };
    if before == after {
        writeln!(out, "           body: {bytes}, unchanged")?;
        return Ok(());
    }
    writeln!(out, "         + body: {bytes}, before {}", before.len())?;
    let Ok(text) = std::str::from_utf8(after) else { return Ok(()) };
    for line in text.lines().take(MAX_LINES) {
        let line: String = line.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        writeln!(out, "         + | {line}")?;
    }
    if text.lines().nth(MAX_LINES).is_some() {
        writeln!(out, "           (cut off)")?;
    }
    Ok(())
}
