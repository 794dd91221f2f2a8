"""A fake provider of OpenAI's Chat Completions."""

import json

from .facts import CITIES, KEY
from .provider import Embeddings, need, sse


class OpenAi(Embeddings):
    path_of_chats = "/v1/chat/completions"
    content_type = "text/event-stream"

    def check(self, body):
        need(self.headers["authorization"] == f"Bearer {KEY}", "the credential")
        known = {"model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format",
                 "parallel_tool_calls", "max_completion_tokens", "reasoning_effort"}
        need(body.keys() <= known, f"unknown fields: {body.keys() - known}")
        need(not body.get("stream") or body["stream_options"]["include_usage"], "include_usage")
        need(body.get("reasoning_effort", "low") in ("minimal", "low", "medium", "high"), "reasoning_effort")
        open_calls = []
        for message in body["messages"]:
            need(message["role"] in ("system", "user", "assistant", "tool"), "the role")
            if message["role"] == "tool":
                need(message["tool_call_id"] in open_calls, "a result without a call")
                open_calls.remove(message["tool_call_id"])
            else:
                need(not open_calls, "a call without a result")
            for call in message.get("tool_calls", []):
                need(isinstance(json.loads(call["function"]["arguments"]), dict), "arguments")
                open_calls.append(call["id"])

    def told(self, body):
        content = [message["content"] for message in body["messages"] if message["role"] == "user"][-1]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    def results(self, body):
        return [message["content"] for message in body["messages"] if message["role"] == "tool"]

    def system(self, body):
        return body["messages"][0]["content"]

    def tools(self, body):
        return [tool["function"]["name"] for tool in body["tools"] if tool["type"] == "function"]

    def pictures(self, body):
        parts = body["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        return [url.removeprefix("data:image/png;base64,") for url in urls]

    def schema(self, body):
        return body["response_format"]["json_schema"]["schema"]

    def error(self, kind, message):
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def error_event(self, message):
        return sse(self.error("server_error", message))

    def delta(self, delta, reason=None):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return sse({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "the-model-0",
                    "choices": [choice], "usage": None})

    def text_events(self, pieces):
        return [self.delta({"role": "assistant", "content": ""}), *(self.delta({"content": piece}) for piece in pieces)]

    def answer(self, body, message, reason, events):
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        if body.get("stream"):
            last = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "the-model-0",
                    "choices": [], "usage": usage}
            return self.stream([*events, self.delta({}, reason), sse(last), "data: [DONE]\n\n"])
        choice = {"index": 0, "message": {"role": "assistant", "refusal": None, **message}, "finish_reason": reason}
        return self.json(200, {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "the-model-0",
                               "choices": [choice], "usage": usage})

    def say(self, body, pieces):
        self.answer(body, {"content": "".join(pieces)}, "stop", self.text_events(pieces))

    def call(self, body):
        calls = [{"id": f"call_{at}", "type": "function",
                  "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}
                 for at, city in enumerate(CITIES)]
        events = [self.delta({"role": "assistant", "content": None})]
        for at, call in enumerate(calls):
            arguments = call["function"]["arguments"]
            head = {**call, "index": at, "function": {"name": "get_weather", "arguments": ""}}
            events.append(self.delta({"tool_calls": [head]}))
            for piece in (arguments[:5], arguments[5:]):
                events.append(self.delta({"tool_calls": [{"index": at, "function": {"arguments": piece}}]}))
        self.answer(body, {"content": None, "tool_calls": calls}, "tool_calls", events)
