"""A fake provider of OpenAI's Responses."""

import json

from rules import need, seal
from rules import responses as rules

from .facts import KEY
from .provider import Embeddings, sse


class Responses(Embeddings):
    path_of_chats = "/v1/responses"
    content_type = "text/event-stream"

    def check(self, body):
        need(self.headers["authorization"] == f"Bearer {KEY}", "the credential")
        rules.check(body)

    def items(self, body):
        input = body["input"]
        return [{"role": "user", "content": input}] if isinstance(input, str) else input

    def heard(self, body):
        for item in self.items(body):
            content = item["output"] if item.get("type") == "function_call_output" else item.get("content")
            text = "".join(part.get("text", "") for part in content) if isinstance(content, list) else content
            if item.get("type") == "function_call_output" or item.get("role") == "user":
                yield item.get("role", "tool"), text

    def system(self, body):
        return body.get("instructions") or self.items(body)[0]["content"]

    def tools(self, body):
        return [tool["name"] for tool in body["tools"] if tool["type"] == "function"]

    def pictures(self, body):
        urls = [part["image_url"] for part in self.items(body)[-1]["content"] if part["type"] == "input_image"]
        return [url.removeprefix("data:image/png;base64,") for url in urls]

    def schema(self, body):
        return body["text"]["format"]["schema"]

    def error(self, kind, message):
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def response(self, output, status="completed", error=None, usage=None):
        return {"id": f"resp_{self.number}", "object": "response", "created_at": 1, "status": status, "error": error,
                "incomplete_details": None, "instructions": None, "metadata": {}, "model": "the-model-0", "output": output,
                "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
                "usage": usage}

    def numbered(self, events):
        """Events with their numbers, as they are sent."""
        return [sse({**event, "sequence_number": at}, True) for at, event in enumerate(events)]

    def stream(self, events, is_whole=True):
        super().stream(self.numbered(events), is_whole)

    def error_event(self, message):
        error = {"code": "server_error", "message": message}
        return {"type": "response.failed", "response": self.response([], "failed", error)}

    def message(self, text, status="completed"):
        content = [] if status == "in_progress" else [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        return {"id": f"msg_{self.number}", "type": "message", "status": status, "role": "assistant", "content": content}

    def begin(self):
        response = self.response([], "in_progress")
        return [{"type": f"response.{step}", "response": response} for step in ("created", "in_progress")]

    def begin_part(self, at):
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        where = {"item_id": f"msg_{self.number}", "output_index": at, "content_index": 0}
        return [{"type": "response.content_part.added", **where, "part": part}]

    def deltas(self, at, pieces):
        where = {"item_id": f"msg_{self.number}", "output_index": at, "content_index": 0}
        return [{"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []} for piece in pieces]

    def text_events(self, pieces):
        added = {"type": "response.output_item.added", "output_index": 0, "item": self.message("", "in_progress")}
        return [*self.begin(), added, *self.begin_part(0), *self.deltas(0, pieces)]

    def endless_text(self):
        return self.numbered(self.text_events(["Hel"]))

    def answer(self, body, output, events):
        usage = {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 7,
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 18}
        response = self.response(output, usage=usage)
        if body.get("stream"):
            return self.stream([*events, {"type": "response.completed", "response": response}])
        return self.json(200, response)

    def thinks(self, body):
        return (body.get("reasoning") or {}).get("effort", "none") != "none"

    def proof(self, body, thought, cities):
        return seal(thought) if self.thinks(body) else None

    def say(self, body, thought, pieces, cities):
        thinks = thought and self.thinks(body)
        events, output = self.begin(), []
        if thinks:
            item = {"id": f"rs_{self.number}", "type": "reasoning", "encrypted_content": seal(thought),
                    "summary": [{"type": "summary_text", "text": thought}]}
            events += self.reasoning_events(item)
            output.append(item)
        if pieces:
            message = self.message("".join(pieces))
            events += self.message_events(len(output), message, pieces)
            output.append(message)
        for city in cities:
            # An id of an item that was made with thoughts belongs to them.
            call = {"id": f"fc_rs_{city}" if thinks else f"fc_{city}", "type": "function_call", "status": "completed",
                    "call_id": self.id(city), "name": "get_weather", "arguments": json.dumps({"city": city})}
            events += self.call_events(len(output), call)
            output.append(call)
        self.answer(body, output, events)

    def item_events(self, at, begun, item, events):
        return [{"type": "response.output_item.added", "output_index": at, "item": begun}, *events,
                {"type": "response.output_item.done", "output_index": at, "item": item}]

    def reasoning_events(self, item):
        where, part = {"item_id": item["id"], "output_index": 0, "summary_index": 0}, item["summary"][0]
        pieces = self.pieces(part["text"])
        return self.item_events(0, {**item, "summary": []}, item, [
            {"type": "response.reasoning_summary_part.added", **where, "part": {**part, "text": ""}},
            *({"type": "response.reasoning_summary_text.delta", **where, "delta": piece} for piece in pieces),
            {"type": "response.reasoning_summary_text.done", **where, "text": part["text"]},
            {"type": "response.reasoning_summary_part.done", **where, "part": part}])

    def message_events(self, at, message, pieces):
        where, text = {"item_id": message["id"], "output_index": at, "content_index": 0}, "".join(pieces)
        return self.item_events(at, self.message("", "in_progress"), message, [
            *self.begin_part(at), *self.deltas(at, pieces),
            {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **where, "part": message["content"][0]}])

    def call_events(self, at, call):
        where, pieces = {"item_id": call["id"], "output_index": at}, self.pieces(call["arguments"])
        return self.item_events(at, {**call, "arguments": "", "status": "in_progress"}, call, [
            *({"type": "response.function_call_arguments.delta", **where, "delta": piece} for piece in pieces),
            {"type": "response.function_call_arguments.done", **where, "arguments": call["arguments"]}])
