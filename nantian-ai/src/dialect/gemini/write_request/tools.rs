//! The tools that a model may call.

use super::schema::without_neighbours;
use crate::codec::Object;
use crate::ir::{Losses, Request, ToolChoice};

/// What may stand beside a reference in the schema of a tool.
const BESIDE: [&str; 2] = ["default", "description"];

pub(super) fn write(body: &mut Object<'_>, request: &Request, losses: &mut Losses) {
    if request.tools.is_empty() {
        return;
    }
    body.list("tools", |list| {
        list.object(|tool| {
            tool.list("functionDeclarations", |list| {
                for tool in &request.tools {
                    let narrowed = without_neighbours(&tool.schema, &BESIDE);
                    if narrowed.is_some() {
                        losses.add("tools.parameters");
                    }
                    list.object(|function| {
                        function.text("name", &tool.name);
                        function.some_text("description", tool.description.as_deref());
                        if tool.schema.as_str() != "{}" {
                            function.json("parametersJsonSchema", narrowed.as_ref().unwrap_or(&tool.schema));
                        }
                    });
                }
            });
        });
    });
    let Some(choice) = &request.tool_choice else { return };
    body.object("toolConfig", |config| {
        config.object("functionCallingConfig", |config| match choice {
            ToolChoice::Auto => config.text("mode", "AUTO"),
            ToolChoice::Never => config.text("mode", "NONE"),
            ToolChoice::Any => config.text("mode", "ANY"),
            ToolChoice::Tool(name) => {
                config.text("mode", "ANY");
                config.list("allowedFunctionNames", |list| list.text(name));
            }
        });
    });
}
