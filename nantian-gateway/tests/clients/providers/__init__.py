"""Fake providers as servers, each of which speaks one dialect and takes nothing else.

What they answer depends on the last text of the user, see `Provider.scene`.
"""

import http.server
import threading

from rules import Refusal

from .anthropic import Anthropic
from .bedrock import Bedrock
from .facts import DOES_NOT_THINK, MODELS, THOUGHTLESS
from .gemini import Gemini
from .ollama import Ollama
from .openai import DeepSeek, Mistral, OpenAi
from .responses import Responses

DIALECTS = {"openai": OpenAi, "openai-responses": Responses, "anthropic": Anthropic, "bedrock": Bedrock, "gemini": Gemini,
            "ollama": Ollama}
# Who speaks a dialect by rules of its own, or of another model.
PROFILES = {"claude-opus": ("anthropic", Anthropic), "deepseek": ("openai", DeepSeek), "mistral": ("openai", Mistral)}


class Overloaded:
    """A provider that takes what it would take and then has no room: told by a status, or as the first event of a stream."""

    def scene(self, body):
        self.asked.set()
        if self.streams(body):
            return self.stream([self.error_event("no room")])
        return self.json(503, self.error("overloaded_error", "no room"))


class Thoughtless:
    """Ollama with a model that does not think: a wish for it is refused, however it is put."""

    def check(self, body):
        if body.get("think"):
            raise Refusal(f'"{self.model}" {DOES_NOT_THINK}')
        super().check(body)


def start_thoughtless():
    """Serves a model at Ollama that does not think on a free port."""
    return serve("ollama", (Thoughtless, DIALECTS["ollama"]), {"model": THOUGHTLESS})


def start(dialect):
    """Serves a dialect on a free port; gives the port and the event of a client that went away."""
    gone = threading.Event()
    gone.waiting = threading.Event()
    return serve(dialect, (DIALECTS[dialect],), {"gone": gone}), gone


def start_profile(profile):
    """Serves a profile on a free port."""
    return serve(profile, (PROFILES[profile][1],), {})


def start_overloaded(dialect):
    """Serves a dialect that has no room on a free port; gives the port and the event of a request."""
    asked = threading.Event()
    return serve(dialect, (Overloaded, DIALECTS[dialect]), {"asked": asked}), asked


def serve(dialect, bases, members):
    handler = type(dialect, bases, {"model": MODELS[dialect], **members})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port
