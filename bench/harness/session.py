"""One run: start everything, warm up, measure in turns, stop everything."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness import job, load, machine
from harness.load import Load
from harness.peers import BACKEND, Peer, Place
from harness.process import Process, Unavailable
from harness.report import Result

DIRECT = "direct"


@dataclass(frozen=True)
class Plan:
    """What a run does. Times in seconds."""

    wrk: str
    load: Load
    rounds: int
    warmup: int
    proxy_core: int
    load_core: int


@dataclass(frozen=True)
class Contestant:
    """A server that is up, and where its numbers go."""

    process: Process
    port: int
    core: int
    result: Result


def compare(plan: Plan, proxies: list[Peer], say: Callable[[str], None]) -> list[Result]:
    """Measures the proxies in turns, so that noise falls on all of them alike."""
    with _world(plan, len(proxies)) as (places, backend, cleanup):
        results, contestants = [], []
        for proxy, place in zip(proxies, places):
            result = Result(proxy.name)
            results.append(result)
            try:
                result.version = proxy.version(proxy.found())
                process = proxy.start(place, plan.proxy_core)
                cleanup.callback(process.stop)
                job.await_serving(process, place.listen_port)
                result.behaviour = job.observe(place.listen_port)
                if result.behaviour.plugin != proxy.plugin:
                    raise Unavailable("the plugin does not run" if proxy.plugin else "a plugin runs")
            except Unavailable as error:
                result.problem = str(error)
                continue
            say(f"{result.name}: {result.version}; {result.behaviour}")
            contestants.append(Contestant(process, place.listen_port, plan.proxy_core, result))
        _rounds(plan, contestants, say)
        backend.check_alive()
        return results


def direct(plan: Plan, say: Callable[[str], None]) -> list[Result]:
    """Measures the backend alone, beside wrk on the load core as it is under a proxy."""
    with _world(plan, 0) as (places, backend, _):
        result = Result(DIRECT, BACKEND.version(BACKEND.found()))
        say(f"{result.name}: {result.version}")
        _rounds(plan, [Contestant(backend, places[0].backend_port, plan.load_core, result)], say)
        return [result]


@contextlib.contextmanager
def _world(plan: Plan, proxies: int) -> Iterator[tuple[list[Place], Process, contextlib.ExitStack]]:
    """Folders, ports and the backend; whatever is left to `cleanup` ends with it, last started first."""
    backend_port, *ports = machine.free_ports(1 + 2 * max(proxies, 1))
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="nantian-bench-")))
        folder.chmod(0o755)
        places = [
            Place(folder / f"proxy-{number}", listen, backend_port, admin)
            for number, (listen, admin) in enumerate(zip(ports[::2], ports[1::2]))
        ]
        home = Place(folder / "backend", backend_port, backend_port, 0)
        backend = BACKEND.start(home, plan.load_core)
        cleanup.callback(backend.stop)
        job.await_serving(backend, backend_port)
        yield places, backend, cleanup


def _rounds(plan: Plan, contestants: list[Contestant], say: Callable[[str], None]) -> None:
    warming = replace(plan, load=replace(plan.load, seconds=plan.warmup))
    for contestant in contestants:
        _one_round(warming, contestant)
        contestant.result.rounds.clear()
    for number in range(1, plan.rounds + 1):
        # Every other round in reverse: no proxy always follows the same neighbour.
        for contestant in contestants if number % 2 else reversed(contestants):
            if contestant.result.problem:
                continue
            _one_round(plan, contestant)
        costs = [f"{one.result.name} {one.result.rounds[-1].cpu_us:.1f}" for one in contestants if one.result.measured]
        if not costs:
            return
        say(f"round {number}/{plan.rounds}, CPU µs per request: {', '.join(costs)}")


def _one_round(plan: Plan, one: Contestant) -> None:
    """Adds a round to the result, or the reason why there will be none."""
    try:
        try:
            found = load.measure(plan.wrk, one.process, one.port, plan.load, one.core, plan.load_core)
        except load.Spoiled:
            one.process.check_alive()  # that it ended says more than what wrk saw of it
            raise
    except (load.Spoiled, Unavailable) as error:
        one.result.problem = str(error)
        one.result.broke = True
    else:
        one.result.rounds.append(found)
