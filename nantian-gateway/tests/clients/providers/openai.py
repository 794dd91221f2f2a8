"""A fake provider of OpenAI's Chat Completions."""

import json

from rules import need
from rules import openai as rules

from .facts import KEY
from .provider import Embeddings, sse


class OpenAi(Embeddings):
    path_of_chats = "/v1/chat/completions"
    content_type = "text/event-stream"

    def check(self, body):
        need(self.headers["authorization"] == f"Bearer {KEY}", "the credential")
        self.check_body(body)

    def check_body(self, body):
        rules.check(body)
        need(not body.get("stream") or body["stream_options"]["include_usage"], "include_usage")

    def heard(self, body):
        for message in body["messages"]:
            content = message.get("content")
            text = "".join(part.get("text", "") for part in content) if isinstance(content, list) else content
            if message["role"] in ("user", "tool"):
                yield message["role"], text

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
        return sse({"id": f"chatcmpl-{self.number}", "object": "chat.completion.chunk", "created": 1, "model": "the-model-0",
                    "choices": [choice], "usage": None})

    def text_events(self, pieces):
        return [self.delta({"role": "assistant", "content": ""}), *(self.delta({"content": piece}) for piece in pieces)]

    def answer(self, body, message, reason, events):
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        if body.get("stream"):
            last = {"id": f"chatcmpl-{self.number}", "object": "chat.completion.chunk", "created": 1, "model": "the-model-0",
                    "choices": [], "usage": usage}
            return self.stream([*events, self.delta({}, reason), sse(last), "data: [DONE]\n\n"])
        choice = {"index": 0, "message": {"role": "assistant", "refusal": None, **message}, "finish_reason": reason}
        return self.json(200, {"id": f"chatcmpl-{self.number}", "object": "chat.completion", "created": 1,
                               "model": "the-model-0", "choices": [choice], "usage": usage})

    def thoughts(self, body, thought):
        """What it says of its thoughts: nothing, but to those who know the member."""
        return {}

    def say(self, body, thought, pieces, cities):
        calls = [{"id": self.id(city), "type": "function",
                  "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}} for city in cities]
        thoughts = self.thoughts(body, thought) if thought else {}
        begin, *texts = self.text_events(pieces)
        events = [begin, *([self.delta(thoughts)] if thoughts else ()), *texts]
        for at, call in enumerate(calls):
            head = {**call, "index": at, "function": {"name": "get_weather", "arguments": ""}}
            events.append(self.delta({"tool_calls": [head]}))
            for piece in self.pieces(call["function"]["arguments"]):
                events.append(self.delta({"tool_calls": [{"index": at, "function": {"arguments": piece}}]}))
        message = {"content": "".join(pieces) or None, **thoughts, **({"tool_calls": calls} if calls else {})}
        self.answer(body, message, "tool_calls" if calls else "stop", events)


class DeepSeek(OpenAi):
    """DeepSeek, which thinks, and wants to be told what it has thought."""

    def check_body(self, body):
        rules.check_deepseek(body)

    def thoughts(self, body, thought):
        return {"reasoning_content": thought}

    def proof(self, body, thought, cities):
        return thought


class Mistral(OpenAi):
    """Mistral, which is strict about turns and about ids."""

    def check_body(self, body):
        rules.check_mistral(body)

    def id(self, city):
        return f"calls{city}"
