"""What OpenAI's Chat Completions refuse, and those of DeepSeek and Mistral beside it.

API: https://platform.openai.com/docs/api-reference/chat/create
"""

import re

from openai.types import chat
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from . import NAME, members, need

PARAMETERS = members(CompletionCreateParamsBase) | {"stream"}
MESSAGES = {
    "developer": members(chat.ChatCompletionDeveloperMessageParam),
    "system": members(chat.ChatCompletionSystemMessageParam),
    "user": members(chat.ChatCompletionUserMessageParam),
    "assistant": members(chat.ChatCompletionAssistantMessageParam),
    "tool": members(chat.ChatCompletionToolMessageParam),
}
# The parts that the message of a role is made of.
PARTS = {"user": {"text", "image_url", "input_audio", "file"}, "assistant": {"text", "refusal"}}
# https://learn.microsoft.com/en-us/azure/ai-services/openai/how-to/reasoning, "not supported with reasoning models".
NOT_FOR_THINKERS = ["frequency_penalty", "logit_bias", "logprobs", "presence_penalty", "temperature", "top_logprobs", "top_p"]


def check(body):
    for name in body:
        need(name in PARAMETERS, f"Unknown parameter: '{name}'.")
    need("stream_options" not in body or body.get("stream"),
         "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    check_user(body)
    check_thinker(body)
    check_tools(body, [tool["function"] for tool in body.get("tools", []) if tool["type"] == "function"])
    for at, message in enumerate(body["messages"]):
        check_message(message, f"messages[{at}]")
    check_order(body["messages"])


def check_user(body):
    """https://github.com/maximhq/bifrost/pull/1000, and the description of `safety_identifier` in the API's reference."""
    for name in ("user", "safety_identifier"):
        size = len(body.get(name) or "")
        need(size <= 64, f"Invalid '{name}': string too long. Expected a string with maximum length 64, "
                         f"but got a string with length {size} instead.")


def check_thinker(body):
    if not re.match(r"o\d|gpt-5", body["model"]):
        return
    # https://github.com/anomalyco/opencode/issues/37964
    need("max_tokens" not in body, "Unsupported parameter: 'max_tokens' is not supported with this model. "
                                   "Use 'max_completion_tokens' instead.")
    # The reference of `reasoning_effort`: models before 5.1 know no "none"; from then on it is the default.
    efforts = {"minimal", "low", "medium", "high"} if body["model"] == "gpt-5" else {"none", "low", "medium", "high", "xhigh"}
    effort = body.get("reasoning_effort", "low")
    need(effort in efforts, f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model.")
    for name in NOT_FOR_THINKERS if body["model"] == "gpt-5" else ():
        need(body.get(name) in (None, 1), f"Unsupported parameter: '{name}' is not supported with this model.")


def check_tools(body, functions):
    """The API's reference of `tools`, `tool_choice` and `parallel_tool_calls`; function calling guide, "strict mode"."""
    for name in ("tool_choice", "parallel_tool_calls"):
        need(name not in body or body.get("tools"),
             f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.")
    need(body.get("tools") != [], "Invalid 'tools': empty array. Expected an array with minimum length 1")
    for function in functions:
        name, schema = function["name"], function.get("parameters")
        need(NAME.fullmatch(name), f"Invalid 'tools[0].function.name': {name} does not match pattern.")
        need(schema is None or schema.get("type") == "object",
             f"Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \"object\"'.")
        need(not function.get("strict") or is_closed(schema),
             f"Invalid schema for function '{name}': 'additionalProperties' is required to be supplied and to be false.")
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        chosen = choice.get("function", choice)["name"]
        need(chosen in [function["name"] for function in functions], f"Tool choice '{chosen}' not found in 'tools' parameter.")


def is_closed(schema):
    """Whether all members of all objects are required, and no others may be."""
    if isinstance(schema, list):
        return all(map(is_closed, schema))
    if not isinstance(schema, dict):
        return True
    properties, required = schema.get("properties", {}), schema.get("required", ())
    if schema.get("type") == "object" and (schema.get("additionalProperties") is not False or {*required} != {*properties}):
        return False
    return all(map(is_closed, [*properties.values(), schema.get("items"), schema.get("anyOf")]))


def check_message(message, where, known=MESSAGES):
    role = message["role"]
    need(role in known, f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', "
                        "and 'developer'.")
    for name in message:
        need(name in known[role], f"Unknown parameter: '{where}.{name}'.")
    content = message.get("content")
    need(content is not None or message.get("tool_calls"), "Invalid value for 'content': expected a string, got null.")
    for part in content if isinstance(content, list) else ():
        kinds = PARTS.get(role, {"text"})
        need(part["type"] in kinds, f"Invalid value: '{part['type']}'. Supported values are: {sorted(kinds)}.")
    for call in message.get("tool_calls", ()):
        # https://github.com/langmanus/langmanus/issues/119
        need(len(call["id"]) <= 40,
             f"Invalid '{where}.tool_calls[0].id': string too long. Expected a string with maximum length 40.")
        need(isinstance(call["function"]["arguments"], str), f"Invalid type for '{where}.tool_calls[0].function.arguments'.")


def check_order(messages):
    """https://github.com/miurla/morphic/issues/136 and https://github.com/microsoft/promptflow/pull/3130"""
    open_calls = []
    for message in messages:
        if message["role"] == "tool":
            need(message["tool_call_id"] in open_calls,
                 "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.")
            open_calls.remove(message["tool_call_id"])
        else:
            check_answered(open_calls)
            open_calls = [call["id"] for call in message.get("tool_calls", ())]
    check_answered(open_calls)


def check_answered(open_calls):
    need(not open_calls, "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                         f"'tool_call_id'. The following tool_call_ids did not have response messages: {open_calls}")


def check_deepseek(body):
    """https://api-docs.deepseek.com/guides/thinking_mode"""
    known = {**MESSAGES, "assistant": MESSAGES["assistant"] | {"reasoning_content", "prefix"}}
    for at, message in enumerate(body["messages"]):
        check_message(message, f"messages[{at}]", known)
        # "Tool calls": what the model has thought before it called must be passed back.
        need(not message.get("tool_calls") or "reasoning_content" in message,
             f"Missing `reasoning_content` field in the assistant message at message index {at}.")
    check_order(body["messages"])


# What may follow on a message of a role.
NEXT = {"system": {"user", "assistant", "system"}, "user": {"assistant", "system", "user"},
        "assistant": {"assistant", "user", "tool"}, "tool": {"assistant", "tool"}}


def check_mistral(body):
    """https://github.com/mistralai/mistral-common/blob/main/src/mistral_common/protocol/instruct/validator.py"""
    messages = body["messages"]
    for before, after in zip(messages, messages[1:]):
        need(after["role"] in NEXT.get(before["role"], ()),
             f"Unexpected role '{after['role']}' after role '{before['role']}'")
    last = messages[-1]
    need(last["role"] in ("user", "tool") or last.get("prefix"),
         f"Expected last role User or Tool (or Assistant with prefix True) for serving but got {last['role']}")
    for message in messages:
        # https://github.com/nextcloud/integration_openai/pull/419: a file is one that has been uploaded, a PDF is a `document_url`.
        parts = message["content"] if isinstance(message.get("content"), list) else ()
        need(all(part["type"] != "file" or "file_id" in part for part in parts), "Input should be a valid string")
        calls = message.get("tool_calls") or ()
        for id in [message["tool_call_id"]] if message["role"] == "tool" else [call["id"] for call in calls]:
            need(re.fullmatch("[a-zA-Z0-9]{9}", id), f"Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9.")
    check_counts(messages)


def check_counts(messages):
    calls = sum(len(message.get("tool_calls") or ()) for message in messages)
    results = sum(message["role"] == "tool" for message in messages)
    need(calls == results, "Not the same number of function calls and responses")
