"""The job every proxy does, and the questions that prove that it does it."""

import http.client
import time
from dataclasses import dataclass

from harness.process import Process, Unavailable

HOST = "bench.example.com"
PREFIX = "/api"
PATH = f"{PREFIX}/items/42"
FORWARDED_PATH = f"{PREFIX}/forwarded"
BODY = ("Nantian carries this line from the backend to the client. " * 18)[:1024]
PLUGIN_CONFIG = "\x01"
"""Tells the plugin to make its three host calls once for each request."""
USER_AGENT = "nantian-bench"
FORWARDED_HEADERS = ("for", "proto", "host")
START_SECONDS = 10.0


class NoAnswer(Unavailable):
    """A request that got no reply at all."""


@dataclass(frozen=True)
class Reply:
    """What came back from one request."""

    status: int
    body: str


@dataclass(frozen=True)
class Behaviour:
    """What a proxy was seen to do besides passing bytes on."""

    routes: bool
    """Another host and another path are refused."""
    forwarded: tuple[str, ...]
    """The X-Forwarded-* headers that reached the backend."""
    plugin: bool = False
    """The header that the Wasm plugin writes reached the backend."""

    def __str__(self) -> str:
        routing = "host+path" if self.routes else "none"
        plugin = "; plugin" if self.plugin else ""
        return f"routing {routing}; X-Forwarded-* {', '.join(self.forwarded) or 'none'}{plugin}"

    def missing(self) -> list[str]:
        """The parts of the job that are not done."""
        routing = [] if self.routes else ["routing"]
        return routing + [f"X-Forwarded-{name.title()}" for name in FORWARDED_HEADERS if name not in self.forwarded]


def get(port: int, path: str = PATH, host: str = HOST) -> Reply:
    """One GET on a connection of its own; raises `NoAnswer` when it fails below HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path, headers={"Host": host, "User-Agent": USER_AGENT})
        response = connection.getresponse()
        return Reply(response.status, response.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"no answer: {error or type(error).__name__}") from error
    finally:
        connection.close()


def await_serving(process: Process, port: int) -> None:
    """Waits until the backend's body arrives through `port`; raises `Unavailable` if it does not."""
    deadline = time.monotonic() + START_SECONDS
    last = ""
    while time.monotonic() < deadline:
        process.check_alive()
        try:
            reply = get(port)
        except NoAnswer as error:
            last = str(error)
        else:
            if reply == Reply(200, BODY):
                return
            last = f"status {reply.status}, {len(reply.body)} characters"
        time.sleep(0.05)
    raise Unavailable(f"did not serve the backend's body within {START_SECONDS:.0f} s: {last}")


def check_serving(process: Process, port: int) -> None:
    """One request now; raises `Unavailable` unless the backend's body comes back."""
    process.check_alive()
    reply = get(port)
    if reply != Reply(200, BODY):
        raise Unavailable(f"answered {reply.status} with {len(reply.body)} characters")


def observe(port: int) -> Behaviour:
    """Finds out whether the proxy routes and which headers it adds."""
    stranger = get(port, host="other.example.com").status
    elsewhere = get(port, path=f"{PREFIX}x").status
    told = dict(line.split("=", 1) for line in get(port, path=FORWARDED_PATH).body.splitlines() if "=" in line)
    return Behaviour(
        routes=stranger != 200 and elsewhere != 200,
        forwarded=tuple(name for name in FORWARDED_HEADERS if told.get(name)),
        plugin=bool(told.get("plugin")),
    )
