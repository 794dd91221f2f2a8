"""What Ollama refuses. It ignores members that it does not know.

API: https://docs.ollama.com/api/chat; the forms: https://github.com/ollama/ollama/blob/main/api/types.go
"""

from . import need

ROLES = ("system", "user", "assistant", "tool")
THINK = (None, True, False, "high", "medium", "low", "max")


def check(body):
    # `ThinkValue`
    need(body.get("think") in THINK,
         f"invalid think value: {body.get('think')!r} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)")
    for tool in body.get("tools") or ():
        # `ToolFunctionParameters` and `ToolProperty`: https://github.com/ollama/ollama/issues/14256
        parameters = tool["function"].get("parameters", {})
        for schema in [parameters, *parameters.get("properties", {}).values()]:
            need(isinstance(schema, dict),
                 "json: cannot unmarshal bool into Go struct field ToolFunctionParameters of type api.ToolProperty")
    for message in body["messages"]:
        # `Message` is made of text, `ToolCallFunctionArguments` are an object: https://github.com/ollama/ollama/issues/12794
        need(message["role"] in ROLES, f"invalid role: {message['role']}, must be one of {list(ROLES)}")
        need(isinstance(message.get("content", ""), str),
             "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string")
        for call in message.get("tool_calls") or ():
            need(isinstance(call["function"]["arguments"], dict),
                 "json: cannot unmarshal string into Go struct field ToolCallFunction.messages.tool_calls.function.arguments")
