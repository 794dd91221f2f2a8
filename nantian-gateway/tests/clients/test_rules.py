"""What a real provider refuses, the fake one refuses, in its words; and takes what it takes."""

import copy
import json
import unittest
import urllib.error
import urllib.request

import providers
from providers.facts import KEY, MODELS
from rules import Refusal, anthropic, bedrock, gemini, ollama, openai, responses, seal, signature

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def changed(body, *changes):
    """A copy of a body with values at paths; None takes one away."""
    body = copy.deepcopy(body)
    for path, value in changes:
        *way, last = path.split(".")
        place = body
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if value is None:
            del place[int(last) if isinstance(place, list) else last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return body


class Rules(unittest.TestCase):
    """A conversation of one step that is taken, and changes of it that are not, with what is said of them."""

    def judge(self, check, body, faults):
        check(copy.deepcopy(body))
        for words, *changes in faults:
            with self.subTest(words):
                with self.assertRaises(Refusal) as refused:
                    check(changed(body, *changes))
                self.assertIn(words, str(refused.exception))

    def test_openai_chat(self):
        call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        body = {"model": "gpt-5", "max_completion_tokens": 10, "user": "u", "reasoning_effort": "low", "messages": [
            {"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "r"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}
        self.judge(openai.check, body, [
            ("Invalid type for 'messages[2].tool_calls[0]", ("messages.2.tool_calls.0.function.arguments", {})),
            ("Unknown parameter: 'thinking'", ("thinking", {})),
            ("Unknown parameter: 'messages[2].reasoning_content'", ("messages.2.reasoning_content", "t")),
            ("'stream_options' parameter is only allowed", ("stream_options", {})),
            ("Invalid 'user': string too long", ("user", "u" * 65)),
            ("'max_tokens' is not supported with this model", ("max_tokens", 10)),
            ("'temperature' is not supported with this model", ("temperature", 0.5)),
            ("'reasoning_effort' does not support 'none'", ("reasoning_effort", "none")),
            ("'tool_choice' is only allowed when", ("tools", None), ("tool_choice", "auto")),
            ("Tool choice 'g' not found", ("tool_choice", {"type": "function", "function": {"name": "g"}})),
            ("schema must be a JSON Schema", ("tools.0.function.parameters", {})),
            ("'additionalProperties' is required", ("tools.0.function.strict", True)),
            ("does not match pattern", ("tools.0.function.name", "a b")),
            ("maximum length 40", ("messages.2.tool_calls.0.id", "x" * 41)),
            ("messages with role 'tool' must be a response", ("messages.3.tool_call_id", "call_2")),
            ("must be followed by tool messages", ("messages.3", None)),
            ("expected a string, got null", ("messages.1.content", None), ("messages.1.name", "n")),
            ("Invalid value: 'image_url'", ("messages.0.content", [{"type": "image_url"}])),
        ])

    def test_deepseek(self):
        call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        body = {"messages": [{"role": "user", "content": "q"},
                             {"role": "assistant", "content": None, "reasoning_content": "t", "tool_calls": [call]},
                             {"role": "tool", "tool_call_id": "call_1", "content": "r"}]}
        self.judge(openai.check_deepseek, body, [("Missing `reasoning_content`", ("messages.1.reasoning_content", None))])

    def test_mistral(self):
        call = {"id": "callsOslo", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        body = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]},
                             {"role": "tool", "tool_call_id": "callsOslo", "content": "r"}]}
        self.judge(openai.check_mistral, body, [
            ("with a length of 9", ("messages.2.tool_call_id", "call_1")),
            ("should be a valid string", ("messages.0.content", [{"type": "file", "file": {"file_data": "data:"}}])),
            ("Unexpected role 'user' after role 'tool'", ("messages", [*body["messages"], {"role": "user", "content": "q"}])),
            ("Expected last role User or Tool", ("messages", [body["messages"][0], {"role": "system", "content": "s"}])),
            ("Not the same number", ("messages", [*body["messages"], body["messages"][2]])),
        ])

    def test_responses(self):
        body = {"model": "gpt-5.2", "store": False, "max_output_tokens": 16, "input": [
            {"role": "user", "content": "q"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": seal("t")},
            {"type": "function_call", "id": "fc_rs_1", "call_id": "call_1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "r"}],
            "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}]}
        self.judge(responses.check, body, [
            ("Unknown parameter: 'messages'", ("messages", [])),
            ("Unknown parameter: 'input[2].thought'", ("input.2.thought", "t")),
            ("Invalid value: 'tool_result'", ("input.3.type", "tool_result")),
            ("Invalid 'user': string too long", ("user", "u" * 65)),
            ("integer below minimum value", ("max_output_tokens", 15)),
            ("Expected an ID that begins with 'fc'", ("input.2.id", "call_1")),
            ("maximum length 64", ("input.2.call_id", "x" * 65)),
            ("Invalid value: 'text'", ("input.0.content", [{"type": "text", "text": "q"}])),
            ("No tool call found for function call output", ("input.3.call_id", "call_2")),
            ("No tool output found for function call", ("input.3", None)),
            ("without its required following item", ("input.2", None), ("input.2", None)),
            ("without its required 'reasoning' item", ("input.1", None)),
            ("Items are not persisted", ("input.1.encrypted_content", None)),
            ("could not be verified", ("input.1.encrypted_content", "other")),
        ])

    def test_anthropic(self):
        thought = {"type": "thinking", "thinking": "t", "signature": signature("claude", "t")}
        thinking = {"type": "enabled", "budget_tokens": 1024}
        body = {"model": "claude-sonnet-4-5", "max_tokens": 2000, "thinking": thinking, "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": [thought, {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "r"}]}],
            "tools": [{"name": "f", "input_schema": SCHEMA}]}
        results = body["messages"][2]["content"]
        self.judge(anthropic.check, body, [
            ("at least one message is required", ("messages", [])),
            ("messages.0: Extra inputs", ("messages.0.name", "n")),
            ("user: Extra inputs are not permitted", ("user", "u")),
            ("messages.1.content.1.tool_use.index: Extra inputs", ("messages.1.content.1.index", 0)),
            ("max_tokens: Field required", ("max_tokens", None)),
            ("maximum allowed number of output tokens", ("max_tokens", 64_001)),
            ("must be greater than `thinking.budget_tokens`", ("max_tokens", 1024)),
            ("greater than or equal to 1024", ("thinking.budget_tokens", 1000)),
            ("adaptive thinking is not supported", ("thinking", {"type": "adaptive"})),
            ('"thinking.type.enabled" is not supported', ("model", "claude-opus-4-8")),
            ("does not support the effort parameter", ("output_config", {"effort": "low"})),
            ("`temperature` may only be set to 1", ("temperature", 0.5)),
            ("`top_k` must be unset", ("top_k", 5)),
            ("`top_p` must be greater", ("top_p", 0.5)),
            ("tool_choice forces tool use", ("tool_choice", {"type": "any"})),
            ("must define tools", ("tools", None)),
            ("input_schema.type: Field required", ("tools.0.input_schema", {})),
            ("Tool names must be unique", ("tools", body["tools"] * 2)),
            ('Unexpected role "system"', ("messages.0.role", "system")),
            ("text content blocks must be non-empty", ("messages.0.content", " ")),
            ("Input tag 'input_text'", ("messages.0.content", [{"type": "input_text", "text": "q"}])),
            ("without `tool_result` blocks immediately after", ("messages.2", None)),
            ("without `tool_result` blocks immediately after", ("messages.2.content.0.tool_use_id", "toolu_2")),
            ("unexpected `tool_use_id`", ("messages.0.content", results)),
            ("at the beginning of this message", ("messages.2.content", [{"type": "text", "text": "a"}, *results])),
            ("should match pattern", ("messages.1.content.1.id", "a.b"), ("messages.2.content.0.tool_use_id", "a.b")),
            ("valid dictionary", ("messages.1.content.1.input", "{}")),
            ("Invalid `signature` in `thinking` block", ("messages.1.content.0.thinking", "other")),
            ("must start with a thinking block", ("messages.1.content.0", None)),
        ])

    def test_gemini(self):
        call = {"name": "f", "args": {}}
        body = {"contents": [
            {"role": "user", "parts": [{"text": "q"}]},
            {"role": "model", "parts": [{"functionCall": call, "thoughtSignature": gemini.sign(call)}, {"functionCall": call}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "r"}}}] * 2}],
            "tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}]}

        def check(body):
            gemini.check(body, "gemini-3-pro-preview")

        results, function = body["contents"][2]["parts"], "tools.0.functionDeclarations.0"
        self.judge(check, body, [
            ("Unknown name \"model\"", ("model", "m")),
            ("Unknown name \"maxTokens\"", ("generationConfig.maxTokens", 1)),
            ("only one of thinking budget and thinking level",
             ("generationConfig.thinkingConfig", {"thinkingBudget": 1, "thinkingLevel": "low"})),
            ("Unknown name \"additionalProperties\"", (f"{function}.parameters.additionalProperties", False)),
            ("Unknown name \"const\"", (f"{function}.parameters.properties.city.const", "x")),
            ("cannot start list", (f"{function}.parameters.properties.city.type", ["string", "null"])),
            ("mutually exclusive", (f"{function}.parametersJsonSchema", SCHEMA)),
            ("contents is not specified", ("contents", [])),
            ("Invalid function name", (f"{function}.name", "1f")),
            ("use a valid role", ("contents.0.role", "assistant")),
            ("must not be empty", ("contents.0.parts", [])),
            ("must have one initialized field", ("contents.0.parts", [{"thought": True}])),
            ("number of function response parts", ("contents.2.parts", results[:1])),
            ("number of function response parts", ("contents.2", None)),
            ("comes immediately after a user turn", ("contents.0", None)),
            ("missing a thought_signature", ("contents.1.parts.0.thoughtSignature", None)),
            ("Corrupted thought signature", ("contents.1.parts.0.thoughtSignature", gemini.sign({"name": "g"}))),
            ("protobuf.Struct", ("contents.2.parts.0.functionResponse.response", "r")),
        ])
        check(changed(body, ("contents.1.parts.0.thoughtSignature", gemini.STAND_IN)))
        gemini.check(changed(body, ("contents.1.parts.0.thoughtSignature", None)), "gemini-2.5-pro")

    def test_bedrock(self):
        thought = {"reasoningContent": {"reasoningText": {"text": "t", "signature": signature("claude", "t")}}}
        body = {"inferenceConfig": {"maxTokens": 2000}, "messages": [
            {"role": "user", "content": [{"text": "q"}]},
            {"role": "assistant", "content": [thought, {"toolUse": {"toolUseId": "tooluse_1", "name": "f", "input": {}}}]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "tooluse_1", "content": [{"text": ""}]}}]}],
            "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}}}]},
            "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}
        result = "messages.2.content.0.toolResult"
        self.judge(bedrock.check, body, [
            ("Unknown parameter in input", ("stream", True)),
            ("Unknown parameter in inferenceConfig", ("inferenceConfig.topK", 1)),
            ("must be greater than `thinking.budget_tokens`", ("inferenceConfig.maxTokens", 1024)),
            ("`temperature` may only be set to 1", ("inferenceConfig.temperature", 0.5)),
            ("toolConfig field must be defined", ("toolConfig", None)),
            ("toolConfig.tools, value: 0", ("toolConfig.tools", [])),
            ("toolSpec.description, value: 0", ("toolConfig.tools.0.toolSpec.description", "")),
            ("inputSchema.json.type must be one", ("toolConfig.tools.0.toolSpec.inputSchema.json", {})),
            ("must start with a user message", ("messages.0", None)),
            ("must alternate", ("messages.1.role", "user")),
            ("is blank", ("messages.0.content.0.text", " ")),
            ("tagged union", ("messages.0.content.0.image", {})),
            ("toolUse.input is invalid", ("messages.1.content.1.toolUse.input", "{}")),
            ("failed to satisfy constraint", ("messages.1.content.1.toolUse.toolUseId", "a.b")),
            ("Expected toolResult blocks", ("messages.2", None)),
            ("Expected toolResult blocks", ("messages.2.content.0.toolResult.toolUseId", "tooluse_2")),
            ("exceeds the number of toolUse blocks", ("messages.2.content", body["messages"][2]["content"] * 2)),
            ("cannot be empty when status", (f"{result}.content", []), (f"{result}.status", "error")),
            ("Invalid content", (f"{result}.content.0.type", "text")),
            ("system is blank", ("system", [{"text": " "}])),
            ("Invalid `signature`", ("messages.1.content.0.reasoningContent.reasoningText.text", "other")),
            ("Expected `thinking`", ("messages.1.content.0", None)),
        ])

    def test_ollama(self):
        body = {"think": "high", "unknown": 1, "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "content": "r"}], "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}
        self.judge(ollama.check, body, [
            ("invalid think value", ("think", "much")),
            ("invalid role: developer", ("messages.0.role", "developer")),
            ("ChatRequest.messages.content", ("messages.0.content", [{"type": "text", "text": "q"}])),
            ("tool_calls.function.arguments", ("messages.1.tool_calls.0.function.arguments", "{}")),
            ("ToolProperty", ("tools.0.function.parameters.properties.city", True)),
        ])


class Servers(unittest.TestCase):
    """A fake provider answers what breaks a rule as the real one does."""

    def test_a_refusal_is_a_400_in_the_words_of_the_dialect(self):
        port, _ = providers.start("openai")
        body = {"model": MODELS["openai"], "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(),
            {"authorization": f"Bearer {KEY}", "content-type": "application/json"})
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        self.assertEqual(refused.exception.code, 400)
        error = json.loads(refused.exception.read())["error"]
        self.assertEqual(error["type"], "invalid_request_error")
        self.assertIn("'max_tokens' is not supported with this model", error["message"])


if __name__ == "__main__":
    unittest.main()
