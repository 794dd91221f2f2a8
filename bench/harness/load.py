"""One round of load by wrk, and what it cost the server."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import job, machine
from harness.process import Process

SCRIPT = Path(__file__).with_name("wrk.lua")
MARK = "wrk-summary "


class Spoiled(Exception):
    """A round whose numbers mean nothing: errors, or not the body that was asked for."""


@dataclass(frozen=True)
class Load:
    """How wrk drives: its threads, its connections, the seconds of a round, the milliseconds that each connection rests."""

    threads: int
    connections: int
    seconds: int
    pause: int | None = None


@dataclass(frozen=True)
class Summary:
    """What wrk counted."""

    requests: int
    seconds: float
    bytes: int
    p50_us: int
    p99_us: int
    errors: dict[str, int]


@dataclass(frozen=True)
class Round:
    """One round against one server. CPU in microseconds per request; shares are of one core."""

    requests: int
    requests_per_second: float
    p50_us: int
    p99_us: int
    cpu_us: float
    user_us: float
    system_us: float
    server_share: float
    """How much of a core the server used."""
    others_share: float
    """How much of the server's core was used by anything else, or taken by the hypervisor."""
    load_core_share: float
    """How busy the core of wrk and the backend was: near 1, the load side is the limit, not the server."""


def parse(output: str) -> Summary:
    """Reads the line of `wrk.lua` out of wrk's output."""
    for line in output.splitlines():
        if line.startswith(MARK):
            found = json.loads(line.removeprefix(MARK))
            return Summary(
                requests=found["requests"],
                seconds=found["duration_us"] / 1e6,
                bytes=found["bytes"],
                p50_us=found["p50_us"],
                p99_us=found["p99_us"],
                errors=found["errors"],
            )
    raise Spoiled(f"wrk gave no summary: {output.strip()[-300:]}")


def check(summary: Summary) -> None:
    """Raises `Spoiled` unless every request was answered, and with the body."""
    errors = {kind: count for kind, count in summary.errors.items() if count}
    if errors:
        raise Spoiled("wrk reported errors: " + ", ".join(f"{count} {kind}" for kind, count in errors.items()))
    if summary.requests == 0:
        raise Spoiled("no request was answered")
    if summary.bytes / summary.requests < len(job.BODY):
        raise Spoiled(f"replies of {summary.bytes / summary.requests:.0f} bytes are shorter than the backend's body")


def drive(wrk: str, port: int, load: Load, core: int) -> Summary:
    """Runs wrk once, pinned to `core`."""
    command = [
        *("taskset", "--cpu-list", str(core), wrk),
        *("--threads", str(load.threads), "--connections", str(load.connections)),
        *("--duration", f"{load.seconds}s", "--timeout", "5s", "--latency"),
        *("--script", str(SCRIPT), "--header", f"Host: {job.HOST}"),
        *("--header", f"User-Agent: {job.USER_AGENT}"),
        f"http://127.0.0.1:{port}{job.PATH}",
        *(["--", str(load.pause)] if load.pause else []),
    ]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=load.seconds + 15, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Spoiled(f"wrk did not end within {load.seconds + 15} s") from error
    summary = parse(ended.stdout + ended.stderr)
    check(summary)
    return summary


def measure(wrk: str, server: Process, port: int, load: Load, server_core: int, load_core: int) -> Round:
    """One round, with the server's CPU time and the cores' time read around it."""
    server_before = server.cpu_time()
    cores_before = machine.core_time(server_core), machine.core_time(load_core)
    summary = drive(wrk, port, load, load_core)
    used = server.cpu_time() - server_before
    server_side = machine.core_time(server_core) - cores_before[0]
    load_side = machine.core_time(load_core) - cores_before[1]
    job.check_serving(server, port)

    per_request = 1e6 / summary.requests
    return Round(
        requests=summary.requests,
        requests_per_second=summary.requests / summary.seconds,
        p50_us=summary.p50_us,
        p99_us=summary.p99_us,
        cpu_us=used.total * per_request,
        user_us=used.user * per_request,
        system_us=used.system * per_request,
        server_share=used.total / summary.seconds,
        others_share=max(0.0, server_side.busy + server_side.stolen - used.total) / summary.seconds,
        load_core_share=(load_side.busy + load_side.stolen) / summary.seconds,
    )
