//! A choice of tools that says which of them may be called.

use std::collections::HashSet;

use crate::codec::{Fields, Invalid};
use crate::ir::{Losses, Tool, ToolChoice};

const AT: &str = "tool_choice.tools";

/// Leaves the tools that may be called, for elsewhere there is no way to forbid the others but to tell nobody
/// of them. `name` is what a tool is called, if it is one that the client runs.
pub(in crate::dialect) fn read_allowed(
    mut allowed: Fields,
    tools: &mut Vec<Tool>,
    losses: &mut Losses,
    name: impl Fn(&mut Fields, &mut Losses) -> Result<Option<String>, Invalid>,
) -> Result<Option<ToolChoice>, Invalid> {
    let mut names = HashSet::new();
    for tool in allowed.list("tools")?.unwrap_or_default() {
        let mut tool = Fields::of(tool, AT)?;
        match name(&mut tool, losses)? {
            Some(name) => drop(names.insert(name)),
            None => losses.add(AT),
        }
        tool.ignore(&["type"]);
        tool.rest(losses);
    }
    let choice = match allowed.text("mode")?.as_deref() {
        None | Some("auto") => Some(ToolChoice::Auto),
        Some("required") => Some(ToolChoice::Any),
        Some(_) => {
            losses.add("tool_choice.mode");
            None
        }
    };
    allowed.rest(losses);
    tools.retain(|tool| names.contains(&tool.name));
    if tools.is_empty() && choice == Some(ToolChoice::Any) {
        return Err(Invalid::new("tool_choice", "allows no tool that the client runs"));
    }
    Ok(choice)
}
