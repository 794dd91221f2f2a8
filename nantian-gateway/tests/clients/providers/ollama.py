"""A fake provider of Ollama's chats."""

import json

from .facts import CITIES, KEY, THOUGHT, VECTORS
from .provider import Provider, need


class Ollama(Provider):
    path_of_chats = "/api/chat"
    path_of_embeddings = "/api/embed"
    content_type = "application/x-ndjson"

    def do_POST(self):
        # The older API, which only its own clients ask for.
        if self.path != "/api/embeddings":
            return super().do_POST()
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        return self.json(200, {"embedding": VECTORS[body["prompt"]]})

    def embed(self, body):
        need(self.headers["authorization"] == f"Bearer {KEY}", "the credential")
        need(body.keys() <= {"model", "input", "truncate"} and body["model"] == self.model, f"fields: {body}")
        need(isinstance(body["input"], list), "the input")
        self.json(200, {"model": "the-model-0", "embeddings": [VECTORS[text] for text in body["input"]],
                        "total_duration": 1, "prompt_eval_count": 5})

    def check(self, body):
        need(self.headers["authorization"] == f"Bearer {KEY}", "the credential")
        known = {"model", "messages", "stream", "tools", "format", "options", "think", "keep_alive"}
        need(body.keys() <= known, f"unknown fields: {body.keys() - known}")
        for message in body["messages"]:
            need(message["role"] in ("system", "user", "assistant", "tool"), "the role")
            need(isinstance(message.get("content", ""), str), "content is text")
            need(message["role"] != "tool" or message["tool_name"] == "get_weather", "tool_name")
            for call in message.get("tool_calls", []):
                need(isinstance(call["function"]["arguments"], dict), "arguments")

    def told(self, body):
        return [message["content"] for message in body["messages"] if message["role"] == "user"][-1]

    def results(self, body):
        return [message["content"] for message in body["messages"] if message["role"] == "tool"]

    def system(self, body):
        return body["messages"][0]["content"]

    def tools(self, body):
        return [tool["function"]["name"] for tool in body["tools"]]

    def pictures(self, body):
        return body["messages"][-1]["images"]

    def schema(self, body):
        return body["format"]

    def error(self, _, message):
        return {"error": message}

    def error_event(self, message):
        return json.dumps(self.error(None, message)) + "\n"

    def line(self, message, **members):
        return {"model": "the-model-0", "created_at": "2025-01-01T00:00:00Z", "message": {"role": "assistant", **message},
                "done": False, **members}

    def text_events(self, pieces):
        return [json.dumps(self.line({"content": piece})) + "\n" for piece in pieces]

    def answer(self, body, message, events):
        end = {"done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 7, "total_duration": 1}
        if body.get("stream", True):
            return self.stream([*events, json.dumps(self.line({"content": ""}, **end)) + "\n"])
        return self.json(200, self.line(message, **end))

    def say(self, body, pieces):
        self.answer(body, {"content": "".join(pieces)}, self.text_events(pieces))

    def call(self, body):
        calls = [{"function": {"name": "get_weather", "arguments": {"city": city}}} for city in CITIES]
        thought = {"thinking": THOUGHT} if body.get("think") else {}
        events = [json.dumps(self.line({"content": "", **thought})) + "\n"] if thought else []
        events += [json.dumps(self.line({"content": "", "tool_calls": [call]})) + "\n" for call in calls]
        self.answer(body, {"content": "", **thought, "tool_calls": calls}, events)
