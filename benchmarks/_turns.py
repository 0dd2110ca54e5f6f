"""One turn of six calls that fail in every way, through what people use today and through ibidem."""

import asyncio
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import tenacity
from langchain.agents import create_agent
from langchain.agents.middleware import ToolErrorMiddleware, ToolRetryMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool, ToolException
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

import ibidem
from _measure import Report, Sample, clocked, interleave
from ibidem import Breaker, Guard, Live, Read, Retry, Write

NAMES = ("raises", "hangs", "flaky", "dead", "pay", "fine")
COULD = 2
"""Calls whose result can be had: `flaky` at its third try, and `fine`."""


class DownError(Exception):
    """A reply of 503."""

    status_code = 503


class World:
    """Six tools: one refuses, one hangs, one fails twice, one is dead, one pays and loses the answer, one is fine."""

    def __init__(self, hang: float) -> None:
        self.hang = hang
        self.runs: Counter[str] = Counter()

    async def run(self, name: str) -> str:
        """Do what the tool of that name does."""
        self.runs[name] += 1
        if name == "raises":
            raise ToolException("no such order")
        if name == "hangs":
            await asyncio.sleep(self.hang)
        if name == "dead" or (name == "flaky" and self.runs[name] <= 2):
            raise DownError
        if name == "pay":
            raise TimeoutError
        await asyncio.sleep(0.01)
        return f"the result of {name}"

    def tools(self, around: Callable[[Any], Any] = lambda function: function) -> list[StructuredTool]:
        """Make the tools, each with something around its function."""

        def make(name: str) -> StructuredTool:
            async def run(order: int) -> str:  # noqa: ARG001
                return await self.run(name)

            return StructuredTool.from_function(coroutine=around(run), name=name, description=name)

        return [make(name) for name in NAMES]


class Asking(BaseChatModel):
    """Asks for all six tools, then is done."""

    @property
    def _llm_type(self) -> str:
        return "asking"

    def bind_tools(self, tools: Any, **_: Any) -> Any:  # noqa: ARG002
        return self

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        asked = any(isinstance(message, AIMessage) for message in messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("done") if asked else _turn())])


def _turn() -> AIMessage:
    calls = [{"name": name, "args": {"order": 1}, "id": name, "type": "tool_call"} for name in NAMES]
    return AIMessage("", tool_calls=calls)


def _graph(node: Any) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("tools", node)
    builder.add_edge(START, "tools")
    return builder.compile()


def guard(timeout: float) -> Guard:
    """Declare the six tools."""
    reads = dict.fromkeys(("raises", "hangs", "flaky", "fine"), Read("order:{order}"))  # none waits for the payment
    effects = {**reads, "dead": Live(), "pay": Write("account:{order}")}
    return Guard(effects=effects, timeout=timeout, retry=Retry(first_delay=0.02), breaker=Breaker())


def _tenacious(function: Any) -> Any:
    return tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.01), reraise=True)(function)


def turns(report: Report, rounds: int, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add what each makes of the turn."""
    hang, timeout = (1.0, 0.5) if quick else (2.0, 0.5)
    retry = {"max_retries": 2, "initial_delay": 0.02}
    made: dict[str, Callable[[World], Any]] = {
        "bare ToolNode": lambda world: _graph(ToolNode(world.tools())),
        "handle_tool_errors=True": lambda world: _graph(ToolNode(world.tools(), handle_tool_errors=True)),
        "tenacity, handle_tool_errors=True": lambda world: _graph(
            ToolNode(world.tools(_tenacious), handle_tool_errors=True)
        ),
        "ToolRetry- and ToolErrorMiddleware": lambda world: create_agent(
            Asking(),
            world.tools(),
            middleware=[
                ToolErrorMiddleware(lambda exc, _: repr(exc)),
                ToolRetryMiddleware(on_failure="error", **retry),
            ],
        ),
        "ibidem, ToolNode": lambda world: ibidem.wrap(_graph(ToolNode(world.tools())), guard(timeout)),
        "ibidem, create_agent": lambda world: ibidem.wrap(create_agent(Asking(), world.tools()), guard(timeout)),
    }
    kept: dict[str, set[int]] = {name: set() for name in made}
    answered: dict[str, set[int]] = {name: set() for name in made}
    paid: dict[str, set[int]] = {name: set() for name in made}

    async def one(name: str) -> Sample:
        world = World(hang)
        graph = made[name](world)
        messages: list[Any] = []
        with clocked() as sample:
            try:
                state = await graph.ainvoke(
                    {"messages": [_turn()] if "agent" not in name and "Middle" not in name else []}
                )
                messages = [each for each in state["messages"] if isinstance(each, ToolMessage)]
            except Exception:
                messages = []
        await asyncio.sleep(0)
        good = [each for each in messages if each.status == "success" and each.tool_call_id in ("flaky", "fine")]
        kept[name].add(len(good))
        answered[name].add(len({each.tool_call_id for each in messages}))
        paid[name].add(world.runs["pay"])
        sample.runs = sum(world.runs.values())
        return sample

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = interleave({name: (lambda name=name: runner.run(one(name))) for name in made}, rounds, warmup=1)
    rows = [
        [name, min(answered[name]), min(kept[name]), max(paid[name]), results.spread(name, "wall").text(1e3, 0)]
        for name in made
    ]
    title = f"A turn of six calls: {COULD} results can be had, one call hangs for {hang:g} s"
    report.table(title, ["", "answered", "results", "payments", "wall ms"], rows)
    for name in ("ibidem, ToolNode", "ibidem, create_agent"):
        report.exactly(f"{name}: calls answered", min(answered[name]), len(NAMES))
        report.exactly(f"{name}: results kept", min(kept[name]), COULD)
        report.exactly(f"{name}: payments made", max(paid[name]), 1)
        took = results.spread(name, "wall")
        report.at_most(
            f"{name}: wall over the longest allowed, ms", (took.median - timeout) * 1e3, 100, took.text(1e3, 0)
        )
