"""The packages of those who make the dialects, unmodified, and what each is asked to do."""

import base64
import json

import anthropic
import ollama
import openai

from providers.facts import CITIES, OPEN_SCHEMA, PERSON, PICTURE, SCHEMA, VECTORS

TEMPERATURE = {"city": {"type": "string"}}
PARAMETERS = {"type": "object", "properties": TEMPERATURE, "required": ["city"]}
RESULTS = ["3 degrees", "20 degrees"]
HELLO = "Hello wörld"
# What must be seen of a provider's 429 and of an error in the middle of a stream.
SLOW_DOWN, LATER = "slow down", "later"
# Streams that end before the answer does: by a connection that breaks, and by a body that is whole. What clients are told of them.
CUT = ("cut", "short")
BROKE_OFF = "broke off"


def is_equal(seen, expected):
    assert seen == expected, f"{seen!r} instead of {expected!r}"


def fails_with(kind, status, message, call):
    try:
        call()
    except kind as error:
        assert message in str(error), f"{error!r} does not say {message!r}"
        assert status is None or error.status_code == status, f"{error!r} is no {status}"
        return
    raise AssertionError("no error")


class Client:
    """What is asked for, whatever the package: a model that the route does not know, unless it is told otherwise."""

    model = "any"


class OpenAi(Client):
    """The `openai` package."""

    def __init__(self, base):
        self.client = openai.OpenAI(base_url=f"{base}/v1", api_key="of-the-client", max_retries=0, timeout=20)

    def ask(self, text, **options):
        return self.client.chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": text}], **options)

    def chat(self):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
        answer = self.client.chat.completions.create(model=self.model, messages=messages)
        is_equal((answer.choices[0].message.content, answer.choices[0].finish_reason), (HELLO, "stop"))
        is_equal((answer.usage.prompt_tokens, answer.usage.completion_tokens), (11, 7))

    def stream(self):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
        for told in (True, False):
            options = {"stream_options": {"include_usage": True}} if told else {}
            chunks = list(self.client.chat.completions.create(model=self.model, messages=messages, stream=True, **options))
            is_equal("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), HELLO)
            is_equal([chunk.usage.completion_tokens for chunk in chunks if chunk.usage], [7] if told else [])

    def follow_up(self, calls, **options):
        is_equal([json.loads(call.function.arguments)["city"] for call in calls], CITIES)
        is_equal(len({call.id for call in calls}), 2)
        said = {"role": "assistant", "content": None, "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments}}
            for call in calls]}
        results = [{"role": "tool", "tool_call_id": call.id, "content": result} for call, result in zip(calls, RESULTS)]
        answer = self.client.chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": "tools"}, said, *results], tools=self.tools(), **options)
        is_equal(answer.choices[0].message.content, "3 and 20")

    def tools(self):
        return [{"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": PARAMETERS}}]

    def tool_calls(self):
        answer = self.ask("tools", tools=self.tools())
        is_equal(answer.choices[0].finish_reason, "tool_calls")
        self.follow_up(answer.choices[0].message.tool_calls)

    def streamed_tool_calls(self):
        with self.client.chat.completions.stream(
                model=self.model, messages=[{"role": "user", "content": "tools"}], tools=self.tools()) as stream:
            answer = stream.get_final_completion()
        self.follow_up(answer.choices[0].message.tool_calls)

    def reasoning(self):
        # Nothing of the reasoning is given back: the package has no field for it.
        answer = self.ask("tools", tools=self.tools(), reasoning_effort="high")
        self.follow_up(answer.choices[0].message.tool_calls, reasoning_effort="high")

    def picture(self):
        content = [{"type": "text", "text": "picture"},
                   {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}]
        is_equal(self.ask(content).choices[0].message.content, "a picture")

    def structured(self):
        schema = {"name": "person", "schema": SCHEMA}
        answer = self.ask("person", response_format={"type": "json_schema", "json_schema": schema})
        is_equal(json.loads(answer.choices[0].message.content), json.loads(PERSON))

    def error(self):
        for stream in (False, True):
            fails_with(openai.RateLimitError, 429, SLOW_DOWN, lambda: self.ask("error", stream=stream))

    def broken_stream(self):
        fails_with(openai.APIError, None, LATER, lambda: list(self.ask("midway", stream=True)))

    def cut_stream(self):
        for how in CUT:
            fails_with(openai.APIError, None, BROKE_OFF, lambda: list(self.ask(how, stream=True)))

    def leave(self):
        with self.ask("endless", stream=True) as stream:
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    return


    def embeddings(self):
        # As the client asks by itself, in base64, and as numbers.
        for options in ({}, {"encoding_format": "float"}):
            answer = self.client.embeddings.create(model=self.model, input=list(VECTORS), **options)
            vectors = {item.index: list(item.embedding) for item in answer.data}
            is_equal([vectors[at] for at in range(len(VECTORS))], list(VECTORS.values()))
            is_equal(answer.usage.prompt_tokens, 5)


class Responses(Client):
    """The `openai` package, by its newer API."""

    def __init__(self, base):
        self.client = openai.OpenAI(base_url=f"{base}/v1", api_key="of-the-client", max_retries=0, timeout=20)

    def ask(self, input, **options):
        return self.client.responses.create(model=self.model, input=input, **options)

    def chat(self):
        answer = self.ask("hello", instructions="Be brief.")
        is_equal((answer.output_text, answer.status, answer.error), (HELLO, "completed", None))
        is_equal((answer.usage.input_tokens, answer.usage.output_tokens), (11, 7))

    def stream(self):
        events = list(self.ask("hello", instructions="Be brief.", stream=True))
        is_equal([event.sequence_number for event in events], list(range(len(events))))
        is_equal("".join(event.delta for event in events if event.type == "response.output_text.delta"), HELLO)
        is_equal([event.text for event in events if event.type == "response.output_text.done"], [HELLO])
        is_equal((events[0].type, events[-1].type), ("response.created", "response.completed"))
        is_equal((events[-1].response.output_text, events[-1].response.usage.output_tokens), (HELLO, 7))

    def tools(self):
        return [{"type": "function", "name": "get_weather", "description": "Weather", "parameters": PARAMETERS,
                 "strict": False}]

    def follow_up(self, answer, **options):
        calls = [item for item in answer.output if item.type == "function_call"]
        is_equal([json.loads(call.arguments)["city"] for call in calls], CITIES)
        is_equal(len({call.call_id for call in calls}), 2)
        results = [{"type": "function_call_output", "call_id": call.call_id, "output": result}
                   for call, result in zip(calls, RESULTS)]
        said = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output]
        answer = self.ask([{"role": "user", "content": "tools"}, *said, *results], tools=self.tools(), **options)
        is_equal(answer.output_text, "3 and 20")

    def tool_calls(self):
        self.follow_up(self.ask("tools", tools=self.tools()))

    def streamed_tool_calls(self):
        with self.client.responses.stream(model=self.model, input="tools", tools=self.tools()) as stream:
            self.follow_up(stream.get_final_response())

    def reasoning(self):
        options = {"reasoning": {"effort": "high", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
        self.follow_up(self.ask("tools", tools=self.tools(), **options), **options)
        with self.client.responses.stream(model=self.model, input="tools", tools=self.tools(), **options) as stream:
            self.follow_up(stream.get_final_response(), **options)

    def picture(self):
        content = [{"type": "input_text", "text": "picture"},
                   {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}", "detail": "auto"}]
        is_equal(self.ask([{"role": "user", "content": content}]).output_text, "a picture")

    def structured(self):
        format = {"type": "json_schema", "name": "person", "schema": SCHEMA}
        is_equal(json.loads(self.ask("person", text={"format": format}).output_text), json.loads(PERSON))

    def error(self):
        for stream in (False, True):
            fails_with(openai.RateLimitError, 429, SLOW_DOWN, lambda: self.ask("error", stream=stream))

    def broken_stream(self):
        try:
            last = list(self.ask("midway", stream=True))[-1]
        except openai.APIError as error:
            assert LATER in error.message, error
            return
        # Where bytes pass, the provider may tell nothing but of the answer that has failed.
        is_equal(last.type, "response.failed")
        is_equal((last.response.status, last.response.error.message), ("failed", LATER))

    def cut_stream(self):
        for how in CUT:
            fails_with(openai.APIError, None, BROKE_OFF, lambda: list(self.ask(how, stream=True)))
            with self.client.responses.stream(model=self.model, input=how) as stream:
                fails_with(openai.APIError, None, BROKE_OFF, stream.get_final_response)

    def leave(self):
        with self.ask("endless", stream=True) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    return


class Anthropic(Client):
    """The `anthropic` package."""

    def __init__(self, base):
        self.client = anthropic.Anthropic(base_url=base, api_key="of-the-client", max_retries=0, timeout=20)

    def ask(self, text, **options):
        options = {"max_tokens": 100, **options}
        return self.client.messages.create(model=self.model, messages=[{"role": "user", "content": text}], **options)

    def chat(self):
        answer = self.ask("hello", system="Be brief.")
        is_equal(([block.text for block in answer.content], answer.stop_reason), ([HELLO], "end_turn"))
        is_equal((answer.usage.input_tokens, answer.usage.output_tokens), (11, 7))

    def stream(self):
        with self.client.messages.stream(
                model=self.model, max_tokens=100, system="Be brief.", messages=[{"role": "user", "content": "hello"}]) as stream:
            is_equal("".join(stream.text_stream), HELLO)
            answer = stream.get_final_message()
        is_equal((answer.stop_reason, answer.usage.output_tokens), ("end_turn", 7))

    def tools(self):
        return [{"name": "get_weather", "description": "Weather", "input_schema": PARAMETERS}]

    def follow_up(self, answer, **options):
        is_equal(answer.stop_reason, "tool_use")
        calls = [block for block in answer.content if block.type == "tool_use"]
        is_equal([call.input["city"] for call in calls], CITIES)
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": result} for call, result in zip(calls, RESULTS)]
        messages = [{"role": "user", "content": "tools"}, {"role": "assistant", "content": answer.content},
                    {"role": "user", "content": results}]
        options = {"max_tokens": 100, **options}
        answer = self.client.messages.create(model=self.model, messages=messages, tools=self.tools(), **options)
        is_equal(answer.content[0].text, "3 and 20")

    def tool_calls(self):
        self.follow_up(self.ask("tools", tools=self.tools()))

    def streamed_tool_calls(self):
        with self.client.messages.stream(model=self.model, max_tokens=100, tools=self.tools(),
                                         messages=[{"role": "user", "content": "tools"}]) as stream:
            self.follow_up(stream.get_final_message())

    def reasoning(self):
        options = {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 2000}}
        self.follow_up(self.ask("tools", tools=self.tools(), **options), **options)
        with self.client.messages.stream(model=self.model, tools=self.tools(), **options,
                                         messages=[{"role": "user", "content": "tools"}]) as stream:
            self.follow_up(stream.get_final_message(), **options)

    def picture(self):
        source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
        answer = self.ask([{"type": "image", "source": source}, {"type": "text", "text": "picture"}])
        is_equal(answer.content[0].text, "a picture")

    def structured(self):
        answer = self.ask("person", output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
        is_equal(json.loads(answer.content[0].text), json.loads(PERSON))

    def error(self):
        for stream in (False, True):
            fails_with(anthropic.RateLimitError, 429, SLOW_DOWN, lambda: self.ask("error", stream=stream))

    def broken_stream(self):
        fails_with(anthropic.APIStatusError, None, LATER, lambda: list(self.ask("midway", stream=True)))

    def cut_stream(self):
        for how in CUT:
            fails_with(anthropic.APIStatusError, None, BROKE_OFF, lambda: list(self.ask(how, stream=True)))

    def leave(self):
        with self.ask("endless", stream=True) as stream:
            for event in stream:
                if event.type == "content_block_delta":
                    return


class Ollama(Client):
    """The `ollama` package."""

    def __init__(self, base):
        self.client = ollama.Client(host=base, timeout=20)

    def ask(self, text, **options):
        return self.client.chat(model=self.model, messages=[{"role": "user", "content": text}], **options)

    def greeting(self):
        return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]

    def chat(self):
        answer = self.client.chat(model=self.model, messages=self.greeting())
        is_equal((answer.message.content, answer.done_reason), (HELLO, "stop"))
        is_equal((answer.prompt_eval_count, answer.eval_count), (11, 7))

    def stream(self):
        parts = list(self.client.chat(model=self.model, messages=self.greeting(), stream=True))
        is_equal("".join(part.message.content for part in parts), HELLO)
        is_equal((parts[-1].done, parts[-1].eval_count), (True, 7))

    def tools(self):
        return [{"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": PARAMETERS}}]

    def follow_up(self, calls, **options):
        is_equal([call.function.arguments["city"] for call in calls], CITIES)
        results = [{"role": "tool", "tool_name": "get_weather", "content": result} for result in RESULTS]
        said = {"role": "assistant", "content": "", "tool_calls": calls}
        answer = self.client.chat(
            model=self.model, messages=[{"role": "user", "content": "tools"}, said, *results], tools=self.tools(), **options)
        is_equal(answer.message.content, "3 and 20")

    def tool_calls(self):
        self.follow_up(self.ask("tools", tools=self.tools()).message.tool_calls)

    def streamed_tool_calls(self):
        parts = self.ask("tools", tools=self.tools(), stream=True)
        self.follow_up([call for part in parts for call in part.message.tool_calls or []])

    def reasoning(self):
        for think in (True, "high", False):
            self.follow_up(self.ask("tools", tools=self.tools(), think=think).message.tool_calls, think=think)

    def picture(self):
        message = {"role": "user", "content": "picture", "images": [base64.b64decode(PICTURE)]}
        is_equal(self.client.chat(model=self.model, messages=[message]).message.content, "a picture")

    def structured(self):
        is_equal(json.loads(self.ask("person", format=OPEN_SCHEMA).message.content), json.loads(PERSON))

    def error(self):
        fails_with(ollama.ResponseError, 429, SLOW_DOWN, lambda: self.ask("error"))
        fails_with(ollama.ResponseError, 429, SLOW_DOWN, lambda: list(self.ask("error", stream=True)))

    def broken_stream(self):
        fails_with(ollama.ResponseError, None, LATER, lambda: list(self.ask("midway", stream=True)))

    def cut_stream(self):
        for how in CUT:
            fails_with(ollama.ResponseError, None, BROKE_OFF, lambda: list(self.ask(how, stream=True)))

    def leave(self):
        stream = self.ask("endless", stream=True)
        next(stream)
        stream.close()


    def embeddings(self):
        answer = self.client.embed(model=self.model, input=list(VECTORS))
        is_equal(([list(vector) for vector in answer.embeddings], answer.prompt_eval_count), (list(VECTORS.values()), 5))
        for text, vector in VECTORS.items():
            is_equal(list(self.client.embeddings(model=self.model, prompt=text).embedding), vector)


CLIENTS = {"openai": OpenAi, "openai-responses": Responses, "anthropic": Anthropic, "ollama": Ollama}
