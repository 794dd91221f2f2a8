"""Real clients, unmodified, against the gateway and fake providers of every dialect: prints what works, fails if anything
does not.

    target/tools/clients/bin/python nantian-gateway/tests/clients/matrix.py
"""

import sys

import ollama
import openai

from providers import DIALECTS
from providers.facts import DOES_NOT_THINK
from sdks import CLIENTS, Ollama, OpenAi, fails_with
from world import World, gateway

FEATURES = ["chat", "stream", "tool_calls", "streamed_tool_calls", "reasoning", "picture", "structured", "error", "broken_stream",
            "disconnect", "embeddings", "failover", "thoughtless"]
# What is asked of a provider that stands in for another one.
STANDING_IN = ["chat", "stream", "tool_calls", "streamed_tool_calls", "reasoning", "structured"]
# Providers that make none, or not with this model, with what a refusal says; and what it is for each client that can ask.
WITHOUT_EMBEDDINGS = {"anthropic": "cannot be asked of a provider that speaks", "bedrock": "whose form of embeddings is known"}
REFUSED = {OpenAi: openai.BadRequestError, Ollama: ollama.ResponseError}


def check(feature, reach, dialect, world):
    """What the table says of a cell that holds; `reach` makes a client of the route of a name."""
    client = reach(dialect)
    if feature == "disconnect":
        gone = world.gone[dialect]
        gone.clear()
        client.leave()
        assert gone.wait(5), "the provider was not told that the client is gone"
    elif feature == "failover":
        for first, asked in world.asked.items():
            stands_in(reach(f"{first}-else-{dialect}"), first, asked)
    elif feature == "thoughtless":
        return does_without(reach, dialect)
    elif not hasattr(client, feature):
        return "-"
    elif feature == "embeddings" and dialect in WITHOUT_EMBEDDINGS:
        fails_with(REFUSED[type(client)], 400, WITHOUT_EMBEDDINGS[dialect], client.embeddings)
        return "refused"
    else:
        getattr(client, feature)()
    return "ok"


def stands_in(client, first, asked):
    """Whether a client gets all it asks for where the first provider has no room, whichever dialect that speaks."""
    client.model = f"{first}-overloaded"
    for feature in STANDING_IN:
        asked.clear()
        try:
            getattr(client, feature)()
        except Exception as error:
            raise AssertionError(f"{feature} in place of {first}: {type(error).__name__}: {error}") from error
        assert asked.is_set(), f"{feature}: {first} was not asked"


def does_without(reach, dialect):
    """Whether a client that asks for thinking is served by a model at Ollama that does not think. Its own clients ask it themselves."""
    if dialect != "ollama":
        return "-"
    client = reach("thoughtless")
    if isinstance(client, Ollama):
        fails_with(ollama.ResponseError, 400, DOES_NOT_THINK, client.reasoning)
        return "refused"
    client.reasoning()
    return "ok"


def run(base, world):
    """Every cell of the table: its mark, and what is wrong if anything is."""
    for client_name, client in CLIENTS.items():
        for dialect in DIALECTS:
            def reach(route, client=client):
                return client(f"{base}/{route}")

            for feature in FEATURES:
                try:
                    yield client_name, dialect, feature, check(feature, reach, dialect, world), None
                except Exception as error:  # whatever it is belongs into the table
                    yield client_name, dialect, feature, "FAILS", f"{type(error).__name__}: {error}"


def main():
    world = World()
    with gateway(world) as base:
        cells = list(run(base, world))
    show(cells)


def show(cells):
    marks = {cell[:3]: cell[3] for cell in cells}
    width = max(map(len, FEATURES)) + 2
    print(f"{'client → provider':36}" + "".join(f"{feature:{width}}" for feature in FEATURES))
    for client in CLIENTS:
        for dialect in DIALECTS:
            row = [marks[client, dialect, feature] for feature in FEATURES]
            print(f"{client + ' → ' + dialect:36}" + "".join(f"{mark:{width}}" for mark in row))
    failed = [f"{' '.join(cell)}: {fault}" for *cell, _, fault in cells if fault]
    if failed:
        sys.exit("\n".join(failed))
    print(f"{len(cells)} cells hold")


if __name__ == "__main__":
    main()
