"""What the tests of the adapters share: calls, messages, a scripted model, and running the same thing both ways."""

import asyncio
import contextvars
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from ibidem.resume.tasks import KEPT

BOTH = pytest.mark.parametrize("way", ["sync", "async"])


ANYWHERE = pytest.mark.usefixtures("anywhere")
"""In this process, and where each attempt at a task is made by another one."""


def call(name: str, args: dict[str, Any] | None = None, id: Any = "c1") -> dict[str, Any]:  # noqa: A002
    """A tool call as a model makes it."""
    return {"name": name, "args": args or {}, "id": id, "type": "tool_call"}


def ai(*calls: dict[str, Any]) -> AIMessage:
    return AIMessage("", tool_calls=list(calls))


runner = asyncio.Runner()
"""Closed at the end of the session, by `conftest.py`: at exit, Python 3.12 starts no threads any more."""


def wait(coroutine: Any) -> Any:
    """Run a coroutine on the one loop of these tests: a loop each, with its threads, takes longer than the tests."""
    return runner.run(coroutine, context=contextvars.copy_context())


def ask(way: str, target: Any, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
    """Invoke something, or await it."""
    if way == "sync":
        return target.invoke(input, config, **kwargs)
    return wait(target.ainvoke(input, config, **kwargs))


def thread(name: Any, **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": name, **more}}


def node_graph(node: Any, **compiled: Any) -> Any:
    """A hand-built graph of one node of tools."""
    builder = StateGraph(MessagesState)
    builder.add_node("tools", node)
    builder.add_edge(START, "tools")
    return builder.compile(**compiled)


def in_a_node(way: str, build: Callable[[], Any], guard: Any, **options: Any) -> tuple[Any, list[Any]]:
    """A graph whose node runs a plan, and the results that come of it."""
    results: list[Any] = []

    def node(state: Any) -> Any:
        results.append(build().run(guard, **options))
        return {}

    async def anode(state: Any) -> Any:
        results.append(await build().arun(guard, **options))
        return {}

    return node_graph(node if way == "sync" else anode, checkpointer=InMemorySaver()), results


def turn(way: str, graph: Any, *calls: dict[str, Any], config: Any = None) -> list[ToolMessage]:
    """Let a hand-built graph answer one message, and give its answers."""
    state = ask(way, graph, {"messages": [ai(*calls)]}, config)
    return [message for message in state["messages"] if isinstance(message, ToolMessage)][-len(calls) :]


def contents(messages: Any) -> list[Any]:
    return [message.content for message in messages]


def came(message: ToolMessage) -> str:
    """How a message says it came."""
    return message.response_metadata.get("ibidem", {}).get("how", "ran")


def forget_tasks() -> None:
    """Know no more of interrupted tasks than another process would."""
    KEPT.tasks.clear()


class Counter:
    """Counts the runs of tools, from any thread."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self._lock = threading.Lock()

    def __call__(self, *what: Any) -> int:
        with self._lock:
            self.runs.append(what[0] if len(what) == 1 else what)
            return len(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


class Scripted(BaseChatModel):
    """A model that answers as a function of the messages says; without one it repeats what it was given, in order."""

    answer: Callable[[list[Any]], AIMessage]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.answer(messages))])


def saying(*turns: AIMessage | str) -> Scripted:
    """A model whose nth message of a conversation is the nth given; state lies in the messages alone."""

    def answer(messages: list[Any]) -> AIMessage:
        number = sum(isinstance(message, AIMessage) for message in messages)
        said = turns[min(number, len(turns) - 1)]
        return AIMessage(said) if isinstance(said, str) else AIMessage("", tool_calls=said.tool_calls)

    return Scripted(answer=answer)


class Heard(BaseCallbackHandler):
    """Writes down what callbacks tell about tools."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_tool_start(self, serialized: Any, input_str: str, *, inputs: Any = None, **kwargs: Any) -> None:
        self.events.append(("start", serialized, input_str, inputs, kwargs.get("tool_call_id"), kwargs.get("tags")))

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.events.append(("end", plain(output)))

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self.events.append(("error", type(error), said(error)))


def plain(result: Any) -> Any:
    """What can be compared of a result: a message without the note of how it came."""
    if isinstance(result, ToolMessage):
        metadata = {name: value for name, value in result.response_metadata.items() if name != "ibidem"}
        fields = {name: getattr(result, name) for name in ("content", "artifact", "status", "name", "tool_call_id")}
        return ("message", type(result), fields, metadata, result.additional_kwargs, result.id)
    if isinstance(result, Command):
        return ("command", result.update, result.goto, result.graph)
    if isinstance(result, list):
        return [plain(part) for part in result]
    return (type(result), result)


def ending(do: Callable[[], Any]) -> Any:
    """How something ends: what it gives, or what it raises."""
    try:
        return ("gave", plain(do()))
    except Exception as problem:
        return ("raised", type(problem), said(problem))


def said(problem: BaseException) -> str:
    """What an error says, without the advice that a wrapped tool adds to LangChain's own words."""
    return re.sub(r" '\w+' has only an asynchronous function: .*", "", str(problem))
