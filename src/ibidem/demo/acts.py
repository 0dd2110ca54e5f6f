"""An act of the demo: the whole conversation, on a fresh shop, and what can be said about it afterwards."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langsmith import tracing_context

from ibidem.demo.agent import Agent, build, converse, tools, with_ibidem
from ibidem.demo.script import SCRIPT, Scripted
from ibidem.demo.server import Shop


@dataclass(frozen=True)
class Call:
    """A call of the model and its answer."""

    step: int
    """Which message of the model made it; calls of one message have no order among themselves."""
    tool: str
    arguments: dict[str, Any]
    answer: str
    came: str
    """`ran`, or as ibidem says: `memo`, `shared`."""

    def field(self, name: str) -> str:
        """Read one field of the answer.

        Args:
            name: Which field.

        Returns:
            Its value; empty if the answer is no object or has no such field.
        """
        try:
            value = json.loads(self.answer)
        except ValueError:
            return ""
        return str(value.get(name, "")) if isinstance(value, dict) else ""


@dataclass(frozen=True)
class Reread:
    """An order that the agent changed, and how the agent saw it before and after."""

    order_id: str
    before: str
    after: str
    came: str
    """How the first read after the write came."""
    fresh: bool
    """Every read after the write gave what the database said at the end."""


@dataclass(frozen=True)
class Act:
    """What happened."""

    name: str
    transcript: list[AnyMessage]
    requests: Counter[str]
    """What reached the server, by method and path."""
    seconds: float
    truth: dict[str, str | None]
    """The status of each cancelled order, as the database had it at the end."""

    @property
    def calls(self) -> list[Call]:
        """Every call of the model that was answered, in order."""
        return list(_calls(self.transcript))

    @property
    def said(self) -> list[tuple[Any, ...]]:
        """The transcript without what differs by nature: ids and metadata."""
        return [(one.type, one.content, _asked(one), getattr(one, "status", "")) for one in self.transcript]

    @property
    def rereads(self) -> list[Reread]:
        """The orders that were cancelled, seen before and after."""
        found = []
        for order_id, truth in self.truth.items():
            about = [call for call in self.calls if call.arguments.get("order_id") == order_id]
            written = max(call.step for call in about if call.tool == "cancel_order")
            before = [call.field("status") for call in about if call.step < written]
            after = [call for call in about if call.step > written]
            if after:
                fresh = all(call.field("status") == truth for call in after)
                seen = before[-1] if before else "unread"
                found.append(Reread(order_id, seen, after[0].field("status"), after[0].came, fresh))
        return found


def play_all(model: BaseChatModel | None = None) -> list[Act]:
    """Play every act.

    Args:
        model: Who decides what to call; None for the script.

    Returns:
        The act without ibidem, then those with it.
    """
    deciding = model or Scripted()
    with tracing_context(enabled=False):  # whatever the environment says about traces: they would leave this machine
        return [play("without ibidem", deciding, lambda graph: graph), play("with ibidem", deciding, with_ibidem)]


def play(name: str, model: BaseChatModel, wrap: Callable[[Agent], Agent]) -> Act:
    """Play the conversation on a shop and a checkpointer of its own.

    Args:
        name: What to call the act.
        model: Who decides what to call.
        wrap: What is done to the finished agent.

    Returns:
        What happened.
    """
    with TemporaryDirectory(prefix="ibidem-demo-", ignore_cleanup_errors=True) as folder:
        database, threads = Path(folder, "shop.db"), str(Path(folder, "threads.db"))
        with Shop(database) as shop, SqliteSaver.from_conn_string(threads) as saver:
            graph = wrap(build(model, tools(shop.url), saver))
            start = time.perf_counter()
            transcript = converse(graph, [turn.asks for turn in SCRIPT], thread="ann")
            seconds = time.perf_counter() - start
            cancelled = [call.arguments.get("order_id") for call in _calls(transcript) if call.tool == "cancel_order"]
            truth = {order_id: shop.truth(order_id) for order_id in cancelled if isinstance(order_id, str)}
            return Act(name, transcript, shop.requests, seconds, truth)


def _calls(transcript: list[AnyMessage]) -> Iterator[Call]:
    made = {
        call["id"]: (step, call)
        for step, message in enumerate(transcript)
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    }
    for message in transcript:
        if isinstance(message, ToolMessage):
            step, call = made[message.tool_call_id]
            came = message.response_metadata.get("ibidem", {}).get("how", "ran")
            yield Call(step, call["name"], call["args"], str(message.content), came)


def _asked(message: AnyMessage) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in message.tool_calls] if isinstance(message, AIMessage) else []
