"""Real clients, unmodified, against the gateway and fake providers of every dialect: prints what works, fails if anything
does not. One table is of what packages ask, one of conversations that they and agents hold.

    target/tools/clients/bin/python nantian-gateway/tests/clients/matrix.py
"""

import asyncio
import itertools
import sys

import anthropic
import ollama
import openai

from conversations import ANSWERS, SDKS
from frameworks import FRAMEWORKS
from providers import DIALECTS, PROFILES
from providers.facts import DOES_NOT_THINK, GUESS
from sdks import CLIENTS, Ollama, OpenAi, fails_with
from world import PATIENCE, World, gateway

FEATURES = ["chat", "stream", "tool_calls", "streamed_tool_calls", "reasoning", "picture", "structured", "error", "broken_stream",
            "cut_stream", "disconnect", "embeddings", "failover", "thoughtless"]
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


# Conversations: whether the model is to think, and whether its answers are streamed.
WAYS = {"whole": (False, False), "streamed": (False, True), "thinking": (True, False), "thinking, streamed": (True, True),
        "interrupted": (False, False), "thinking, interrupted": (True, False)}
LIBRARIES = {**SDKS, **FRAMEWORKS}
# Those that keep nothing of what a model has thought, or not in a form that tells all, by whose models that matters to.
# The conversation goes on without.
THINKING, ALWAYS = {way for way, (thinks, _) in WAYS.items() if thinks}, {*WAYS}
OF_CHAT = {"openai-responses": THINKING, "claude-opus": THINKING, "ollama": THINKING, "gemini": ALWAYS, "deepseek": ALWAYS}
FORGETFUL = {
    "ollama": {"gemini": ALWAYS, "claude-opus": THINKING},
    "openai-agents": OF_CHAT,
    "pydantic-ai": {"openai-responses": THINKING, "claude-opus": THINKING},
    "langchain": OF_CHAT,
    "langchain (ollama)": {"gemini": ALWAYS, "claude-opus": THINKING, "deepseek": ALWAYS - THINKING},
}


# Only Anthropic keeps threads, and none of a request that has to be said anew for its model.
THREAD = "anthropic (thread)"
WITHOUT_THREADS = {**dict.fromkeys([*DIALECTS, *PROFILES], ALWAYS), "anthropic": {}, "claude-opus": THINKING}


async def converse(base, library, provider, way):
    """What the table says of a conversation that comes to its end."""
    talk = LIBRARIES[library](f"{base}/{provider}", *WAYS[way])
    questions, guessed = [*ANSWERS.items()], False
    if way.endswith("interrupted"):
        if not talk.can_be_interrupted:
            return "-"
        await talk.begin_to_ask(questions.pop(0)[0])
    if library == THREAD and way in WITHOUT_THREADS[provider]:
        return await keeps_no_thread(talk, questions[0][0])
    for question, expected in questions:
        answer = await talk.ask(question)
        guessed = guessed or answer == expected + GUESS
        assert answer.removesuffix(GUESS) == expected, f"{answer!r} instead of {expected!r}"
    forgets = way in FORGETFUL.get(library, {}).get(provider, ())
    assert guessed == forgets, "the model is told of its thoughts" if forgets else "the model is not told of its thoughts"
    return "forgets" if forgets else "ok"


async def keeps_no_thread(talk, question):
    """Whether a thread is refused as the package knows it, and by which its tool runner goes on without."""
    try:
        await talk.ask(question)
    except anthropic.BadRequestError as error:
        assert error.body["error"]["details"]["error_code"] == "thread_unsupported_request", error
        return "refused"
    raise AssertionError("no error")


async def hold_conversations(base):
    """Every cell of the second table, some at a time."""
    room = asyncio.Semaphore(8)

    async def cell(*place):
        try:
            async with room:
                return *place, await asyncio.wait_for(converse(base, *place), PATIENCE), None
        except Exception as error:  # whatever it is belongs into the table
            return *place, "FAILS", f"{type(error).__name__}: {error}"

    places = itertools.product(LIBRARIES, [*DIALECTS, *PROFILES], WAYS)
    return await asyncio.gather(*(cell(*place) for place in places))


def main():
    world = World()
    with gateway(world) as base:
        cells = list(run(base, world))
        conversations = asyncio.run(hold_conversations(base))
    show("client → provider", FEATURES, cells)
    show("conversation → provider", WAYS, conversations)
    failed = [f"{' '.join(cell)}: {fault}" for *cell, _, fault in [*cells, *conversations] if fault]
    if failed:
        sys.exit("\n".join(failed))
    print(f"{len(cells) + len(conversations)} cells hold")


def show(title, columns, cells):
    marks = {cell[:3]: cell[3] for cell in cells}
    width = max(map(len, columns)) + 2
    print(f"{title:46}" + "".join(f"{column:{width}}" for column in columns))
    for client, provider in dict.fromkeys(cell[:2] for cell in cells):
        row = [marks[client, provider, column] for column in columns]
        print(f"{client + ' → ' + provider:46}" + "".join(f"{mark:{width}}" for mark in row))
    print()


if __name__ == "__main__":
    main()
