"""A fake provider of Ollama's chats."""

import json

from rules import need
from rules import ollama as rules

from .facts import KEY, VECTORS
from .provider import Provider


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
        rules.check(body)
        for message in body["messages"]:
            need(message.get("tool_name", "get_weather") == "get_weather", "tool_name")

    def streams(self, body):
        return body.get("stream", True)

    def heard(self, body):
        for message in body["messages"]:
            if message["role"] in ("user", "tool"):
                yield message["role"], message["content"]

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
        if self.streams(body):
            return self.stream([*events, json.dumps(self.line({"content": ""}, **end)) + "\n"])
        return self.json(200, self.line(message, **end))

    def proof(self, body, thought, cities):
        return thought if body.get("think") else None

    def say(self, body, thought, pieces, cities):
        calls = [{"function": {"name": "get_weather", "arguments": {"city": city}}} for city in cities]
        thoughts = self.pieces(thought) if thought and body.get("think") else []
        events = [json.dumps(self.line({"content": "", "thinking": piece})) + "\n" for piece in thoughts]
        events += self.text_events(pieces)
        events += [json.dumps(self.line({"content": "", "tool_calls": [call]})) + "\n" for call in calls]
        self.answer(body, {"content": "".join(pieces), **({"thinking": thought} if thoughts else {}),
                           **({"tool_calls": calls} if calls else {})}, events)
