"""An act of the demo: the whole conversation, on a fresh shop, and what can be said about it afterwards."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, messages_from_dict
from langgraph.checkpoint.sqlite import SqliteSaver
from langsmith import tracing_context

from ibidem import Disk
from ibidem.demo.agent import Agent, build, converse, tools, with_ibidem
from ibidem.demo.script import SCRIPT, decider
from ibidem.demo.stage import Stage, stage


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
    transcript: Sequence[BaseMessage]
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


@dataclass(frozen=True)
class Later(Act):
    """What happened when a new process went on with the conversation; the transcript begins there."""

    failed: str
    """Why it could not; empty if it could."""

    @property
    def reads(self) -> list[Call]:
        """Every call that changes nothing."""
        return [call for call in self.calls if call.tool != "cancel_order"]

    def seen(self, order_id: str) -> list[Call]:
        """Give the reads of one order."""
        return [call for call in self.reads if call.arguments.get("order_id") == order_id]


def play_all(claude: str | None = None) -> tuple[list[Act], Later]:
    """Play every act.

    Args:
        claude: Which Claude decides what to call; None for the script.

    Returns:
        The act without ibidem and the one with it, and how the latter goes on in a new process.
    """
    model = decider(claude)
    with tracing_context(enabled=False):  # whatever the environment says about traces: they would leave this machine
        with stage() as here:
            bare = play("without ibidem", model, lambda graph: graph, here)
        with stage() as here, closing(Disk(here.memo, key=here.key)) as store:
            remembering = play("with ibidem", model, lambda graph: with_ibidem(graph, store), here)
            store.flush()
            return [bare, remembering], go_on(remembering, here, claude)  # the store is open: two processes share it


def play(name: str, model: BaseChatModel, wrap: Callable[[Agent], Agent], here: Stage) -> Act:
    """Play the conversation.

    Args:
        name: What to call the act.
        model: Who decides what to call.
        wrap: What is done to the finished agent.
        here: Where; nothing has been said there yet.

    Returns:
        What happened.
    """
    with SqliteSaver.from_conn_string(str(here.threads)) as saver:
        graph = wrap(build(model, tools(here.shop.url), saver))
        start = time.perf_counter()
        transcript = converse(graph, [turn.asks for turn in SCRIPT], thread="ann")
        seconds = time.perf_counter() - start
    cancelled = [call.arguments.get("order_id") for call in _calls(transcript) if call.tool == "cancel_order"]
    truth = {order_id: here.shop.truth(order_id) for order_id in cancelled if isinstance(order_id, str)}
    return Act(name, transcript, Counter(here.shop.requests), seconds, truth)


def go_on(act: Act, here: Stage, claude: str | None = None) -> Later:
    """Let a new process go on with the conversation, while the shop stays open in this one.

    Args:
        act: What has happened so far.
        here: Where.
        claude: Which Claude decides there; None for the script.

    Returns:
        What happened, or why nothing did.
    """
    before = Counter(here.shop.requests)
    done = subprocess.run(  # noqa: S603 - this Python, and what we give it
        [sys.executable, "-m", "ibidem.demo.again", here.shop.url, str(here.threads), str(here.memo)]
        + ([] if claude is None else ["--model", claude]),
        env=os.environ | {"IBIDEM_KEY": here.key},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    failed = ""
    told: dict[str, Any] = {"said": [], "seconds": 0.0}
    if done.returncode == 0:
        told = json.loads(done.stdout)
        sys.stderr.write(done.stderr)
    else:
        failed = f"it ended with {done.returncode}: {(done.stderr.strip() or 'it said nothing').splitlines()[-1]}"
    return Later(
        name="in a new process",
        transcript=messages_from_dict(told["said"]),
        requests=here.shop.requests - before,
        seconds=told["seconds"],
        truth={order_id: here.shop.truth(order_id) for order_id in act.truth},
        failed=failed,
    )


def _calls(transcript: Sequence[BaseMessage]) -> Iterator[Call]:
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


def _asked(message: BaseMessage) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in message.tool_calls] if isinstance(message, AIMessage) else []
