"""A fake provider of Anthropic's Messages."""

import json

from rules import anthropic as rules
from rules import need, signature

from .facts import KEY
from .provider import Provider, is_enforceable, sse


class Anthropic(Provider):
    path_of_chats = "/v1/messages"
    content_type = "text/event-stream"
    # What was said in threads, by the id of each answer.
    threads = {}

    def check(self, body):
        need(self.headers["x-api-key"] == KEY, "the credential")
        need(self.headers["anthropic-version"], "anthropic-version")
        self.recall(body)
        rules.check(body)

    def recall(self, body):
        """Has a thread whole that goes on: https://platform.claude.com/docs/en/build-with-claude/message-threads"""
        self.thread = body.pop("thread", None)
        if not self.thread:
            return
        need("message-threads-2026-08-12" in self.headers["anthropic-beta"], "thread: Extra inputs are not permitted")
        if self.thread["type"] == "continue":
            need(not body.keys() & {"system", "tools"}, "thread: `system` and `tools` are those of its beginning")
            before = self.threads[self.thread["previous_message_id"]]
            body |= {**before, "messages": [*before["messages"], *body["messages"]]}
            self.content = json.dumps(body).encode()

    def blocks(self, message, kind):
        if isinstance(message["content"], str):
            return [{"text": message["content"]}] if kind == "text" else []
        return [block for block in message["content"] if block["type"] == kind]

    def heard(self, body):
        for message in body["messages"]:
            for block in rules.blocks(message) if message["role"] == "user" else ():
                if block["type"] == "tool_result":
                    yield "tool", self.text(block["content"])
                if block["type"] == "text":
                    yield "user", block["text"]

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
        return {"id": f"msg_{self.number}", "type": "message", "role": "assistant", "model": "the-model-0", "content": [],
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
        if self.thread:
            kept = {name: body[name] for name in ("system", "tools") if name in body}
            said = {"role": "assistant", "content": content}
            self.threads[f"msg_{self.number}"] = {**kept, "messages": [*body["messages"], said]}
        if body.get("stream"):
            delta = {"stop_reason": reason, "stop_sequence": None}
            return self.stream([*events, sse({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}}, True),
                                sse({"type": "message_stop"}, True)])
        usage = {"input_tokens": 11, "output_tokens": 7}
        return self.json(200, self.message(content=content, stop_reason=reason, usage=usage))

    def proof(self, body, thought, cities):
        return signature("claude", thought) if rules.thinks(body) else None

    def say(self, body, thought, pieces, cities):
        events, content = [sse({"type": "message_start", "message": self.message()}, True), sse({"type": "ping"}, True)], []
        if thought and rules.thinks(body):
            block = {"type": "thinking", "thinking": thought, "signature": signature("claude", thought)}
            begun = {**block, "thinking": "", "signature": ""}
            *said, end = self.block_events(0, begun, "thinking_delta", "thinking", self.pieces(thought))
            signed = {"type": "signature_delta", "signature": block["signature"]}
            events += [*said, sse({"type": "content_block_delta", "index": 0, "delta": signed}, True), end]
            content.append(block)
        if pieces:
            events += self.block_events(len(content), {"type": "text", "text": ""}, "text_delta", "text", pieces)
            content.append({"type": "text", "text": "".join(pieces)})
        for city in cities:
            call = {"type": "tool_use", "id": self.id(city), "name": "get_weather", "input": {"city": city}}
            arguments = ["", *self.pieces(json.dumps(call["input"]))]
            events += self.block_events(len(content), {**call, "input": {}}, "input_json_delta", "partial_json", arguments)
            content.append(call)
        self.answer(body, content, "tool_use" if cities else "end_turn", events)

    def id(self, city):
        return f"toolu_{city}"
