"""The proxies that are compared: where their binary is, how they are configured and started."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import job, setup
from harness.process import Process, Unavailable

TEMPLATES = setup.BENCH / "peers"
VERSION = re.compile(r"\d+\.\d+\.\d+[^\s/]*")
PLACEHOLDER = re.compile(r"@([A-Z_]+)@")


@dataclass(frozen=True)
class Place:
    """Where a server lives during the run: its folder and its ports on the loopback."""

    folder: Path
    listen_port: int
    backend_port: int
    admin_port: int

    @property
    def log(self) -> Path:
        """Beside the folder: a server that watches its configuration must not see its own log grow there."""
        return self.folder.with_suffix(".log")

    def values(self) -> dict[str, str]:
        """What the placeholders of a template stand for."""
        return {
            "DIR": str(self.folder),
            "LISTEN_PORT": str(self.listen_port),
            "BACKEND_PORT": str(self.backend_port),
            "HOST": job.HOST,
            "PREFIX": job.PREFIX,
            "FORWARDED_PATH": job.FORWARDED_PATH,
            "BODY": job.BODY,
        }


@dataclass(frozen=True)
class Peer:
    """A server the bench can start."""

    name: str
    binary: Callable[[], Path | None]
    how_to_get: str
    version: Callable[[Path], str]
    command: Callable[[Path, Place], list[str]]

    def start(self, place: Place, core: int) -> Process:
        """Writes the configuration and starts the server pinned to `core`."""
        render(TEMPLATES / self.name, place)
        return Process(self.name, self.command(self.found(), place), core, place.log)

    def found(self) -> Path:
        """The binary; raises `Unavailable` with the command that brings it."""
        binary = self.binary()
        if binary is None:
            raise Unavailable(f"not found; {self.how_to_get}")
        return binary


def render(templates: Path, place: Place) -> None:
    """Copies the templates of a server into its folder, placeholders filled in."""
    place.folder.mkdir(parents=True)
    place.folder.chmod(0o755)  # nginx drops root before it writes here
    if not templates.is_dir():
        return  # configured by its command line alone
    values = place.values()
    for template in templates.iterdir():
        text = PLACEHOLDER.sub(lambda found: values[found[1]], template.read_text())
        (place.folder / template.name).write_text(text)


def asked(argument: str) -> Callable[[Path], str]:
    """The version number a binary prints when it is asked with `argument`."""

    def ask(binary: Path) -> str:
        answer = subprocess.run(
            [binary, argument], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        )
        found = VERSION.search(answer.stdout + answer.stderr)
        return found[0] if found else "version unknown"

    return ask


def on_path(name: str) -> Callable[[], Path | None]:
    """Looks a system binary up, also where Debian keeps those of administrators."""

    def look() -> Path | None:
        found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
        return Path(found) if found else None

    return look


def nginx(binary: Path, place: Place) -> list[str]:
    config = place.folder / "nginx.conf"
    return [str(binary), "-p", str(place.folder), "-e", str(place.folder / "error.log"), "-c", str(config)]


def haproxy(binary: Path, place: Place) -> list[str]:
    return [str(binary), "-db", "-f", str(place.folder / "haproxy.cfg")]


def envoy(binary: Path, place: Place) -> list[str]:
    config = place.folder / "envoy.yaml"
    return [str(binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def hyper_proxy(binary: Path, place: Place) -> list[str]:
    return [str(binary), f"127.0.0.1:{place.listen_port}", f"127.0.0.1:{place.backend_port}"]


def nantian(binary: Path, place: Place) -> list[str]:
    admin = f"127.0.0.1:{place.admin_port}"
    return [str(binary), "run", "--manifests", str(place.folder), "--workers", "1", "--admin-addr", admin]


BACKEND = Peer("backend", on_path("nginx"), setup.INSTALL_HINT, asked("-v"), nginx)

PROXIES = (
    Peer("nginx", on_path("nginx"), setup.INSTALL_HINT, asked("-v"), nginx),
    Peer("haproxy", on_path("haproxy"), setup.INSTALL_HINT, asked("-v"), haproxy),
    Peer("envoy", setup.envoy, setup.INSTALL_HINT, asked("--version"), envoy),
    Peer("hyper-proxy", setup.hyper_proxy, setup.BUILD_HINT, setup.build_time, hyper_proxy),
    Peer("nantian", setup.gateway, setup.BUILD_HINT, setup.build_time, nantian),
)
