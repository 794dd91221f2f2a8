"""Fake providers as servers, each of which speaks one dialect and takes nothing else.

What they answer depends on the last text of the user, see `Provider.scene`.
"""

import base64
import hashlib
import hmac
import http.server
import json
import struct
import threading
import urllib.parse
import zlib

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
# The same as pydantic writes it: open.
OPEN_SCHEMA = {name: value for name, value in SCHEMA.items() if name != "additionalProperties"}
PERSON = '{"name": "Ada", "age": 36}'
CITIES = ["Oslo", "Rome"]
KEY = "sk-of-the-operator"
ACCOUNT = "AKID"
REGION = "eu-central-1"
# Names that are known, so that requests are those that such a model takes.
MODELS = {
    "openai": "gpt-5",
    "openai-responses": "gpt-5.2",
    "anthropic": "claude-sonnet-4-5",
    "bedrock": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "gemini": "gemini-3-pro-preview",
    "ollama": "qwen3",
}
# A model at Ollama that does not think, and what is said of that.
THOUGHTLESS, DOES_NOT_THINK = "llama3.1:8b", "does not support thinking"
# What a model thinks before it calls tools, if it is asked to think, and what it signs it with.
THOUGHT, SIGNATURE = "Two cities.", "c2lnbmVk"
VECTORS = {"one": [0.5, -0.25], "two": [1.0, 2.0]}


class Refusal(Exception):
    """What a real provider would refuse."""


def need(holds, what):
    if not holds:
        raise Refusal(what)


def is_enforceable(schema):
    """Whether Claude takes a schema: objects are closed, and nothing has bounds."""
    if isinstance(schema, list):
        return all(map(is_enforceable, schema))
    if not isinstance(schema, dict):
        return True
    is_closed = schema.get("type") != "object" or schema.get("additionalProperties") is False
    bounds = {"minimum", "maximum", "multipleOf", "minLength", "maxLength", "maxItems", "pattern"}
    return is_closed and not schema.keys() & bounds and all(map(is_enforceable, schema.values()))


class Provider(http.server.BaseHTTPRequestHandler):
    """What the dialects have in common: requests in, scenes out."""

    protocol_version = "HTTP/1.1"
    path_of_chats = ""
    path_of_embeddings = None
    gone = threading.Event()

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            # Whoever asked is gone.
            pass

    def do_POST(self):
        self.content = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(self.content)
        try:
            need(self.headers["content-type"] == "application/json", "content-type")
            if self.path == self.path_of_embeddings:
                return self.embed(body)
            self.check_target(body)
            self.check(body)
            self.scene(body)
        except (Refusal, KeyError, TypeError, IndexError) as fault:
            self.json(400, self.error("invalid_request_error", f"{type(fault).__name__}: {fault}"))

    def check_target(self, body):
        need(self.path == self.path_of_chats, f"no such path: {self.path}")
        need(body["model"] == self.model, "the operator's model")

    def scene(self, body):
        told, results = self.told(body), self.results(body)
        if results:
            need(results == ["3 degrees", "20 degrees"], f"results: {results}")
            return self.say(body, ["3 and ", "20"])
        if "error" in told:
            return self.json(429, self.error("rate_limit_error", "slow down"), {"retry-after": "7"})
        if "midway" in told:
            return self.stream([*self.text_events(["Hel"]), self.error_event("later")])
        if "endless" in told:
            return self.endless()
        if "tools" in told:
            need(self.tools(body) == ["get_weather"], "the tool")
            return self.call(body)
        if "picture" in told:
            need(self.pictures(body) == [PICTURE], "the picture")
            return self.say(body, ["a pic", "ture"])
        if "person" in told:
            need({**self.schema(body), "additionalProperties": False} == SCHEMA, f"the schema: {self.schema(body)}")
            return self.say(body, [PERSON[:9], PERSON[9:]])
        need(self.system(body) == "Be brief.", "the system prompt")
        return self.say(body, ["Hello ", "wörld"])

    def json(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": len(data), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self):
        self.send_response(200)
        self.send_header("content-type", self.content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def joined(self, events):
        return "".join(events).encode()

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def stream(self, events):
        self.begin_stream()
        data = self.joined(events)
        # Cut where no event ends.
        for at in range(0, len(data), 37):
            self.chunk(data[at:at + 37])
        self.wfile.write(b"0\r\n\r\n")

    def endless_text(self):
        return self.text_events(["Hel"])

    def endless(self):
        self.begin_stream()
        self.connection.settimeout(20)
        try:
            self.chunk(self.joined(self.endless_text()))
            self.gone.waiting.set()
            if self.connection.recv(1) == b"":
                self.gone.set()
        except OSError:
            self.gone.set()
        self.close_connection = True


def sse(event, named=False):
    name = f"event: {event['type']}\n" if named else ""
    return f"{name}data: {json.dumps(event)}\n\n"


class Embeddings(Provider):
    """OpenAI's embeddings, which are the same beside both of its other APIs."""

    path_of_embeddings = "/v1/embeddings"

    def embed(self, body):
        need(self.headers["authorization"] == f"Bearer {KEY}", "the credential")
        need(body.keys() <= {"model", "input", "encoding_format"} and body["model"] == self.model, f"fields: {body}")
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        packed = body.get("encoding_format") == "base64"
        data = [{"object": "embedding", "index": at, "embedding": pack(VECTORS[text]) if packed else VECTORS[text]}
                for at, text in enumerate(texts)]
        # Their order is told by their index.
        self.json(200, {"object": "list", "data": data[::-1], "model": "the-model-0",
                        "usage": {"prompt_tokens": 5, "total_tokens": 5}})


def pack(vector):
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


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


class Bedrock(Provider):
    """Takes nothing that the account has not signed."""

    content_type = "application/vnd.amazon.eventstream"

    def check_target(self, body):
        operation = self.path.removeprefix(f"/model/{urllib.parse.quote(self.model, safe='')}/")
        need(operation in ("converse", "converse-stream"), f"no such path: {self.path}")
        body["stream"] = operation == "converse-stream"

    def signature(self, names):
        date = self.headers["x-amz-date"]
        scope = f"{date[:8]}/{REGION}/bedrock/aws4_request"
        headers = "".join(f"{name}:{self.headers[name]}\n" for name in names.split(";"))
        content = hashlib.sha256(self.content).hexdigest()
        # The path is encoded once more than it is sent.
        request = f"POST\n{self.path.replace('%', '%25')}\n\n{headers}\n{names}\n{content}"
        text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{KEY}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        return f"AWS4-HMAC-SHA256 Credential={ACCOUNT}/{scope}, SignedHeaders={names}, Signature={signature}"

    def check(self, body):
        signed = self.headers["authorization"]
        names = signed.partition("SignedHeaders=")[2].partition(",")[0]
        need({"content-type", "host", "x-amz-date"} <= set(names.split(";")), f"signed headers: {names}")
        need(signed == self.signature(names), "the signature")
        known = {"messages", "system", "inferenceConfig", "toolConfig", "outputConfig", "stream",
                 "additionalModelRequestFields"}
        need(body.keys() <= known, f"unknown fields: {body.keys() - known}")
        last, open_calls = None, []
        for message in body["messages"]:
            need(message["role"] in ("user", "assistant") and message["role"] != last, "the roles alternate")
            last = message["role"]
            blocks = message["content"]
            need(blocks and all(len(block) == 1 for block in blocks), "content")
            need(all(block.get("text", "x").strip() for block in blocks), "text is not blank")
            results = [block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block]
            need(results == open_calls, f"results {results} for calls {open_calls}")
            calls = [block["toolUse"] for block in blocks if "toolUse" in block]
            need(all(isinstance(call["input"], dict) for call in calls), "input")
            need(not calls and not results or body["toolConfig"]["tools"], "calls want tools")
            open_calls = [call["toolUseId"] for call in calls]
            said = [block["reasoningContent"]["reasoningText"] for block in blocks if "reasoningContent" in block]
            need(all(text["signature"] == SIGNATURE for text in said), "reasoning of another")
            need(not calls or said or not self.thinks(body), "a turn begins with reasoning")

    def last(self, body, kind):
        return [block[kind] for block in body["messages"][-1]["content"] if kind in block]

    def told(self, body):
        said = [block["text"] for message in body["messages"] if message["role"] == "user"
                for block in message["content"] if "text" in block]
        return said[-1]

    def results(self, body):
        return ["".join(part["text"] for part in result["content"]) for result in self.last(body, "toolResult")]

    def system(self, body):
        return body["system"][0]["text"]

    def tools(self, body):
        tools = [tool["toolSpec"] for tool in body["toolConfig"]["tools"]]
        return [tool["name"] for tool in tools if tool["inputSchema"]["json"]["type"] == "object"]

    def pictures(self, body):
        return [image["source"]["bytes"] for image in self.last(body, "image") if image["format"] == "png"]

    def schema(self, body):
        form = body["outputConfig"]["textFormat"]
        need(form["type"] == "json_schema", "the type of the form")
        schema = json.loads(form["structure"]["jsonSchema"]["schema"])
        need(is_enforceable(schema), "a closed schema without bounds")
        return schema

    def error(self, kind, message):
        return {"message": message}

    def frame(self, name, payload, kind="event"):
        names = {":message-type": kind, f":{kind}-type": name, ":content-type": "application/json"}
        headers = b"".join(struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
                           for name, value in names.items())
        data = json.dumps(payload).encode()
        prelude = struct.pack(">II", len(headers) + len(data) + 16, len(headers))
        start = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + data
        return start + struct.pack(">I", zlib.crc32(start))

    def joined(self, events):
        return b"".join(events)

    def error_event(self, message):
        return self.frame("serviceUnavailableException", {"message": message}, "exception")

    def delta(self, at, delta):
        return self.frame("contentBlockDelta", {"contentBlockIndex": at, "delta": delta})

    def text_events(self, pieces):
        return [self.frame("messageStart", {"role": "assistant"}), *(self.delta(0, {"text": piece}) for piece in pieces)]

    def answer(self, body, content, reason, events):
        usage = {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18}
        if body["stream"]:
            return self.stream([*events, self.frame("messageStop", {"stopReason": reason}),
                                self.frame("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})])
        return self.json(200, {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": reason,
                               "usage": usage, "metrics": {"latencyMs": 1}})

    def say(self, body, pieces):
        events = [*self.text_events(pieces), self.frame("contentBlockStop", {"contentBlockIndex": 0})]
        self.answer(body, [{"text": "".join(pieces)}], "end_turn", events)

    def call(self, body):
        calls = [{"toolUseId": f"tooluse_{at}", "name": "get_weather", "input": {"city": city}}
                 for at, city in enumerate(CITIES)]
        events, content = self.text_events([]), [{"toolUse": call} for call in calls]
        if self.thinks(body):
            content.insert(0, {"reasoningContent": {"reasoningText": {"text": THOUGHT, "signature": SIGNATURE}}})
            events += [self.delta(0, {"reasoningContent": {"text": THOUGHT}}),
                       self.delta(0, {"reasoningContent": {"signature": SIGNATURE}}),
                       self.frame("contentBlockStop", {"contentBlockIndex": 0})]
        for at, call in enumerate(calls, len(content) - len(calls)):
            start = {key: call[key] for key in ("toolUseId", "name")}
            events.append(self.frame("contentBlockStart", {"contentBlockIndex": at, "start": {"toolUse": start}}))
            arguments = json.dumps(call["input"])
            events += [self.delta(at, {"toolUse": {"input": piece}}) for piece in (arguments[:5], arguments[5:])]
            events.append(self.frame("contentBlockStop", {"contentBlockIndex": at}))
        self.answer(body, content, "tool_use", events)

    def thinks(self, body):
        return body.get("additionalModelRequestFields", {}).get("thinking", {}).get("type") == "enabled"


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


DIALECTS = {"openai": OpenAi, "openai-responses": Responses, "anthropic": Anthropic, "bedrock": Bedrock, "gemini": Gemini,
            "ollama": Ollama}


class Overloaded:
    """A provider that takes what it would take and then has no room: told by a status, or as the first event of a stream."""

    def scene(self, body):
        self.asked.set()
        if body.get("stream"):
            return self.stream([self.error_event("no room")])
        return self.json(503, self.error("overloaded_error", "no room"))


class Thoughtless:
    """Ollama with a model that does not think: a wish for it is refused, however it is put."""

    def check(self, body):
        if body.get("think"):
            raise Refusal(f'"{self.model}" {DOES_NOT_THINK}')
        super().check(body)


def start_thoughtless():
    """Serves a model at Ollama that does not think on a free port."""
    return serve("ollama", (Thoughtless, DIALECTS["ollama"]), {"model": THOUGHTLESS})


def start(dialect):
    """Serves a dialect on a free port; gives the port and the event of a client that went away."""
    gone = threading.Event()
    gone.waiting = threading.Event()
    return serve(dialect, (DIALECTS[dialect],), {"gone": gone}), gone


def start_overloaded(dialect):
    """Serves a dialect that has no room on a free port; gives the port and the event of a request."""
    asked = threading.Event()
    return serve(dialect, (Overloaded, DIALECTS[dialect]), {"asked": asked}), asked


def serve(dialect, bases, members):
    handler = type(dialect, bases, {"model": MODELS[dialect], **members})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port
