"""What Bedrock's Converse refuses.

API: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from . import NAME, need, signature

PARAMETERS = {"messages", "system", "inferenceConfig", "toolConfig", "guardrailConfig", "additionalModelRequestFields",
              "additionalModelResponseFieldPaths", "promptVariables", "requestMetadata", "performanceConfig", "serviceTier",
              "outputConfig"}
BLOCKS = {"text", "image", "document", "video", "audio", "toolUse", "toolResult", "guardContent", "cachePoint",
          "reasoningContent", "citationsContent", "searchResult"}
RESULTS = {"text", "json", "image", "document", "video", "searchResult"}


def check(body):
    for name in body:
        need(name in PARAMETERS, f"Unknown parameter in input: \"{name}\"")
    config = body.get("inferenceConfig", {})
    need(config.keys() <= {"maxTokens", "temperature", "topP", "stopSequences"},
         f"Unknown parameter in inferenceConfig: {[*config]}")
    check_thinking(body, config)
    tools = [tool["toolSpec"] for tool in body.get("toolConfig", {}).get("tools", ()) if "toolSpec" in tool]
    for tool in tools:
        need(NAME.fullmatch(tool["name"]),
             f"Value '{tool['name']}' at 'toolConfig.tools.1.member.toolSpec.name' failed to satisfy constraint")
        need(tool.get("description", "x"),
             "Invalid length for parameter toolConfig.tools[0].toolSpec.description, value: 0, valid min length: 1")
        need(tool["inputSchema"]["json"].get("type") == "object",
             "The value at toolConfig.tools.0.toolSpec.inputSchema.json.type must be one of the following: object.")
    need("toolConfig" not in body or tools, "Invalid length for parameter toolConfig.tools, value: 0, valid min length: 1")
    for block in body.get("system", ()):
        need(block.get("text", "x").strip(), "The text field in the ContentBlock object at system is blank.")
    check_roles(body["messages"])
    for at, message in enumerate(body["messages"]):
        for place, block in enumerate(message["content"]):
            check_block(block, f"messages.{at}.content.{place}")
    check_results(body)
    check_thoughts(body)


def check_thinking(body, config):
    """https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html"""
    thinking = thinks(body)
    if thinking:
        need(config.get("temperature", 1) == 1, "`temperature` may only be set to 1 when thinking is enabled.")
        need(1024 <= thinking["budget_tokens"] < config.get("maxTokens", 64_000),
             "`max_tokens` must be greater than `thinking.budget_tokens`.")


def thinks(body):
    """What Claude is told of thinking, if it is to think."""
    thinking = body.get("additionalModelRequestFields", {}).get("thinking", {})
    return thinking if thinking.get("type") == "enabled" else None


def check_roles(messages):
    """https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-call.html"""
    need(messages and messages[0]["role"] == "user",
         "A conversation must start with a user message. Try again with a conversation that starts with a user message.")
    for before, after in zip(messages, messages[1:]):
        need(before["role"] != after["role"],
             "A conversation must alternate between user and assistant roles. Make sure the conversation alternates between "
             "user and assistant roles and try again.")


def check_block(block, where):
    need(len(block) == 1 and block.keys() <= BLOCKS,
         f"Invalid number of parameters set for tagged union structure {where}: {[*block]}")
    # https://github.com/NousResearch/hermes-agent/issues/55092: in messages alone, not in results of tools.
    need(block.get("text", "x").strip(),
         f"The text field in the ContentBlock object at {where} is blank. Add text to the text field, and try again.")
    call, result = block.get("toolUse"), block.get("toolResult")
    if call:
        need(NAME.fullmatch(call["toolUseId"]),
             f"Value '{call['toolUseId']}' at '{where}.toolUse.toolUseId' failed to satisfy constraint")
        need(isinstance(call["input"], dict),
             f"The format of the value at {where}.toolUse.input is invalid. Provide a json object for the field and try again.")
    if result:
        need(all(len(part) == 1 and part.keys() <= RESULTS for part in result["content"]),
             f"Invalid content at {where}.toolResult")
        need(all(isinstance(part.get("json", {}), dict) for part in result["content"]),
             f"The format of the value at {where}.toolResult.content.json is invalid.")
        # https://github.com/aws-samples/sample-multi-agent-orchestration-chat-on-agentcore/issues/15
        need(result["content"] or result.get("status") != "error",
             f"The content field at {where}.toolResult cannot be empty when status value is error.")


def check_results(body):
    """https://docs.aws.amazon.com/bedrock/latest/userguide/tool-use-inference-call.html

    Of `toolConfig`: https://github.com/langgenius/dify/issues/17545
    """
    open_calls, used = [], False
    for at, message in enumerate(body["messages"]):
        results = [block["toolResult"]["toolUseId"] for block in message["content"] if "toolResult" in block]
        need(set(open_calls) <= set(results),
             f"Expected toolResult blocks at messages.{at}.content for the following Ids: {open_calls}")
        need(len(results) <= len(open_calls),
             f"The number of toolResult blocks at messages.{at}.content exceeds the number of toolUse blocks of previous turn.")
        open_calls = [block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block]
        used = used or open_calls or results
    need(not open_calls,
         f"Expected toolResult blocks at messages.{len(body['messages'])}.content for the following Ids: {open_calls}")
    need(not used or "toolConfig" in body,
         "The toolConfig field must be defined when using toolUse and toolResult content blocks.")


def check_thoughts(body):
    """As at Anthropic: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html"""
    messages = body["messages"]
    for at, message in enumerate(messages):
        said = [block["reasoningContent"] for block in message["content"] if "reasoningContent" in block]
        said = [thought["reasoningText"] for thought in said if "reasoningText" in thought]
        need(all(thought.get("signature") == signature("claude", thought["text"]) for thought in said),
             f"The model returned the following errors: messages.{at}.content: Invalid `signature` in `thinking` block")
    goes_on = len(messages) > 1 and any("toolResult" in block for block in messages[-1]["content"])
    need(not goes_on or not thinks(body) or "reasoningContent" in messages[-2]["content"][0],
         f"The model returned the following errors: messages.{len(messages) - 2}.content.0.type: Expected `thinking` or "
         "`redacted_thinking`.")
