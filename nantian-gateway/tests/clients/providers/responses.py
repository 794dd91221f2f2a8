"""A fake provider of OpenAI's Responses."""

import json

from .facts import CITIES, KEY, SIGNATURE, THOUGHT
from .provider import Embeddings, need, sse


class Responses(Embeddings):
    path_of_chats = "/v1/responses"
    content_type = "text/event-stream"

    def check(self, body):
        need(self.headers["authorization"] == f"Bearer {KEY}", "the credential")
        known = {"model", "input", "instructions", "stream", "store", "tools", "tool_choice", "text", "max_output_tokens",
                 "parallel_tool_calls", "include", "reasoning"}
        need(body.keys() <= known, f"unknown fields: {body.keys() - known}")
        calls = set()
        for item in self.items(body):
            kind = item.get("type", "message")
            need(kind in ("message", "function_call", "function_call_output", "reasoning"), f"the item: {kind}")
            need(kind != "reasoning" or item["encrypted_content"] == SIGNATURE, "reasoning of another")
            if kind == "message":
                need(item["role"] in ("system", "developer", "user", "assistant"), "the role")
                own = ("output_text", "refusal") if item["role"] == "assistant" else ("input_text", "input_image", "input_file")
                need(isinstance(item["content"], str) or all(part["type"] in own for part in item["content"]), "content")
            if kind == "function_call":
                need(isinstance(json.loads(item["arguments"]), dict), "arguments")
                calls.add(item["call_id"])
            if kind == "function_call_output":
                need(item["call_id"] in calls, "a result without a call")
                calls.remove(item["call_id"])
        need(not calls, "a call without a result")

    def items(self, body):
        input = body["input"]
        return [{"role": "user", "content": input}] if isinstance(input, str) else input

    def told(self, body):
        content = [item["content"] for item in self.items(body) if item.get("role") == "user"][-1]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    def results(self, body):
        return [item["output"] for item in self.items(body) if item.get("type") == "function_call_output"]

    def system(self, body):
        return body["instructions"]

    def tools(self, body):
        return [tool["name"] for tool in body["tools"] if tool["type"] == "function" and not tool["strict"]]

    def pictures(self, body):
        urls = [part["image_url"] for part in self.items(body)[-1]["content"] if part["type"] == "input_image"]
        return [url.removeprefix("data:image/png;base64,") for url in urls]

    def schema(self, body):
        return body["text"]["format"]["schema"]

    def error(self, kind, message):
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def response(self, output, status="completed", error=None, usage=None):
        return {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": error,
                "incomplete_details": None, "instructions": None, "metadata": {}, "model": "the-model-0", "output": output,
                "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
                "usage": usage}

    def numbered(self, events):
        """Events with their numbers, as they are sent."""
        return [sse({**event, "sequence_number": at}, True) for at, event in enumerate(events)]

    def stream(self, events):
        super().stream(self.numbered(events))

    def error_event(self, message):
        error = {"code": "server_error", "message": message}
        return {"type": "response.failed", "response": self.response([], "failed", error)}

    def message(self, text, status="completed"):
        content = [] if status == "in_progress" else [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        return {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": content}

    def begin(self):
        return [{"type": f"response.{step}", "response": self.response([], "in_progress")} for step in ("created", "in_progress")]

    def text_events(self, pieces):
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [*self.begin(),
                {"type": "response.output_item.added", "output_index": 0, "item": self.message("", "in_progress")},
                {"type": "response.content_part.added", **at, "part": part},
                *({"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []} for piece in pieces)]

    def endless_text(self):
        return self.numbered(self.text_events(["Hel"]))

    def answer(self, body, output, events):
        usage = {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 7,
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 18}
        response = self.response(output, usage=usage)
        if body.get("stream"):
            return self.stream([*events, {"type": "response.completed", "response": response}])
        return self.json(200, response)

    def say(self, body, pieces):
        text = "".join(pieces)
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        message = self.message(text)
        self.answer(body, [message], [
            *self.text_events(pieces),
            {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **at, "part": message["content"][0]},
            {"type": "response.output_item.done", "output_index": 0, "item": message}])

    def call(self, body):
        calls = [{"id": f"fc_{at}", "type": "function_call", "status": "completed", "call_id": f"call_{at}",
                  "name": "get_weather", "arguments": json.dumps({"city": city})} for at, city in enumerate(CITIES)]
        events, output = self.begin(), calls
        if body.get("reasoning", {}).get("effort", "none") != "none":
            thought = {"id": "rs_1", "type": "reasoning", "encrypted_content": SIGNATURE,
                       "summary": [{"type": "summary_text", "text": THOUGHT}]}
            output = [thought, *calls]
            events += [{"type": "response.output_item.added", "output_index": 0, "item": {**thought, "summary": []}},
                       {"type": "response.output_item.done", "output_index": 0, "item": thought}]
        for at, call in enumerate(calls, len(output) - len(calls)):
            arguments, where = call["arguments"], {"item_id": call["id"], "output_index": at}
            begun = {**call, "arguments": "", "status": "in_progress"}
            events += [{"type": "response.output_item.added", "output_index": at, "item": begun},
                       *({"type": "response.function_call_arguments.delta", **where, "delta": piece}
                         for piece in (arguments[:5], arguments[5:])),
                       {"type": "response.function_call_arguments.done", **where, "arguments": arguments},
                       {"type": "response.output_item.done", "output_index": at, "item": call}]
        self.answer(body, output, events)
