"""What the fake providers of all dialects have in common."""

import base64
import http.server
import itertools
import json
import struct
import threading

from rules import Refusal, need

from .facts import CITIES, CONVERSATION, DEGREES, GUESS, KEY, PERSON, PICTURE, SCHEMA, THOUGHT, VECTORS


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
    # No two answers have the same ids, which clients tell items by.
    numbers = itertools.count(1)

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
        self.number = next(self.numbers)
        try:
            need(self.headers["content-type"] == "application/json", "content-type")
            if self.path == self.path_of_embeddings:
                return self.embed(body)
            self.check_target(body)
            self.check(body)
            self.scene(body)
        except (Refusal, KeyError, TypeError, IndexError) as fault:
            self.json(400, self.error("invalid_request_error", str(fault) if isinstance(fault, Refusal) else repr(fault)))

    def check_target(self, body):
        need(self.path == self.path_of_chats, f"no such path: {self.path}")
        need(body["model"] == self.model, "the operator's model")

    def scene(self, body):
        told, results = self.turn(body)
        if told in CONVERSATION:
            return self.go_on(body, CONVERSATION[told], results)
        if results:
            need(results == [DEGREES[city] for city in CITIES], f"results: {results}")
            return self.say(body, None, ["3 and ", "20"], [])
        if "error" in told:
            return self.json(429, self.error("rate_limit_error", "slow down"), {"retry-after": "7"})
        if "midway" in told:
            return self.stream([*self.text_events(["Hel"]), self.error_event("later")])
        if told in ("cut", "short"):
            return self.stream(self.text_events(["Hel"]), is_whole=told == "short")
        if "endless" in told:
            return self.endless()
        if "tools" in told:
            need(self.tools(body) == ["get_weather"], "the tool")
            return self.say(body, THOUGHT, [], CITIES)
        if "picture" in told:
            need(self.pictures(body) == [PICTURE], "the picture")
            return self.say(body, None, ["a pic", "ture"], [])
        if "person" in told:
            need({**self.schema(body), "additionalProperties": False} == SCHEMA, f"the schema: {self.schema(body)}")
            return self.say(body, None, [PERSON[:9], PERSON[9:]], [])
        need(self.system(body) == "Be brief.", "the system prompt")
        return self.say(body, None, ["Hello ", "wörld"], [])

    def turn(self, body):
        """The user's last text, and the results of tools after it."""
        told, results = "", []
        for who, text in self.heard(body):
            if who == "user":
                told, results = text, []
            else:
                results.append(text)
        return told, results

    def go_on(self, body, steps, results):
        """The next step of a conversation, if everything of the steps before is there."""
        need(self.system(body) == "Be brief.", "the system prompt")
        need(self.tools(body) == ["get_weather"], "the tool")
        before = [cities for known, (_, cities) in steps.items() if known < len(results)]
        need(results == [DEGREES[city] for cities in before for city in cities], f"results: {results}")
        pieces, cities = steps[len(results)]
        if not cities and not all(self.remembers(body, asked) for asked in before):
            pieces = [*pieces, GUESS]
        self.say(body, self.thought(cities), pieces, cities)

    def thought(self, cities):
        return f"{THOUGHT} Then: {cities}"

    def remembers(self, body, cities):
        """Whether it is told again what it has thought before it asked for these."""
        proof = self.proof(body, self.thought(cities), cities)
        return proof is None or proof.encode() in self.content

    def proof(self, body, thought, cities):
        """What tells that it has thought so, if it thinks."""
        return None

    def streams(self, body):
        return body.get("stream", False)

    def id(self, city):
        """Of the call for a city. A conversation has one for each."""
        return f"call_{city}"

    def pieces(self, value):
        """The arguments of a call as they are streamed: cut where no value ends."""
        return [value[:5], value[5:]]

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

    def stream(self, events, is_whole=True):
        """Streams events, and lets the connection break after them unless the body is whole."""
        self.begin_stream()
        data = self.joined(events)
        # Cut where no event ends.
        for at in range(0, len(data), 37):
            self.chunk(data[at:at + 37])
        if is_whole:
            return self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

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
