"""Conversations of several questions and several steps each, with tools, as real libraries hold them.

A library is a class: made for an address, it is asked one question after the other and keeps what was said between them. It is
told whether to have the model think, and whether to have answers streamed.
"""

import asyncio
import json

import anthropic
import ollama
import openai
from openai.types.chat import ChatCompletionMessage

from providers.facts import DEGREES
from sdks import PARAMETERS

SYSTEM = "Be brief."
# What the model answers at last; see `providers.facts.CONVERSATION`.
ANSWERS = {"Which is warmest?": "Rome is warmest", "And Lima?": "Lima is cooler"}
NAME, DESCRIPTION = "get_weather", "Weather"
BUDGET = {"type": "enabled", "budget_tokens": 2000}


def get_weather(city: str) -> str:
    """Weather

    Args:
        city: whose weather
    """
    return DEGREES[city]


class Library:
    """What all have in common. The model is one that the route does not know."""

    can_be_interrupted = False

    def __init__(self, base, thinks, streams):
        self.base, self.thinks, self.streams = base, thinks, streams
        self.begin()

    def begin(self):
        self.said = []


class Sdk(Library):
    """A package that asks what it is told to. It loops here."""

    can_be_interrupted = True

    async def ask(self, question):
        """Asks until there is an answer, and runs the tools on the way."""
        self.said.append({"role": "user", "content": question})
        while (answer := await self.step()) is None:
            pass
        return answer

    async def begin_to_ask(self, question):
        """Asks once, runs the tools, and then waits for the user to say something else."""
        self.said.append({"role": "user", "content": question})
        await self.step()

    async def step(self):
        """Asks once: the answer, or nothing where there are results of tools to be told."""
        answer = await asyncio.to_thread(self.answer)
        self.said += self.kept(answer)
        results = self.results(answer)
        self.said += results
        return None if results else self.text(answer)


class OpenAi(Sdk):
    """The `openai` package."""

    def begin(self):
        self.said = [{"role": "system", "content": SYSTEM}]
        self.client = openai.OpenAI(base_url=f"{self.base}/v1", api_key="of-the-client", max_retries=0, timeout=20)

    def answer(self):
        function = {"name": NAME, "description": DESCRIPTION, "parameters": PARAMETERS}
        options = {"model": "any", "messages": self.said, "tools": [{"type": "function", "function": function}],
                   **({"reasoning_effort": "high"} if self.thinks else {})}
        if not self.streams:
            return self.client.chat.completions.create(**options).choices[0].message
        with self.client.chat.completions.stream(**options) as stream:
            message = stream.get_final_completion().choices[0].message.to_dict(exclude_none=True)
        message.pop("parsed", None)
        for call in message.get("tool_calls", ()):
            call.pop("index", None)
            call["function"].pop("parsed_arguments", None)
        return ChatCompletionMessage.model_validate(message)

    def kept(self, message):
        return [message]

    def results(self, message):
        return [{"role": "tool", "tool_call_id": call.id, "content": get_weather(**json.loads(call.function.arguments))}
                for call in message.tool_calls or ()]

    def text(self, message):
        return message.content


class Responses(Sdk):
    """The `openai` package, by its newer API."""

    def begin(self):
        self.said = []
        self.client = openai.OpenAI(base_url=f"{self.base}/v1", api_key="of-the-client", max_retries=0, timeout=20)

    def answer(self):
        tool = {"type": "function", "name": NAME, "description": DESCRIPTION, "parameters": PARAMETERS, "strict": False}
        options = {"model": "any", "input": self.said, "instructions": SYSTEM, "tools": [tool], "store": False}
        if self.thinks:
            options |= {"reasoning": {"effort": "high", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
        if not self.streams:
            return self.client.responses.create(**options)
        with self.client.responses.stream(**options) as stream:
            return stream.get_final_response()

    def kept(self, response):
        return response.output

    def results(self, response):
        return [{"type": "function_call_output", "call_id": item.call_id, "output": get_weather(**json.loads(item.arguments))}
                for item in response.output if item.type == "function_call"]

    def text(self, response):
        return response.output_text


class Anthropic(Sdk):
    """The `anthropic` package."""

    def begin(self):
        self.said = []
        self.client = anthropic.Anthropic(base_url=self.base, api_key="of-the-client", max_retries=0, timeout=20)

    def answer(self):
        tool = {"name": NAME, "description": DESCRIPTION, "input_schema": PARAMETERS}
        # A user's id as long as that of Claude Code.
        options = {"model": "any", "max_tokens": 4000, "messages": self.said, "system": SYSTEM, "tools": [tool],
                   "metadata": {"user_id": "u" * 150},
                   **({"thinking": BUDGET} if self.thinks else {})}
        if not self.streams:
            return self.client.messages.create(**options)
        with self.client.messages.stream(**options) as stream:
            return stream.get_final_message()

    def kept(self, message):
        return [{"role": "assistant", "content": message.content}]

    def results(self, message):
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": get_weather(**block.input)}
                   for block in message.content if block.type == "tool_use"]
        return [{"role": "user", "content": results}] if results else []

    def text(self, message):
        return "".join(block.text for block in message.content if block.type == "text")


class Ollama(Sdk):
    """The `ollama` package."""

    def begin(self):
        self.said = [{"role": "system", "content": SYSTEM}]
        self.client = ollama.Client(host=self.base, timeout=20)

    def answer(self):
        options = {"model": "any", "messages": self.said, "tools": [get_weather], **({"think": True} if self.thinks else {})}
        if not self.streams:
            return self.client.chat(**options).message
        parts = [part.message for part in self.client.chat(**options, stream=True)]
        return ollama.Message(
            role="assistant", content="".join(part.content or "" for part in parts),
            thinking="".join(part.thinking or "" for part in parts) or None,
            tool_calls=[call for part in parts for call in part.tool_calls or ()] or None)

    def kept(self, message):
        return [message]

    def results(self, message):
        return [{"role": "tool", "tool_name": call.function.name, "content": get_weather(**call.function.arguments)}
                for call in message.tool_calls or ()]

    def text(self, message):
        return message.content


SDKS = {"openai": OpenAi, "openai-responses": Responses, "anthropic": Anthropic, "ollama": Ollama}
