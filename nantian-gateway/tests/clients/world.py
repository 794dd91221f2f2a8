"""The gateway and the fake providers that it asks."""

import contextlib
import http.client
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import providers
from providers import DIALECTS, PROFILES
from providers.facts import ACCOUNT, KEY, MODELS, REGION, THOUGHTLESS

GATEWAY = pathlib.Path(__file__).resolve().parents[3] / "target/debug/nantian-gateway"
PATIENCE = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def manifests(port, world):
    ports = world.ports
    yield f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: nantian}}
spec: {{controllerName: gateway.nantian.dev/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gateway, namespace: demo}}
spec:
  gatewayClassName: nantian
  addresses: [{{type: IPAddress, value: 127.0.0.1}}]
  listeners: [{{name: http, protocol: HTTP, port: {port}}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: key, namespace: demo}}
stringData: {{token: {KEY}, account: "{ACCOUNT}:{KEY}"}}
"""
    for dialect, upstream in ports.items():
        yield service(dialect, dialect, upstream)
        yield service(f"{dialect}-overloaded", dialect, world.overloaded[dialect])
        yield route(dialect, f"{{group: gateway.nantian.dev, kind: AIService, name: {dialect}}}")
        for first in ports:
            yield route(f"{first}-else-{dialect}", f"""
        {{group: gateway.nantian.dev, kind: AIService, name: {first}-overloaded}},
        {{group: gateway.nantian.dev, kind: AIService, name: {dialect}}}""")
    for profile, upstream in world.profiles.items():
        dialect, _ = PROFILES[profile]
        yield service(profile, dialect, upstream, MODELS[profile], "anthropic" if dialect == "anthropic" else profile)
        yield route(profile, f"{{group: gateway.nantian.dev, kind: AIService, name: {profile}}}")
    yield service("thoughtless", "ollama", world.thoughtless, THOUGHTLESS)
    yield route("thoughtless", "{group: gateway.nantian.dev, kind: AIService, name: thoughtless}")


def service(name, dialect, upstream, model=None, provider=None):
    prefix = {"ollama": "api", "gemini": "v1beta", "bedrock": ""}.get(dialect, "v1")
    auth = {"anthropic": "apiKey", "gemini": "apiKey", "bedrock": "aws"}.get(dialect, "bearer")
    # OpenAI itself would be asked in the newer dialect where a client speaks it.
    provider = provider or {"openai": "fake", "openai-responses": "openai"}.get(dialect, dialect)
    entry, region = ("account", f"\n  region: {REGION}") if auth == "aws" else ("token", "")
    return f"""
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: {name}, namespace: demo}}
spec:
  provider: {provider}
  format: {dialect}
  model: "{model or MODELS[dialect]}"
  endpoint: http://127.0.0.1:{upstream}/{prefix}{region}
  auth: {{type: {auth}, secret: key, key: {entry}}}
"""


def route(name, backends):
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: demo}}
spec:
  parentRefs: [{{name: gateway}}]
  rules:
    - matches: [{{path: {{type: PathPrefix, value: /{name}}}}}]
      backendRefs: [{backends}]
"""


def wait_until_ready(admin):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("the gateway is not ready")


class World:
    """The providers, and what becomes known of them: whose clients went away, and which of those without room were asked."""

    def __init__(self):
        servers = {dialect: providers.start(dialect) for dialect in DIALECTS}
        overloaded = {dialect: providers.start_overloaded(dialect) for dialect in DIALECTS}
        self.ports = {dialect: port for dialect, (port, _) in servers.items()}
        self.gone = {dialect: gone for dialect, (_, gone) in servers.items()}
        self.profiles = {profile: providers.start_profile(profile) for profile in PROFILES}
        self.thoughtless = providers.start_thoughtless()
        self.overloaded = {dialect: port for dialect, (port, _) in overloaded.items()}
        self.asked = {dialect: asked for dialect, (_, asked) in overloaded.items()}


@contextlib.contextmanager
def gateway(world):
    """Runs the gateway before these providers; gives its address."""
    port, admin = free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory:
        text = "\n---\n".join(manifests(port, world))
        pathlib.Path(directory, "world.yaml").write_text(text)
        process = subprocess.Popen([GATEWAY, "run", "--manifests", directory, "--feature-gates", "AllAlpha=true",
                                    "--admin-addr", f"127.0.0.1:{admin}", "--log-level", "warn"])
        try:
            wait_until_ready(admin)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
