"""The AI gateways that are compared, and the provider behind them."""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import peers, setup
from harness.peers import Peer, Place
from harness.process import Process, Unavailable

OPENAI_PATH = "/v1/chat/completions"
ANTHROPIC_PATH = "/v1/messages"
START_SECONDS = 90.0
"""LiteLLM loads a great deal of Python before it serves."""

EVENTS = 2000
EVENT = (
    'data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o",'
    '"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
LAST_EVENTS = (
    'data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o",'
    '"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    'data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o",'
    '"choices":[],"usage":{"prompt_tokens":500,"completion_tokens":2000,"total_tokens":2500}}\n\n'
    "data: [DONE]\n\n"
)
REPLY = json.dumps(
    {
        "id": "chatcmpl-123",
        "object": "chat.completion",
        "created": 1694268190,
        "model": "gpt-4o",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The moon is 384,400 km away on average. " * 8},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 500, "completion_tokens": 90, "total_tokens": 590},
    }
)


def prompt(stream: bool = False) -> str:
    """A chat of 2 KB that is one in OpenAI's words and in Anthropic's."""
    text = "The quick brown fox jumps over the lazy dog. " * 42
    chat = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
    return json.dumps({**chat, "stream": True} if stream else chat)


@dataclass(frozen=True)
class Call:
    """One kind of call: what is sent where, and what a right answer holds."""

    name: str
    server: str
    path: str = OPENAI_PATH
    headers: tuple[tuple[str, str], ...] = ()
    stream: bool = False
    expects: str = "384,400 km"

    @property
    def body(self) -> str:
        return prompt(self.stream)

    def header_fields(self, provider_port: int) -> dict[str, str]:
        fixed = {"Content-Type": "application/json", "Authorization": "Bearer sk-client"}
        own = {name: value.replace("@PROVIDER_PORT@", str(provider_port)) for name, value in self.headers}
        return {**fixed, **own}


DIRECT = Call("direct", "ai-provider")
CALLS = (
    Call("nantian", "ai-nantian"),
    Call("nantian, Anthropic client", "ai-nantian", ANTHROPIC_PATH),
    Call("nantian, busy poll", "ai-nantian-busy"),
    Call("bare hyper", "ai-hyper"),
    Call("LiteLLM", "ai-litellm"),
    Call(
        "Portkey",
        "ai-portkey",
        headers=(("x-portkey-provider", "openai"), ("x-portkey-custom-host", "http://127.0.0.1:@PROVIDER_PORT@/v1")),
    ),
)
OURS = CALLS[0]
JUDGED = (OURS, CALLS[2])
"""As it is by default, and where a core is its worker's own."""
OTHER_GATEWAYS = ("LiteLLM", "Portkey")
"""Not the bare hyper proxy: it only forwards, which is the least that anything in between adds."""
TOLD = Call("nantian, collectors that fail", "ai-nantian", "/told" + OPENAI_PATH)
HELD = Call("held", "ai-nantian", "/held" + OPENAI_PATH, stream=True)
STREAMS = (
    Call("passed on", "ai-nantian", "/stream" + OPENAI_PATH, stream=True, expects="[DONE]"),
    Call("translated", "ai-nantian", "/stream" + ANTHROPIC_PATH, stream=True, expects="message_stop"),
)


@dataclass(frozen=True)
class AiPlace(Place):
    """Where a server lives, and where its provider is."""

    stream_port: int
    hanging_port: int
    """A collector that takes connections and says nothing."""
    refusing_port: int
    """One that nobody is."""

    def values(self) -> dict[str, str]:
        return {
            **super().values(),
            "PROVIDER_PORT": str(self.backend_port),
            "STREAM_PORT": str(self.stream_port),
            "HANGING_PORT": str(self.hanging_port),
            "REFUSING_PORT": str(self.refusing_port),
            "REPLY": REPLY,
        }


def start(peer: Peer, place: AiPlace, core: int) -> Process:
    """Starts a server; the provider's stream is a file beside its configuration."""
    process = peer.start(place, core)
    (place.folder / "events").write_text(EVENT * EVENTS + LAST_EVENTS)
    return process


def ask(call: Call, port: int, provider_port: int) -> tuple[int, str]:
    """One call on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", call.path, call.body, call.header_fields(provider_port))
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"no answer: {error or type(error).__name__}") from error
    finally:
        connection.close()


def await_serving(process: Process, call: Call, port: int, provider_port: int) -> None:
    """Waits until the provider's answer arrives through `port`."""
    deadline = time.monotonic() + START_SECONDS
    last = ""
    while time.monotonic() < deadline:
        process.check_alive()
        try:
            status, body = ask(call, port, provider_port)
            if status == 200 and call.expects in body:
                return
            last = f"status {status}: {body[:200]}"
        except Unavailable as error:
            last = str(error)
        time.sleep(0.2)
    raise Unavailable(f"did not give the provider's answer within {START_SECONDS:.0f} s: {last}")


def _litellm(binary: Path, place: Place) -> list[str]:
    config = str(place.folder / "config.yaml")
    return [str(binary), "--config", config, "--host", "127.0.0.1", "--port", str(place.listen_port), "--num_workers", "1"]


def _portkey(script: Path, place: Place) -> list[str]:
    return ["node", str(script), f"--port={place.listen_port}", "--headless"]


def _found(path: Path) -> Callable[[], Path | None]:
    return lambda: path if path.exists() else None


def _version_of_litellm(binary: Path) -> str:
    found = next(binary.parent.parent.glob("lib/python*/site-packages/litellm-*.dist-info"), None)
    return found.name.removeprefix("litellm-").removesuffix(".dist-info") if found else "version unknown"


def _version_of_portkey(script: Path) -> str:
    return str(json.loads((script.parent.parent / "package.json").read_text())["version"])


LITELLM = setup.OUT / "litellm/bin/litellm"
PORTKEY = setup.OUT / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"

PROVIDER = Peer("ai-provider", peers.on_path("nginx"), setup.INSTALL_HINT, peers.asked("-v"), peers.nginx)
GATEWAYS = (
    Peer("ai-nantian", setup.gateway, setup.BUILD_HINT, setup.build_time, peers.nantian),
    Peer(
        "ai-nantian-busy",
        setup.gateway,
        setup.BUILD_HINT,
        setup.build_time,
        lambda binary, place: [*peers.nantian(binary, place), "--busy-poll", "100ms"],
        templates=("ai-nantian",),
    ),
    Peer("ai-hyper", setup.hyper_proxy, setup.BUILD_HINT, setup.build_time, peers.hyper_proxy),
    Peer("ai-litellm", _found(LITELLM), setup.AI_INSTALL_HINT, _version_of_litellm, _litellm),
    Peer("ai-portkey", _found(PORTKEY), setup.AI_INSTALL_HINT, _version_of_portkey, _portkey),
)
