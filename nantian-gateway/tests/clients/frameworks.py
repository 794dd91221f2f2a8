"""Agents of libraries that loop by themselves, unmodified. See `conversations`."""

import asyncio
import os

# Before they are imported: they tell nobody what they do.
os.environ |= {"OPENAI_AGENTS_DISABLE_TRACING": "1", "LANGSMITH_TRACING": "false"}

import agents as openai_agents  # noqa: E402
import anthropic  # noqa: E402
import openai  # noqa: E402
from langchain_anthropic import ChatAnthropic  # noqa: E402
from langchain_ollama import ChatOllama  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from langgraph.prebuilt import create_react_agent  # noqa: E402
from openai.types.shared import Reasoning  # noqa: E402
from pydantic_ai import Agent  # noqa: E402
from pydantic_ai.models.anthropic import AnthropicModel  # noqa: E402
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel  # noqa: E402
from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: E402
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402

from conversations import BUDGET, SYSTEM, Library, get_weather  # noqa: E402

KEY = "of-the-client"
# They do what a model of this name can.
MODEL = "gpt-5.2"


class AnthropicToolRunner(Library):
    """The tool runner of the `anthropic` package. It has the provider keep what was said, and says it whole where that refuses."""

    def begin(self):
        self.said = []
        self.messages = anthropic.Anthropic(base_url=self.base, api_key=KEY, max_retries=0, timeout=20).beta.messages
        self.options = {"model": "any", "max_tokens": 4000, "system": SYSTEM, "tools": [anthropic.beta_tool(get_weather)],
                        **({"thinking": BUDGET} if self.thinks else {})}

    async def ask(self, question):
        message = await asyncio.to_thread(self.run, {"role": "user", "content": question})
        return "".join(block.text for block in message.content if block.type == "text")

    def run(self, question):
        self.said.append(question)
        runner = self.messages.tool_runner(messages=self.said, stream=self.streams, **self.options)
        for answer in runner:
            message = answer.get_final_message() if self.streams else answer
            results = runner.generate_tool_call_response()
            self.said += [{"role": "assistant", "content": message.content}, *([results] if results else [])]
        return message


class AnthropicThread(AnthropicToolRunner):
    """A thread of the same package, which is told where the provider does not keep it."""

    def begin(self):
        super().begin()
        self.thread = self.messages.thread(**self.options)

    def run(self, question):
        self.thread.append(question)
        return self.thread.tool_runner(stream=self.streams).until_done()


class OpenAiAgents(Library):
    """The `openai-agents` package."""

    model = openai_agents.OpenAIChatCompletionsModel
    summary = None

    def begin(self):
        self.said = []
        client = openai.AsyncOpenAI(base_url=f"{self.base}/v1", api_key=KEY, max_retries=0, timeout=20)
        reasoning = Reasoning(effort="high", summary=self.summary) if self.thinks else None
        self.agent = openai_agents.Agent(
            name="agent", instructions=SYSTEM, tools=[openai_agents.function_tool(get_weather)],
            model_settings=openai_agents.ModelSettings(reasoning=reasoning),
            model=self.model(model=MODEL, openai_client=client))

    async def ask(self, question):
        self.said.append({"role": "user", "content": question})
        if self.streams:
            run = openai_agents.Runner.run_streamed(self.agent, self.said)
            async for _ in run.stream_events():
                pass
        else:
            run = await openai_agents.Runner.run(self.agent, self.said)
        self.said = run.to_input_list()
        return run.final_output


class OpenAiAgentsResponses(OpenAiAgents):
    """By OpenAI's newer API, without what the agent would have stored there."""

    model = openai_agents.OpenAIResponsesModel
    summary = "auto"


class PydanticAi(Library):
    """The `pydantic-ai` package."""

    def begin(self):
        self.said = None
        settings = self.settings() if self.thinks else None
        self.agent = Agent(self.model(), instructions=SYSTEM, retries=0, model_settings=settings, tools=[get_weather])

    def model(self):
        return OpenAIChatModel(MODEL, provider=self.provider())

    def settings(self):
        return {"openai_reasoning_effort": "high"}

    def provider(self):
        return OpenAIProvider(base_url=f"{self.base}/v1", api_key=KEY)

    async def ask(self, question):
        async def heed(_, events):
            async for _ in events:
                pass

        run = await self.agent.run(question, message_history=self.said, event_stream_handler=heed if self.streams else None)
        self.said = run.all_messages()
        return run.output


class PydanticAiResponses(PydanticAi):
    """By OpenAI's newer API."""

    def model(self):
        return OpenAIResponsesModel(MODEL, provider=self.provider())

    def settings(self):
        return {"openai_reasoning_effort": "high", "openai_reasoning_summary": "auto"}


class PydanticAiAnthropic(PydanticAi):
    """By Anthropic's API."""

    def model(self):
        return AnthropicModel("claude-sonnet-4-5", provider=AnthropicProvider(base_url=self.base, api_key=KEY))

    def settings(self):
        return {"anthropic_thinking": BUDGET, "max_tokens": 4000}


class LangChain(Library):
    """The `langchain-openai` package and the agent of `langgraph`."""

    def begin(self):
        self.said = []
        self.agent = create_react_agent(self.model(), [get_weather], prompt=SYSTEM)

    def model(self):
        return self.openai(use_responses_api=False, **({"reasoning_effort": "high"} if self.thinks else {}))

    def openai(self, **options):
        return ChatOpenAI(model=MODEL, base_url=f"{self.base}/v1", api_key=KEY, max_retries=0, **options)

    async def ask(self, question):
        asked = {"messages": [*self.said, ("user", question)]}
        if self.streams:
            async for mode, state in self.agent.astream(asked, stream_mode=["messages", "values"]):
                if mode == "values":
                    self.said = state["messages"]
        else:
            self.said = (await self.agent.ainvoke(asked))["messages"]
        return self.said[-1].text


class LangChainResponses(LangChain):
    """By OpenAI's newer API."""

    def model(self):
        reasoning = {"reasoning": {"effort": "high", "summary": "auto"}} if self.thinks else {}
        return self.openai(use_responses_api=True, **reasoning)


class LangChainAnthropic(LangChain):
    """The `langchain-anthropic` package."""

    def model(self):
        options = {"model": "claude-sonnet-4-5", "max_tokens": 4000, **({"thinking": BUDGET} if self.thinks else {})}
        return ChatAnthropic(base_url=self.base, api_key=KEY, max_retries=0, **options)


class LangChainOllama(LangChain):
    """The `langchain-ollama` package."""

    def model(self):
        return ChatOllama(model="qwen3", base_url=self.base, reasoning=True if self.thinks else None)


FRAMEWORKS = {
    "anthropic (tool runner)": AnthropicToolRunner, "anthropic (thread)": AnthropicThread,
    "openai-agents": OpenAiAgents, "openai-agents (responses)": OpenAiAgentsResponses,
    "pydantic-ai": PydanticAi, "pydantic-ai (responses)": PydanticAiResponses, "pydantic-ai (anthropic)": PydanticAiAnthropic,
    "langchain": LangChain, "langchain (responses)": LangChainResponses, "langchain (anthropic)": LangChainAnthropic,
    "langchain (ollama)": LangChainOllama,
}
