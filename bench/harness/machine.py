"""What the kernel knows: free ports, the CPU time of a process and of a core, facts about the host."""

import os
import platform
import random
import socket
import time
from dataclasses import dataclass
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
"""Resolution of the kernel's CPU accounting in seconds."""


@dataclass(frozen=True)
class CpuTime:
    """Seconds of CPU used since the process started."""

    user: float
    system: float

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, other: "CpuTime") -> "CpuTime":
        return CpuTime(self.user - other.user, self.system - other.system)


@dataclass(frozen=True)
class CoreTime:
    """Seconds a core was busy, and seconds the hypervisor took from it, since boot."""

    busy: float
    stolen: float

    def __sub__(self, other: "CoreTime") -> "CoreTime":
        return CoreTime(self.busy - other.busy, self.stolen - other.stolen)


def stat_fields(text: str) -> list[str]:
    """The fields of /proc/PID/stat that follow the command name, which may itself hold spaces and brackets."""
    return text[text.rindex(")") + 1 :].split()


def family(root: int) -> dict[int, CpuTime]:
    """The process and all its descendants that are alive, with the CPU time of all their threads."""
    parents: dict[int, int] = {}
    used: dict[int, CpuTime] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            fields = stat_fields(Path(entry.path, "stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we were looking
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        used[pid] = CpuTime(int(fields[11]) * TICK, int(fields[12]) * TICK)
    members = {root} & parents.keys()
    while grown := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= grown
    return {pid: used[pid] for pid in members}


def cpu_time(root: int) -> CpuTime:
    """The CPU time of the process and its descendants, all threads."""
    times = family(root).values()
    return CpuTime(sum(time.user for time in times), sum(time.system for time in times))


def core_time(core: int) -> CoreTime:
    """The time of one core by /proc/stat."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(tick) * TICK for tick in ticks[:8])
            return CoreTime(user + nice + system + irq + softirq, steal)
    raise LookupError(f"core {core} is not in /proc/stat")


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that are free now, below the range from which outgoing connections take theirs."""
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    below = range(max(1024, lowest_ephemeral - 12000), lowest_ephemeral)
    ports: list[int] = []
    for port in random.sample(below, len(below)):
        if len(ports) == count:
            return ports
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
    raise LookupError(f"no {count} free ports on 127.0.0.1 below {lowest_ephemeral}")


def await_listening(port: int) -> None:
    """Waits until somebody accepts connections on a port of the loopback; raises `OSError` after five seconds."""
    deadline = time.monotonic() + 5
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def facts() -> dict[str, object]:
    """What a reader needs to know of the machine to place the numbers."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].split(":", 1)[1].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_average": os.getloadavg()[0],
    }
