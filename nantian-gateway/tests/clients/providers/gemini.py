"""A fake provider of Gemini's generateContent."""

from rules import gemini as rules
from rules import need, signature

from .facts import KEY, MODELS, VECTORS
from .provider import Provider, sse


class Gemini(Provider):
    path_of_embeddings = f"/v1beta/models/{MODELS['gemini']}:batchEmbedContents"
    content_type = "text/event-stream"

    def embed(self, body):
        need(self.headers["x-goog-api-key"] == KEY, "the credential")
        need(all(request.keys() == {"model", "content"} for request in body["requests"]), "the fields of a request")
        need(all(request["model"] == f"models/{self.model}" for request in body["requests"]), "the operator's model")
        texts = [request["content"]["parts"][0]["text"] for request in body["requests"]]
        self.json(200, {"embeddings": [{"values": VECTORS[text]} for text in texts],
                        "usageMetadata": {"promptTokenCount": 5}})

    def check_target(self, body):
        method = self.path.removeprefix(f"/v1beta/models/{self.model}:")
        need(method in ("generateContent", "streamGenerateContent?alt=sse"), f"no such path: {self.path}")

    def streams(self, body):
        return "streamGenerateContent" in self.path

    def check(self, body):
        need(self.headers["x-goog-api-key"] == KEY, "the credential")
        rules.check(body, self.model)
        # Gemini tells results of one function apart by their order, and newer models by ids.
        open_calls = []
        for content in body["contents"]:
            results = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
            need([(result["name"], result["id"]) for result in results] == open_calls, f"{results} for {open_calls}")
            calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
            open_calls = [(call["name"], call["id"]) for call in calls]

    def parts(self, body, kind):
        return [part[kind] for part in body["contents"][-1]["parts"] if kind in part]

    def heard(self, body):
        for content in body["contents"]:
            for part in content["parts"] if content["role"] == "user" else ():
                if "functionResponse" in part:
                    yield "tool", part["functionResponse"]["response"]["output"]
                if "text" in part:
                    yield "user", part["text"]

    def system(self, body):
        return body["systemInstruction"]["parts"][0]["text"]

    def tools(self, body):
        functions = body["tools"][0]["functionDeclarations"]
        return [function["name"] for function in functions if function["parametersJsonSchema"]["type"] == "object"]

    def pictures(self, body):
        return [data["data"] for data in self.parts(body, "inlineData") if data["mimeType"] == "image/png"]

    def schema(self, body):
        need(body["generationConfig"]["responseMimeType"] == "application/json", "responseMimeType")
        return body["generationConfig"]["responseJsonSchema"]

    def error(self, kind, message):
        code, status = (429, "RESOURCE_EXHAUSTED") if kind == "rate_limit_error" else (400, "INVALID_ARGUMENT")
        return {"error": {"code": code, "message": message, "status": status}}

    def error_event(self, message):
        return sse({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}})

    def response(self, parts, reason=None):
        candidate = {"content": {"parts": parts, "role": "model"}, "index": 0}
        usage = {"promptTokenCount": 11, "totalTokenCount": 11}
        if reason:
            candidate["finishReason"] = reason
            usage = {"promptTokenCount": 11, "candidatesTokenCount": 4, "thoughtsTokenCount": 3, "totalTokenCount": 18}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "the-model-0",
                "responseId": f"resp-{self.number}"}

    def text_events(self, pieces):
        return [sse(self.response([{"text": piece}])) for piece in pieces]

    def call(self, city):
        return {"functionCall": {"id": f"gen-{city}", "name": "get_weather", "args": {"city": city}}}

    def proof(self, body, thought, cities):
        return rules.sign(self.call(cities[0])["functionCall"])

    def say(self, body, thought, pieces, cities):
        thinks = thought and "thinkingConfig" in body.get("generationConfig", {})
        thoughts = [{"text": piece, "thought": True} for piece in self.pieces(thought)] if thinks else []
        calls = [self.call(city) for city in cities]
        if calls:
            calls[0]["thoughtSignature"] = rules.sign(calls[0]["functionCall"])
        # https://ai.google.dev/gemini-api/docs/thought-signatures: the end of an answer without calls is signed, too.
        signed = {} if calls else {"thoughtSignature": signature("gemini", "".join(pieces))}
        if self.streams(body):
            parts = [*thoughts, *({"text": piece} for piece in pieces), *calls, {"text": "", **signed}]
            return self.stream([*(sse(self.response([part])) for part in parts[:-1]), sse(self.response(parts[-1:], "STOP"))])
        whole = [{"text": thought, "thought": True}] if thinks else []
        whole += [{"text": "".join(pieces), **signed}] if pieces else []
        return self.json(200, self.response([*whole, *calls], "STOP"))
