"""What Anthropic's Messages refuse.

API: https://platform.claude.com/docs/en/api/messages/create
"""

import re

from anthropic.types import ContentBlockParam, MetadataParam, OutputConfigParam, ToolParam
from anthropic.types.message_create_params import MessageCreateParamsBase

from . import forms_by_type, members, need, signature

# The package asks for a version of the API in which how tokens are drawn is gone; the version here has it.
PARAMETERS = members(MessageCreateParamsBase) | {"stream", "temperature", "top_k", "top_p"}
BLOCKS = forms_by_type(ContentBlockParam)
MEMBERS = {"metadata": members(MetadataParam), "output_config": members(OutputConfigParam)}
TOOL = members(ToolParam)
THOUGHTS = ("thinking", "redacted_thinking")


def check(body):
    for name in body:
        need(name in PARAMETERS, f"{name}: Extra inputs are not permitted")
    for name, known in MEMBERS.items():
        for member in body.get(name) or ():
            need(member in known, f"{name}.{member}: Extra inputs are not permitted")
    # https://platform.claude.com/docs/en/about-claude/models/overview
    need(isinstance(body.get("max_tokens"), int), "max_tokens: Field required")
    most = 64_000 if version(body) < (4, 6) else 128_000
    need(1 <= body["max_tokens"] <= most,
         f"max_tokens: {body['max_tokens']} > {most}, which is the maximum allowed number of output tokens for {body['model']}")
    check_thinking(body)
    check_tools(body)
    need(body["messages"], "messages: at least one message is required")
    for at, message in enumerate(body["messages"]):
        check_message(message, f"messages.{at}", at == len(body["messages"]) - 1)
    check_results(body["messages"])
    check_thoughts(body)


def version(body):
    """Of the model, such as (4, 5)."""
    return tuple(map(int, re.search(r"-(\d)-(\d)\b", body["model"]).groups()))


def check_thinking(body):
    """https://platform.claude.com/docs/en/build-with-claude/extended-thinking, "feature compatibility"."""
    thinking = body.get("thinking") or {}
    # https://platform.claude.com/docs/en/api/errors, "common validation errors"
    if thinking.get("type") == "enabled":
        need(version(body) < (4, 7), '"thinking.type.enabled" is not supported for this model.')
        need(thinking["budget_tokens"] >= 1024, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        need(thinking["budget_tokens"] < body["max_tokens"], "`max_tokens` must be greater than `thinking.budget_tokens`.")
    if thinking.get("type") == "adaptive":
        need(version(body) > (4, 5), "adaptive thinking is not supported on this model")
    if thinks(body):
        need(body.get("temperature", 1) == 1, "`temperature` may only be set to 1 when thinking is enabled.")
        need(body.get("top_p", 1) >= 0.95, "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.")
        need("top_k" not in body, "`top_k` must be unset when thinking is enabled.")
        need(body.get("tool_choice", {}).get("type") not in ("any", "tool"),
             "Thinking may not be enabled when tool_choice forces tool use.")
    # https://platform.claude.com/docs/en/build-with-claude/effort, "supported models".
    need("effort" not in (body.get("output_config") or {}) or not re.search("(sonnet|haiku)-4-5", body["model"]),
         "This model does not support the effort parameter.")


def thinks(body):
    return (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")


def check_tools(body):
    tools = body.get("tools") or []
    for at, tool in enumerate(tools):
        for name in tool:
            need(name in TOOL, f"tools.{at}.custom.{name}: Extra inputs are not permitted")
        need(re.fullmatch("[a-zA-Z0-9_-]{1,128}", tool["name"]), f"tools.{at}.custom.name: String should match pattern")
        need(tool["input_schema"].get("type") == "object", f"tools.{at}.custom.input_schema.type: Field required")
    need(len({tool["name"] for tool in tools}) == len(tools), "tools: Tool names must be unique.")
    need(tools or "tool_choice" not in body, "tool_choice: may only be specified while providing tools")
    # https://portkey.ai/error-library/tool-definition-error-10488
    used = {block["type"] for message in body["messages"] for block in blocks(message)} & {"tool_use", "tool_result"}
    need(tools or not used, "Requests which include `tool_use` or `tool_result` blocks must define tools")


def blocks(message):
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def check_message(message, where, is_last):
    need(message["role"] in ("user", "assistant"), f'messages: Unexpected role "{message["role"]}".')
    need(message.keys() == {"role", "content"}, f"{where}: Extra inputs are not permitted")
    need(message["content"] or is_last and message["role"] == "assistant",
         f"{where}: all messages must have non-empty content except for the optional final assistant message")
    for at, block in enumerate(blocks(message)):
        need(block["type"] in BLOCKS,
             f"{where}.content.{at}: Input tag '{block['type']}' found using 'type' does not match any of the expected tags")
        for name in block:
            need(name in BLOCKS[block["type"]], f"{where}.content.{at}.{block['type']}.{name}: Extra inputs are not permitted")
        # https://portkey.ai/error-library/input-validation-error-10496
        need(block["type"] != "text" or block["text"].strip(), "messages: text content blocks must be non-empty")
        # https://github.com/maximhq/bifrost/issues/5097
        if block["type"] == "tool_use":
            need(re.fullmatch("[a-zA-Z0-9_-]+", block["id"]),
                 f"{where}.content.{at}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
            need(isinstance(block["input"], dict), f"{where}.content.{at}.tool_use.input: Input should be a valid dictionary")


def check_results(messages):
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls, "important formatting requirements"."""
    open_calls, ids = [], set()
    for at, message in enumerate(messages):
        kinds = [block["type"] for block in blocks(message)]
        results = [block["tool_use_id"] for block in blocks(message) if block["type"] == "tool_result"]
        need(set(open_calls) <= set(results),
             f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {open_calls}")
        need(set(results) <= set(open_calls),
             f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {results}")
        need(len(results) == len(open_calls), f"messages.{at}: each tool_use must have a single result")
        need(kinds[:len(results)] == ["tool_result"] * len(results),
             f"messages.{at}: Did not find {len(results)} `tool_result` block(s) at the beginning of this message.")
        open_calls = [block["id"] for block in blocks(message) if block["type"] == "tool_use"]
        # https://github.com/trycua/cua/issues/524
        need(not ids & set(open_calls) and len(set(open_calls)) == len(open_calls), "messages: `tool_use` ids must be unique")
        ids |= set(open_calls)
    need(not open_calls,
         f"messages.{len(messages)}: `tool_use` ids were found without `tool_result` blocks immediately after: {open_calls}")


def check_thoughts(body):
    """https://platform.claude.com/docs/en/build-with-claude/extended-thinking, "preserving thinking blocks"."""
    messages = body["messages"]
    for at, message in enumerate(messages):
        for block in blocks(message):
            # https://github.com/anthropics/claude-code/issues/63284
            need(block["type"] != "thinking" or block["signature"] == signature("claude", block["thinking"]),
                 f"messages.{at}.content: Invalid `signature` in `thinking` block")
    # https://github.com/pydantic/pydantic-ai/issues/2075
    goes_on = len(messages) > 1 and any(block["type"] == "tool_result" for block in blocks(messages[-1]))
    if goes_on and (body.get("thinking") or {}).get("type") == "enabled":
        kind = blocks(messages[-2])[0]["type"]
        need(kind in THOUGHTS,
             f"messages.{len(messages) - 2}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. "
             "When `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the "
             "lastmost set of `tool_use` and `tool_result` blocks).")
