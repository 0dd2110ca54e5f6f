"""Play recorded conversations against tools that fail in passing: how many turns of the model does a retry below it save?

The conversations are those of replay.py; a share of all runs of a tool fails, drawn with a seed for each run, so that both ways
meet the same faults. A read fails with a reply of 503, a timeout or a broken connection; a write before it was sent, since
nobody could judge a model that repeats one whose outcome is unknown. What fails all the same is told to the model, and the
scripted model makes the failed calls again in a message of its own, as the recorded ones did: that is the turn it costs.

- **nothing**: a plain `ToolNode` that tells errors to the model.
- **retry**: the same, wrapped, everything declared as in policies.py, and `Retry()` for what may run twice.

Judged are all answers that a conversation ends with, against what was recorded (**wrong**), and how often each write took effect
(**twice**, **never**). Exits with 1 if there is any of these.
"""

import argparse
import json
import random
import sys
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import ibidem
import synthetic
from _recordings import Call, Conversation, argument_names, key_of, load, sample
from ibidem import Guard, Retry
from policies import POLICIES
from replay import TRACES

SHARE = 0.1
"""Runs that fail."""
NOTHING, RETRY = "nothing", "retry"
LIMIT = 1_000
"""Steps of a graph; a call that fails in passing is made again until it does not."""


class BusyError(Exception):
    """A reply of 503."""

    status_code = 503


PASSING: tuple[Callable[[], Exception], ...] = (BusyError, TimeoutError, ConnectionResetError)


@dataclass
class Row:
    """What became of the conversations of a file."""

    way: str
    calls: int = 0
    turns: int = 0
    """Messages of the model with calls in them."""
    repeats: int = 0
    """Those of them that only make failed calls again."""
    faults: int = 0
    """Runs of tools that failed."""
    wrong: list[str] = field(default_factory=list)
    twice: int = 0
    never: int = 0

    @property
    def bad(self) -> int:
        """How much went wrong."""
        return len(self.wrong) + self.twice + self.never


class Played:
    """One conversation while it is played: its model and its world.

    Args:
        conversation: As recorded.
        share: Of runs that fail.
        seed: Of which.
    """

    def __init__(self, conversation: Conversation, share: float, seed: int) -> None:
        self.conversation = conversation
        self.turns = self.repeats = self.faults = 0
        self.done: Counter[tuple[int, int]] = Counter()
        """How often each write took effect, by message and position."""
        self._share, self._seed = share, seed
        self._at = -1
        self._ids: dict[str, tuple[int, int]] = {}
        self._waiting: dict[str, deque[int]] = {}
        self._runs: Counter[tuple[int, str]] = Counter()
        self._lock = threading.Lock()

    def speak(self, messages: list[AnyMessage]) -> AIMessage:
        """Make the failed calls of the last message again, or those of the next one, or end."""
        last = [m for m in messages if isinstance(m, ToolMessage) and self._ids[m.tool_call_id][0] == self._at]
        newest = {self._ids[m.tool_call_id][1]: m for m in last}
        failed = sorted(position for position, message in newest.items() if message.status == "error")
        self.repeats += bool(failed)
        if not failed:
            self._at += 1
            if self._at == len(self.conversation.messages):
                return AIMessage("Done.")
            failed = list(range(len(self._calls)))
        self.turns += 1
        self._waiting = defaultdict(deque)
        told = []
        for position in failed:
            call = self._calls[position]
            self._waiting[call.key].append(position)
            name = f"call-{len(self._ids)}"
            self._ids[name] = self._at, position
            told.append({"name": call.name, "args": json.loads(json.dumps(call.args)), "id": name, "type": "tool_call"})
        return AIMessage("", tool_calls=told)

    @property
    def _calls(self) -> list[Call]:
        return self.conversation.messages[self._at]

    def answer(self, name: str, args: dict[str, Any]) -> str:
        """Run a tool.

        Raises:
            Exception: It fails in passing.
        """
        key = key_of(name, args)
        with self._lock:
            position = self._waiting[key].popleft()
            call = self._calls[position]
            self._runs[self._at, key] += 1
            rng = random.Random(f"{self._seed} {self.conversation.id} {self._at} {key} {self._runs[self._at, key]}")
            if rng.random() < self._share:
                self.faults += 1
                self._waiting[key].appendleft(position)
                raise ConnectionRefusedError if call.kind == "write" else rng.choice(PASSING)()
            self.done[self._at, position] += 1
            return call.result

    def judge(self, row: Row, messages: Iterable[AnyMessage]) -> None:
        """Add to a row what came of it."""
        given = {self._ids[m.tool_call_id]: m for m in messages if isinstance(m, ToolMessage)}
        for at, calls in enumerate(self.conversation.messages):
            for position, call in enumerate(calls):
                message = given.get((at, position))
                if message is None or message.content != call.result or message.status != "success":
                    row.wrong.append(f"{self.conversation.id}, message {at}: {call.key}: {message}")
                if call.kind == "write":
                    row.twice += self.done[at, position] > 1
                    row.never += self.done[at, position] < 1
        row.calls += len(self.conversation.calls)
        for name in ("turns", "repeats", "faults"):
            setattr(row, name, getattr(row, name) + getattr(self, name))


def build(played: Played, names: dict[str, list[str]], way: str) -> CompiledStateGraph:
    """Build the graph of one conversation."""

    def tool_of(name: str, args: list[str]) -> StructuredTool:
        schema = {"type": "object", "properties": {arg: {} for arg in args}, "additionalProperties": True}
        return StructuredTool(
            name=name,
            description=f"{name}, as recorded",
            args_schema=schema,
            func=lambda **given: played.answer(name, given),
        )

    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [played.speak(state["messages"])]})
    tools = [tool_of(name, args) for name, args in names.items()]
    builder.add_node("tools", ToolNode(tools, handle_tool_errors=True) if way == NOTHING else ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    builder.add_edge("tools", "model")
    graph = builder.compile()
    if way == NOTHING:
        return graph
    effects = POLICIES[played.conversation.domain]
    known = {name: effects[name] for name in names if name in effects}
    guard = Guard(effects=known, retry=Retry(first_delay="1ms", max_delay="10ms"), errors="message")
    return ibidem.wrap(graph, guard)


def play(
    conversations: list[Conversation], way: str, share: float = SHARE, seed: int = 1, done: Progress | None = None
) -> Row:
    """Play conversations one way."""
    row, names = Row(way), argument_names(conversations)
    task = done and done.add_task(way, total=len(conversations))
    for conversation in conversations:
        played = Played(conversation, share, seed)
        graph = build(played, names, way)
        config: Any = {"configurable": {"thread_id": conversation.id}, "recursion_limit": LIMIT}
        played.judge(row, graph.invoke({"messages": [HumanMessage("Go on.")]}, config)["messages"])
        if done and task is not None:
            done.advance(task)
    return row


def report(title: str, rows: list[Row]) -> Table:
    """Draw the table of one file."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for head in ("way", "calls", "faults", "turns", "repeats", "repeats\nsaved", "wrong", "twice", "never"):
        table.add_column(head, justify="left" if head == "way" else "right")
    most = max(row.repeats for row in rows)
    for row in rows:
        saved = f"{1 - row.repeats / most:.0%}" if most else ""
        counts = (row.calls, row.faults, row.turns, row.repeats, saved, len(row.wrong), row.twice, row.never)
        table.add_row(row.way, *map(str, counts))
    return table


def main() -> int:
    """Play the files of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="recordings (default: the shared ones and a synthetic one)")
    parser.add_argument("--share", type=float, default=SHARE, help="of runs that fail (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="at most so many conversations of a file, drawn with the seed")
    parser.add_argument("--seed", type=int, default=1, help="of the faults, the synthetic file and what --limit draws")
    given = parser.parse_args()
    if not 0 <= given.share < 1:
        parser.error(f"--share {given.share}: give a part from 0, below 1")
    console = Console(highlight=False)
    files = given.files or [*sorted(TRACES.glob("*.jsonl")), synthetic.write(seed=given.seed)]
    if len(files) == 1 and not given.files:
        console.print("No recordings in ../shared/traces: playing the synthetic file only.")
    bad = 0
    for path in files:
        conversations = [each for each in sample(load(path), given.limit, given.seed) if each.domain in POLICIES]
        with Progress(console=console, transient=True, disable=not sys.stdout.isatty()) as progress:
            rows = [play(conversations, way, given.share, given.seed, progress) for way in (NOTHING, RETRY)]
        console.print(report(f"{path.name}, {len(conversations)} conversations, {given.share:.0%} of runs fail", rows))
        for row in rows:
            bad += row.bad
            for line in row.wrong[:5]:
                console.print(f"wrong with {row.way}: {line}", markup=False)
    return 1 if bad else 0


if __name__ == "__main__":
    import logging

    logging.getLogger("ibidem").setLevel(logging.ERROR)  # every failure that is told to the model is a line
    sys.exit(main())
