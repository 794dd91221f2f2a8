"""From rounds to a table and a file."""

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from harness import job
from harness.load import Round

COLUMNS = ("proxy", "req/s", "p50 ms", "p99 ms", "CPU µs/req", "spread", "user", "sys", "core", "x envoy", "x nginx")
PLUGIN = "+plugin"
"""What the names of servers end with whose requests pass through the plugin."""
SHARED_CORE = 0.05
"""Above this share of foreign work on the proxies' core a run is called noisy."""
FULL_CORE = 0.9
"""Below this share a core counts as waiting for work."""


@dataclass
class Result:
    """What is known of one server at the end: rounds, or the reason why there are none."""

    name: str
    version: str = ""
    behaviour: job.Behaviour | None = None
    rounds: list[Round] = field(default_factory=list)
    problem: str = ""
    broke: bool = False
    """True when the server was serving and then failed, false when it never served."""

    @property
    def measured(self) -> bool:
        return bool(self.rounds) and not self.problem

    def median(self, what: str) -> float:
        """The median over the rounds of one field of `Round`."""
        return median(getattr(one, what) for one in self.rounds)

    def spread(self) -> tuple[float, float]:
        """The cheapest and the dearest round in CPU µs per request."""
        costs = [one.cpu_us for one in self.rounds]
        return min(costs), max(costs)


def ratio(of: Result, to: str, results: list[Result]) -> float | None:
    """CPU per request of one server over that of the server called `to`, both medians."""
    for other in results:
        if other.name == to and other.measured and of.measured and other.median("cpu_us") > 0:
            return of.median("cpu_us") / other.median("cpu_us")
    return None


def added(name: str, results: list[Result]) -> float | None:
    """CPU µs per request that the plugin adds to a server: the median with it less the median without it."""
    by_name = {result.name: result for result in results if result.measured}
    without, with_ = by_name.get(name), by_name.get(f"{name}{PLUGIN}")
    return with_.median("cpu_us") - without.median("cpu_us") if without and with_ else None


def table(results: list[Result]) -> str:
    """The measured servers, one a line."""
    rows = [COLUMNS, *(_row(result, results) for result in results if result.measured)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def remarks(results: list[Result]) -> list[str]:
    """What a reader has to know before believing the table."""
    said = []
    for result in results:
        if result.problem:
            said.append(f"{result.name}: {'FAILED' if result.broke else 'skipped'}: {result.problem}")
        elif result.behaviour and (missing := result.behaviour.missing()):
            said.append(f"{result.name}: does not do the whole job: without {', '.join(missing)}")
    measured = [result for result in results if result.measured]
    proxies = [result for result in measured if result.behaviour]
    noisy = max((result.median("others_share") for result in proxies), default=0.0)
    if noisy > SHARED_CORE:
        said.append(f"NOISE: other work took up to {noisy:.0%} of the proxies' core; use a quiet machine for numbers")
    limited = [
        result.name
        for result in proxies
        if result.median("server_share") + result.median("others_share") < FULL_CORE
    ]
    if limited:
        names = ", ".join(limited)
        said.append(f"req/s and latency of {names} show the load side's limit, not theirs: their core was not full")
    return said


def document(results: list[Result], host: dict[str, object], options: dict[str, object]) -> dict[str, object]:
    """Everything that was measured, for machines."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": host,
        "options": options,
        "results": [_as_json(result, results) for result in results],
        "remarks": remarks(results),
    }


def write(folder: Path, found: dict[str, object]) -> Path:
    """Keeps the run under its time, and as latest.json."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=2) + "\n"
    path = folder / f"{str(found['time']).replace(':', '')}.json"
    path.write_text(text)
    (folder / "latest.json").write_text(text)
    return path


def _row(result: Result, results: list[Result]) -> tuple[str, ...]:
    def times(to: str) -> str:
        found = ratio(result, to, results)
        return "-" if found is None else f"{found:.2f}"

    low, high = result.spread()
    return (
        result.name,
        f"{result.median('requests_per_second'):.0f}",
        f"{result.median('p50_us') / 1000:.2f}",
        f"{result.median('p99_us') / 1000:.2f}",
        f"{result.median('cpu_us'):.1f}",
        f"{low:.1f}-{high:.1f}",
        f"{result.median('user_us'):.1f}",
        f"{result.median('system_us'):.1f}",
        f"{result.median('server_share'):.0%}",
        times("envoy"),
        times("nginx"),
    )


def _as_json(result: Result, results: list[Result]) -> dict[str, object]:
    found: dict[str, object] = {"name": result.name, "version": result.version, "problem": result.problem or None}
    if result.behaviour:
        found["behaviour"] = dataclasses.asdict(result.behaviour)
    if result.measured:
        found["median"] = {key.name: result.median(key.name) for key in dataclasses.fields(Round)}
        found["cpu_ratio"] = {to: ratio(result, to, results) for to in ("envoy", "nginx")}
    found["rounds"] = [dataclasses.asdict(one) for one in result.rounds]
    return found
