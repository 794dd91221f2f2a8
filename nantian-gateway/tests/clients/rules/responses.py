"""What OpenAI's Responses refuse.

API: https://platform.openai.com/docs/api-reference/responses/create
"""

from openai.types.responses import ResponseInputItemParam
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from . import forms_by_type, is_sealed, members, need, openai

PARAMETERS = members(ResponseCreateParamsBase) | {"stream"}
ITEMS = forms_by_type(ResponseInputItemParam)
# What an item's id begins with: https://github.com/jlcodes99/cockpit-tools/issues/2090,
# https://github.com/UKGovernmentBEIS/inspect_ai/pull/1545
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
PARTS = {"assistant": {"output_text", "refusal"}}


def check(body):
    for name in body:
        need(name in PARAMETERS, f"Unknown parameter: '{name}'.")
    openai.check_user(body)
    openai.check_tools(body, [tool for tool in body.get("tools", []) if tool["type"] == "function"])
    # The reference of `max_output_tokens`.
    need(body.get("max_output_tokens", 16) >= 16,
         "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16.")
    items = body["input"] if isinstance(body["input"], list) else []
    for at, item in enumerate(items):
        check_item(item, f"input[{at}]")
    check_calls(items)
    check_reasoning(body, items)


def check_item(item, where):
    kind = item.get("type", "message")
    need(kind in ITEMS, f"Invalid value: '{kind}'.")
    for name in item:
        need(name in ITEMS[kind], f"Unknown parameter: '{where}.{name}'.")
    prefix = PREFIXES.get(kind, "")
    need((item.get("id") or prefix).startswith(prefix),
         f"Invalid '{where}.id': '{item.get('id')}'. Expected an ID that begins with '{prefix}'.")
    if kind == "message":
        kinds = PARTS.get(item["role"], {"input_text", "input_image", "input_file"})
        for part in item["content"] if isinstance(item["content"], list) else ():
            need(part["type"] in kinds, f"Invalid value: '{part['type']}'. Supported values are: {sorted(kinds)}.")
    if kind == "function_call":
        need(isinstance(item["arguments"], str), f"Invalid type for '{where}.arguments'.")
        # https://github.com/AnswerDotAI/fastllm/issues/45
        need(len(item["call_id"]) <= 64,
             f"Invalid '{where}.call_id': string too long. Expected a string with maximum length 64.")


def check_calls(items):
    """Function calling guide: each call has one output, which comes after it."""
    open_calls = []
    for item in items:
        if item.get("type") == "function_call":
            open_calls.append(item["call_id"])
        if item.get("type") == "function_call_output":
            id = item["call_id"]
            need(id in open_calls, f"No tool call found for function call output with call_id {id}.")
            open_calls.remove(id)
    need(not open_calls, f"No tool output found for function call {open_calls}.")


def check_reasoning(body, items):
    """https://platform.openai.com/docs/guides/reasoning, "keeping reasoning items in context"."""
    for at, item in enumerate(items):
        before, after = items[at - 1] if at else {}, items[at + 1] if at + 1 < len(items) else {}
        if item.get("type") == "reasoning":
            id, sealed = item.get("id"), item.get("encrypted_content")
            # https://github.com/vercel/ai/issues/7099
            need(after.get("type") in ("function_call", "reasoning") or after.get("role") == "assistant",
                 f"Item '{id}' of type 'reasoning' was provided without its required following item.")
            need(sealed or body.get("store", True),
                 f"Item with id '{id}' not found. Items are not persisted when `store` is set to false.")
            # https://github.com/openai/codex/issues/8119
            need(not sealed or is_sealed(sealed), f"The encrypted content {sealed} could not be verified.")
        # https://github.com/TanStack/ai/issues/1212: an id tells the item that the call was made with.
        if item.get("type") == "function_call" and (item.get("id") or "").startswith("fc_rs_"):
            need(before.get("type") in ("reasoning", "function_call") or before.get("role") == "assistant",
                 f"Item '{item['id']}' of type 'function_call' was provided without its required 'reasoning' item.")
