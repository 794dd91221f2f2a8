"""A fake provider of Bedrock's Converse."""

import hashlib
import hmac
import json
import struct
import urllib.parse
import zlib

from .facts import ACCOUNT, CITIES, KEY, REGION, SIGNATURE, THOUGHT
from .provider import Provider, is_enforceable, need


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
