"""Calls by wrk, and what they say of latency and of a stream's cost."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import ai, load, machine
from harness.load import Spoiled, Summary
from harness.process import Process


@dataclass(frozen=True)
class Contestant:
    """A call and the server that answers it."""

    call: ai.Call
    process: Process
    port: int
    provider_port: int

    def drive(self, wrk: str, folder: Path, seconds: int, core: int, at_once: int = 1) -> Summary:
        """Calls for some seconds, so many at a time, each after the last one on its connection."""
        script = folder / f"{self.process.name}-{self.call.name}.lua".replace(" ", "-")
        script.write_text(_script(self.call, self.provider_port))
        command = [
            *("taskset", "--cpu-list", str(core), wrk, "--threads", "1", "--connections", str(at_once)),
            *("--duration", f"{seconds}s", "--timeout", "5s", "--latency", "--script", str(script)),
            f"http://127.0.0.1:{self.port}{self.call.path}",
        ]
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 20, check=False
        )
        summary = load.parse(ended.stdout + ended.stderr)
        errors = {kind: count for kind, count in summary.errors.items() if count}
        if errors or summary.requests == 0:
            raise Spoiled(f"{summary.requests} calls answered, errors: {errors or 'none'}")
        self.process.check_alive()
        return summary

    def events_per_core_second(self, wrk: str, folder: Path, seconds: int, core: int) -> float:
        """Events of streams that a second of the server's CPU time carries."""
        before = self.process.cpu_time()
        summary = self.drive(wrk, folder, seconds, core)
        used = self.process.cpu_time() - before
        return summary.requests * ai.EVENTS / max(used.total, machine.TICK)


def _script(call: ai.Call, provider_port: int) -> str:
    lines = ['wrk.method = "POST"', f"wrk.body = {json.dumps(call.body)}"]
    lines += [
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}"
        for name, value in call.header_fields(provider_port).items()
    ]
    return "\n".join([*lines, load.SCRIPT.read_text()])
