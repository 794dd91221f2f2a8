"""Processes the bench starts: pinned to a core, watched, and stopped by their pid."""

import os
import signal
import subprocess
from pathlib import Path

from harness import machine


class Unavailable(Exception):
    """A peer cannot be measured here: not installed, not built, or it ended before it served."""


class Process:
    """A running server. Its whole output is in `log`."""

    def __init__(self, name: str, command: list[str], core: int, log: Path) -> None:
        self.name = name
        self.log = log
        # `setpriv` makes the kernel end the server if the bench itself is killed and cannot clean up.
        pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "--cpu-list", str(core), *command]
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                pinned,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the bench alone, which then stops its servers in order
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def check_alive(self) -> None:
        """Raises `Unavailable` with the end of the log if the process has ended."""
        status = self._child.poll()
        if status is None:
            return
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        raise Unavailable(f"{how}{self._last_words()}")

    def cpu_time(self) -> machine.CpuTime:
        return machine.cpu_time(self.pid)

    def stop(self) -> None:
        """Asks the process to end, and after five seconds ends it and the children it had."""
        if self._child.poll() is not None:
            return
        family = machine.family(self.pid)
        self._child.terminate()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            for pid in family:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self._child.wait(5)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return ": " + " | ".join(lines[-3:]) if lines else ""
