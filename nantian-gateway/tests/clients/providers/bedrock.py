"""A fake provider of Bedrock's Converse."""

import hashlib
import hmac
import json
import struct
import urllib.parse
import zlib

from rules import bedrock as rules
from rules import need, signature

from .facts import ACCOUNT, KEY, REGION
from .provider import Provider, is_enforceable


class Bedrock(Provider):
    """Takes nothing that the account has not signed."""

    content_type = "application/vnd.amazon.eventstream"

    def check_target(self, body):
        operation = self.path.removeprefix(f"/model/{urllib.parse.quote(self.model, safe='')}/")
        need(operation in ("converse", "converse-stream"), f"no such path: {self.path}")

    def streams(self, body):
        return self.path.endswith("/converse-stream")

    def authorization(self, names):
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
        need(signed == self.authorization(names), "the signature")
        rules.check(body)

    def last(self, body, kind):
        return [block[kind] for block in body["messages"][-1]["content"] if kind in block]

    def heard(self, body):
        for message in body["messages"]:
            for block in message["content"] if message["role"] == "user" else ():
                if "toolResult" in block:
                    yield "tool", "".join(part["text"] for part in block["toolResult"]["content"])
                if "text" in block:
                    yield "user", block["text"]

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
        if self.streams(body):
            return self.stream([*events, self.frame("messageStop", {"stopReason": reason}),
                                self.frame("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})])
        return self.json(200, {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": reason,
                               "usage": usage, "metrics": {"latencyMs": 1}})

    def proof(self, body, thought, cities):
        return signature("claude", thought) if rules.thinks(body) else None

    def say(self, body, thought, pieces, cities):
        events, content = self.text_events([]), []
        if thought and rules.thinks(body):
            said = {"text": thought, "signature": signature("claude", thought)}
            events += self.block_events(0, [{"reasoningContent": {"text": piece}} for piece in self.pieces(thought)]
                                        + [{"reasoningContent": {"signature": said["signature"]}}])
            content.append({"reasoningContent": {"reasoningText": said}})
        if pieces:
            events += self.block_events(len(content), [{"text": piece} for piece in pieces])
            content.append({"text": "".join(pieces)})
        for city in cities:
            call = {"toolUseId": f"tooluse_{city}", "name": "get_weather", "input": {"city": city}}
            start = {key: call[key] for key in ("toolUseId", "name")}
            arguments = [{"toolUse": {"input": piece}} for piece in self.pieces(json.dumps(call["input"]))]
            events.append(self.frame("contentBlockStart", {"contentBlockIndex": len(content), "start": {"toolUse": start}}))
            events += self.block_events(len(content), arguments)
            content.append({"toolUse": call})
        self.answer(body, content, "tool_use" if cities else "end_turn", events)

    def block_events(self, at, deltas):
        return [*(self.delta(at, delta) for delta in deltas), self.frame("contentBlockStop", {"contentBlockIndex": at})]
