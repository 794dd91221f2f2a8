"""Calls at a rate of their own, whether earlier ones are answered or not, and what became of them."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import ai
from harness.load import Spoiled

RATES = (100, 500, 1000)
"""Calls a second."""

CONNECTIONS = 64
"""More than a server that keeps up with the rates ever needs."""

KEEPS_UP = 0.95
"""The share of calls that a server which is not saturated answers before their plan ends."""


@dataclass(frozen=True)
class Outcome:
    """What became of calls that were planned at one rate."""

    planned: int
    answered: int
    """Before the plan ended."""
    seconds: int
    p50_us: int | None
    """From the planned beginning of a call; `None` where half of them were never answered."""

    @property
    def saturated(self) -> bool:
        return self.p50_us is None or self.answered < KEEPS_UP * self.planned

    @property
    def throughput(self) -> float:
        return self.answered / self.seconds


def parse(line: str, seconds: int) -> Outcome:
    """Reads what `open-loop` has printed."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        raise Spoiled(f"no summary of calls: {line.strip()[-300:]}") from None
    return Outcome(found["planned"], found["answered"], seconds, found["p50_us"])


def request(call: ai.Call, port: int, provider_port: int) -> bytes:
    """The bytes of a call."""
    body = call.body.encode()
    fields = {"Host": f"127.0.0.1:{port}", **call.header_fields(provider_port), "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {call.path} HTTP/1.1\r\n{head}\r\n".encode() + body


def drive(binary: Path, call: ai.Call, ports: tuple[int, int], plan: tuple[int, int, int], core: int) -> Outcome:
    """Calls through `ports` (the server's and the provider's) by a plan: calls a second, for how long, which seed."""
    rate, seconds, seed = plan
    command = [
        *("taskset", "--cpu-list", str(core), str(binary), f"127.0.0.1:{ports[0]}"),
        *(str(rate), str(seconds), str(CONNECTIONS), str(seed)),
    ]
    ended = subprocess.run(
        command, input=request(call, *ports), capture_output=True, timeout=seconds + 60, check=False
    )
    if ended.returncode:
        raise Spoiled(f"calls at a rate failed: {ended.stderr.decode(errors='replace').strip()[-300:]}")
    return parse(ended.stdout.decode(), seconds)
