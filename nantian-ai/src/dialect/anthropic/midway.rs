//! What the system changes in the midst of a conversation, so that its beginning stays as it was: which tools
//! are on offer, and with how much effort is answered.

use std::collections::HashMap;

use super::read_content::take_cache_control;
use super::read_request::read_tools;
use crate::codec::{Fields, Invalid, Value};
use crate::ir::{Block, Losses, Message, Role, Tool};

/// What has changed so far.
#[derive(Debug, Default)]
pub(super) struct Changes {
    defined: Vec<Tool>,
    /// By their names, whether tools are on offer since they have last changed.
    offered: HashMap<String, bool>,
    effort: Option<String>,
    /// The effort from the user's next turn on.
    next_effort: Option<String>,
    /// Whether it is the user who has spoken last, and not with results of tools alone.
    is_asked: bool,
}

// === impl Changes ===

impl Changes {
    /// Reads what a message of the system changes. Gives what else it says.
    pub(super) fn read(
        &mut self,
        message: &mut Fields,
        losses: &mut Losses,
    ) -> Result<Option<Value>, Invalid> {
        if let Some(mut config) = message.object("output_config", "messages.output_config")? {
            if let Some(effort) = config.text("effort")? {
                *(if self.is_asked { &mut self.effort } else { &mut self.next_effort }) = Some(effort);
            }
            config.rest(losses);
        }
        let said = match message.take("content") {
            Some(Value::Array(blocks)) => blocks,
            said => return Ok(said),
        };
        let mut rest = Vec::with_capacity(said.len());
        for block in said {
            match block.get("type").and_then(Value::as_str) {
                Some("tool_addition") => self.change(block, true, losses)?,
                Some("tool_removal") => self.change(block, false, losses)?,
                _ => rest.push(block),
            }
        }
        Ok(Some(Value::Array(rest)))
    }

    fn change(&mut self, block: Value, is_offered: bool, losses: &mut Losses) -> Result<(), Invalid> {
        const AT: &str = "messages.content.tool";
        let mut block = Fields::of(block, "messages.content")?;
        if take_cache_control(&mut block, losses).is_some() {
            losses.add("cache_control");
        }
        let mut tool = block.object("tool", AT)?.ok_or_else(|| Invalid::new(AT, "is missing"))?;
        block.ignore(&["type"]);
        block.rest(losses);
        match tool.required_text("type")?.as_str() {
            "tool_reference" => {
                self.offered.insert(tool.required_text("name")?, is_offered);
            }
            "tool_definition" if is_offered => {
                for defined in read_tools(tool.take("definition").into_iter().collect(), losses)? {
                    self.offered.insert(defined.name.clone(), true);
                    self.defined.push(defined);
                }
            }
            // Tools of servers that the provider asks itself.
            kind => {
                losses.add_below(AT, kind);
                return Ok(());
            }
        }
        tool.rest(losses);
        Ok(())
    }

    /// Notes who has spoken.
    pub(super) fn heard(&mut self, message: &Message) {
        if message.role == Role::System {
            return;
        }
        let is_new = |block: &Block| !matches!(block, Block::ToolResult(_));
        self.is_asked = message.role == Role::User && message.content.iter().any(is_new);
        if self.is_asked {
            self.effort = self.next_effort.take().or(self.effort.take());
        }
    }

    /// The effort of the answer, where it has changed.
    pub(super) fn effort(&self) -> Option<&str> {
        self.effort.as_deref()
    }

    /// The tools on offer in the end, of those told at the beginning and those added. Of several of one name
    /// the last counts.
    pub(super) fn tools(self, mut tools: Vec<Tool>) -> Vec<Tool> {
        if self.offered.is_empty() {
            return tools;
        }
        tools.extend(self.defined);
        let last: HashMap<_, _> =
            tools.iter().enumerate().map(|(at, tool)| (tool.name.clone(), at)).collect();
        let is_offered = |tool: &Tool| self.offered.get(&tool.name).is_none_or(|offered| *offered);
        let mut at = 0..;
        tools.retain(|tool| at.next() == last.get(&tool.name).copied() && is_offered(tool));
        tools
    }
}
