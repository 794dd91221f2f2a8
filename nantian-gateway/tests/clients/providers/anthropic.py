"""A fake provider of Anthropic's Messages."""

import json

from .facts import CITIES, KEY, SIGNATURE, THOUGHT
from .provider import Provider, is_enforceable, need, sse


class Anthropic(Provider):
    path_of_chats = "/v1/messages"
    content_type = "text/event-stream"

    def check(self, body):
        need(self.headers["x-api-key"] == KEY, "the credential")
        need(self.headers["anthropic-version"], "anthropic-version")
        known = {"model", "messages", "stream", "system", "max_tokens", "tools", "tool_choice", "output_config",
                 "temperature", "thinking"}
        need(body.keys() <= known, f"unknown fields: {body.keys() - known}")
        need(0 < body["max_tokens"] <= 64_000, "max_tokens")
        last, open_calls = None, []
        for message in body["messages"]:
            need(message["role"] in ("user", "assistant") and message["role"] != last, "the roles alternate")
            last = message["role"]
            need(message["content"], "content")
            blocks = message["content"] if isinstance(message["content"], list) else []
            for block in blocks:
                need(block["type"] != "text" or block["text"].strip(), "text is not blank")
            results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            need(results == open_calls, f"results {results} for calls {open_calls}")
            need([block["type"] for block in blocks[:len(results)]] == ["tool_result"] * len(results), "results first")
            open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
            need(all(isinstance(block["input"], dict) for block in blocks if block["type"] == "tool_use"), "input")
            thoughts = [block for block in blocks if block["type"] == "thinking"]
            need(all(block["signature"] == SIGNATURE for block in thoughts), "reasoning of another")
            need(not open_calls or thoughts or not self.thinks(body), "a turn begins with reasoning")

    def blocks(self, message, kind):
        if isinstance(message["content"], str):
            return [{"text": message["content"]}] if kind == "text" else []
        return [block for block in message["content"] if block["type"] == kind]

    def told(self, body):
        said = [block["text"] for message in body["messages"] if message["role"] == "user"
                for block in self.blocks(message, "text")]
        return said[-1]

    def results(self, body):
        results = self.blocks(body["messages"][-1], "tool_result")
        return [self.text(result["content"]) for result in results]

    def text(self, content):
        return content if isinstance(content, str) else "".join(block["text"] for block in content)

    def system(self, body):
        return self.text(body["system"])

    def tools(self, body):
        return [tool["name"] for tool in body["tools"] if tool["input_schema"]["type"] == "object"]

    def pictures(self, body):
        sources = [block["source"] for block in self.blocks(body["messages"][-1], "image")]
        return [source["data"] for source in sources if source["media_type"] == "image/png"]

    def schema(self, body):
        schema = body["output_config"]["format"]["schema"]
        need(is_enforceable(schema), "a closed schema without bounds")
        return schema

    def error(self, kind, message):
        return {"type": "error", "error": {"type": kind, "message": message}}

    def error_event(self, message):
        return sse(self.error("overloaded_error", message), True)

    def message(self, **members):
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": "the-model-0", "content": [],
                "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 11, "output_tokens": 1}, **members}

    def block_events(self, index, block, kind, member, pieces):
        yield sse({"type": "content_block_start", "index": index, "content_block": block}, True)
        for piece in pieces:
            delta = {"type": kind, member: piece}
            yield sse({"type": "content_block_delta", "index": index, "delta": delta}, True)
        yield sse({"type": "content_block_stop", "index": index}, True)

    def text_events(self, pieces):
        text = self.block_events(0, {"type": "text", "text": ""}, "text_delta", "text", pieces)
        return [sse({"type": "message_start", "message": self.message()}, True), sse({"type": "ping"}, True), *text]

    def answer(self, body, content, reason, events):
        if body.get("stream"):
            delta = {"stop_reason": reason, "stop_sequence": None}
            return self.stream([*events, sse({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}}, True),
                                sse({"type": "message_stop"}, True)])
        usage = {"input_tokens": 11, "output_tokens": 7}
        return self.json(200, self.message(content=content, stop_reason=reason, usage=usage))

    def say(self, body, pieces):
        self.answer(body, [{"type": "text", "text": "".join(pieces)}], "end_turn", self.text_events(pieces))

    def call(self, body):
        calls = [{"type": "tool_use", "id": f"toolu_{at}", "name": "get_weather", "input": {"city": city}}
                 for at, city in enumerate(CITIES)]
        events, content = [sse({"type": "message_start", "message": self.message()}, True)], calls
        if self.thinks(body):
            thought = {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}
            content = [thought, *calls]
            begun = {**thought, "thinking": "", "signature": ""}
            *said, end = self.block_events(0, begun, "thinking_delta", "thinking", [THOUGHT])
            signed = {"type": "signature_delta", "signature": SIGNATURE}
            events += [*said, sse({"type": "content_block_delta", "index": 0, "delta": signed}, True), end]
        for at, call in enumerate(calls, len(content) - len(calls)):
            arguments = json.dumps(call["input"])
            pieces = ["", arguments[:5], arguments[5:]]
            events += self.block_events(at, {**call, "input": {}}, "input_json_delta", "partial_json", pieces)
        self.answer(body, content, "tool_use", events)

    def thinks(self, body):
        return body.get("thinking", {}).get("type") == "enabled"
