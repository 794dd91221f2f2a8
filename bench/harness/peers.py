"""The proxies that are compared: where their binary is, how they are configured and started."""

import base64
import functools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness import job, report, setup
from harness.process import Process, Unavailable

TEMPLATES = setup.BENCH / "peers"
VERSION = re.compile(r"\d+\.\d+\.\d+[^\s/]*")
NO_PLUGIN = {"PLUGIN_FILTER": ""}
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
            "PLUGIN_CONFIG": json.dumps(job.PLUGIN_CONFIG),
        }


@dataclass(frozen=True)
class Peer:
    """A server the bench can start."""

    name: str
    binary: Callable[[], Path | None]
    how_to_get: str
    version: Callable[[Path], str]
    command: Callable[[Path, Place], list[str]]
    templates: tuple[str, ...] = ()
    """Folders of templates; empty is the one of its name, if there is one."""
    plugin: bool = False
    """Every request passes through the Wasm plugin."""

    def start(self, place: Place, core: int) -> Process:
        """Writes the configuration and starts the server pinned to `core`."""
        self.configure(place)
        return Process(self.name, self.command(self.found(), place), core, place.log)

    def configure(self, place: Place) -> None:
        """Copies the templates into the folder of the server, placeholders filled in."""
        place.folder.mkdir(parents=True)
        place.folder.chmod(0o755)  # nginx drops root before it writes here
        values = place.values() | (plugin(place.folder.with_suffix(".wasm")) if self.plugin else NO_PLUGIN)
        for folder in self.templates or (self.name,):
            if not (TEMPLATES / folder).is_dir():
                continue  # configured by its command line alone
            for template in (TEMPLATES / folder).iterdir():
                text = PLACEHOLDER.sub(lambda found: values[found[1]], template.read_text())
                (place.folder / template.name).write_text(text)

    def found(self) -> Path:
        """The binary; raises `Unavailable` with the command that brings it."""
        binary = self.binary()
        if binary is None:
            raise Unavailable(f"not found; {self.how_to_get}")
        return binary


@functools.cache
def module() -> bytes:
    """The plugin as Wasm; raises `Unavailable` without wabt."""
    if not shutil.which("wat2wasm"):
        raise Unavailable(f"wat2wasm not found; {setup.INSTALL_HINT}")
    command = ["wat2wasm", "--output=-", str(setup.PLUGIN)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True).stdout


def plugin(file: Path) -> dict[str, str]:
    """What stands for the plugin in templates: the module itself for the gateway, one more filter for Envoy."""
    file.write_bytes(module())
    vm = {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": str(file)}}}
    text = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": job.PLUGIN_CONFIG}
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {"configuration": text, "vm_config": vm},
    }
    filter_ = {"name": "envoy.filters.http.wasm", "typed_config": config}
    return {"WASM": base64.b64encode(module()).decode(), "PLUGIN_FILTER": f"- {json.dumps(filter_)}"}


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
    options = ["--manifests", str(place.folder), "--workers", "1", "--admin-addr", admin]
    return [str(binary), "run", *options, "--feature-gates", "AllAlpha=true"]


BACKEND = Peer("backend", on_path("nginx"), setup.INSTALL_HINT, asked("-v"), nginx)

_ENVOY = Peer("envoy", setup.envoy, setup.INSTALL_HINT, asked("--version"), envoy)
_GATEWAY = Peer("nantian", setup.gateway, setup.BUILD_HINT, setup.build_time, nantian)

PROXIES = (
    Peer("nginx", on_path("nginx"), setup.INSTALL_HINT, asked("-v"), nginx),
    Peer("haproxy", on_path("haproxy"), setup.INSTALL_HINT, asked("-v"), haproxy),
    _ENVOY,
    Peer("hyper-proxy", setup.hyper_proxy, setup.BUILD_HINT, setup.build_time, hyper_proxy),
    _GATEWAY,
)

WITH_PLUGIN = (
    _ENVOY,
    replace(_ENVOY, name=f"envoy{report.PLUGIN}", templates=("envoy",), plugin=True),
    _GATEWAY,
    replace(_GATEWAY, name=f"nantian{report.PLUGIN}", templates=("nantian", "nantian-plugin"), plugin=True),
)
