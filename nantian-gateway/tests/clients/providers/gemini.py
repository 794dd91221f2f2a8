"""A fake provider of Gemini's generateContent."""

from .facts import CITIES, KEY, MODELS, SIGNATURE, THOUGHT, VECTORS
from .provider import Provider, need, sse


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
        body["stream"] = method != "generateContent"

    def check(self, body):
        need(self.headers["x-goog-api-key"] == KEY, "the credential")
        known = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "stream"}
        need(body.keys() <= known, f"unknown fields: {body.keys() - known}")
        open_calls = []
        for content in body["contents"]:
            need(content["role"] in ("user", "model") and content["parts"], "the content")
            results = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
            need(len(results) in (0, len(content["parts"])), "results stand alone")
            need([(result["name"], result["id"]) for result in results] == open_calls, f"{results} for {open_calls}")
            need(all(isinstance(result["response"], dict) for result in results), "the response")
            calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
            need(all(isinstance(call["args"], dict) and call.keys() == {"id", "name", "args"} for call in calls), "args")
            open_calls = [(call["name"], call["id"]) for call in calls]
            signed = [part.get("thoughtSignature") for part in content["parts"] if "functionCall" in part]
            need(not signed or signed[0] in (SIGNATURE, "skip_thought_signature_validator"), f"signatures: {signed}")

    def parts(self, body, kind):
        return [part[kind] for part in body["contents"][-1]["parts"] if kind in part]

    def told(self, body):
        texts = [part["text"] for content in body["contents"] if content["role"] == "user"
                 for part in content["parts"] if "text" in part]
        return texts[-1]

    def results(self, body):
        return [result["response"]["output"] for result in self.parts(body, "functionResponse")]

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
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "the-model-0", "responseId": "resp-1"}

    def text_events(self, pieces):
        return [sse(self.response([{"text": piece}])) for piece in pieces]

    def answer(self, body, parts, events):
        if body["stream"]:
            return self.stream([*events, sse(self.response([{"text": ""}], "STOP"))])
        return self.json(200, self.response(parts, "STOP"))

    def say(self, body, pieces):
        self.answer(body, [{"text": "".join(pieces)}], self.text_events(pieces))

    def call(self, body):
        calls = [{"functionCall": {"id": f"gen-{at}", "name": "get_weather", "args": {"city": city}}}
                 for at, city in enumerate(CITIES)]
        calls[0]["thoughtSignature"] = SIGNATURE
        if "thinkingConfig" in body.get("generationConfig", {}):
            calls.insert(0, {"text": THOUGHT, "thought": True})
        self.answer(body, calls, [sse(self.response([call])) for call in calls])
