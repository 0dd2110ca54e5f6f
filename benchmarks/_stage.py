"""The graph that plays a recorded conversation: a scripted model, real tool plumbing, tools that answer as recorded."""

import asyncio
import itertools
import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode

import ibidem
from _oracles import Policy, conflict
from _recordings import Call, Conversation, argument_names, key_of, reading_tools
from policies import POLICIES

PAUSE = 0.0005
"""Seconds that a tool takes when it has siblings: they meet it there, where nothing keeps them apart."""
NOTHING, READS, DECLARED, CONTROL = "nothing", "reads= alone", "declared", "dictionary"


class RecordedError(Exception):
    """A recorded error, raised."""


def as_recorded(error: RecordedError) -> str:
    """Say a raised error in the words of the recording: the `handle_tool_errors` of the graph."""
    return str(error)


PLAYING: ContextVar["Played"] = ContextVar("PLAYING")
"""The conversation that is being played, for the model and the tools that take part in it."""


@dataclass(frozen=True)
class Setting:
    """How conversations are played."""

    guard: str
    sync: bool = False
    """Synchronous tools in a graph that is invoked, instead of asynchronous ones in one that is awaited."""
    raised: bool = False
    """Whether recorded errors are raised instead of returned."""
    together: int = 1
    """Conversations at once."""
    split: bool = False
    """Whether each conversation changes its process in the middle."""
    store: Path | None = None
    """The folder of a `Disk` to remember in; None: in memory."""


@dataclass(eq=False)
class Played:
    """One conversation while it is played: what the model says next, and which calls reached their tools."""

    conversation: Conversation
    policy: Policy
    setting: Setting = Setting(NOTHING)
    reached: int = 0
    suppressed: int = 0
    stray: int = 0
    disordered: int = 0
    _script: Iterator[list[Call] | None] = field(init=False)
    _message: list[Call] = field(default_factory=list)
    _waiting: dict[str, deque[int]] = field(default_factory=dict)
    _ran: dict[int, list[int]] = field(default_factory=dict)
    """By position in the message: when the call reached its tool and when it left it, in ticks."""
    _ticks: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _memo: dict[str, str] = field(default_factory=dict)
    """The dictionary of the control."""

    def __post_init__(self) -> None:
        self._script = iter([said for turn in self.conversation.turns for said in (*turn, None)])

    def speak(self) -> AIMessage:
        """Return what the model says next: the next message with calls, or the end of this turn of the user."""
        self.settle()
        calls = next(self._script)
        with self._lock:
            self._message = calls or []
            self._ran = {}
            self._waiting = defaultdict(deque)
            for position, call in enumerate(self._message):
                self._waiting[call.key].append(position)
        told = [{"name": c.name, "args": c.args, "id": c.id, "type": "tool_call"} for c in self._message]
        return AIMessage("" if calls else "Done.", tool_calls=json.loads(json.dumps(told)))

    @property
    def parallel(self) -> bool:
        """Whether the message being played has several calls."""
        return len(self._message) > 1

    def arrive(self, name: str, args: Mapping[str, Any]) -> tuple[int, Call | None]:
        """Take the call that reached its tool: among identical ones of the message, the first that has not yet.

        Returns:
            Its position in the message and the call; None for a call that the message does not ask for.
        """
        with self._lock:
            self.reached += 1
            waiting = self._waiting.get(key_of(name, args))
            if not waiting:
                self.stray += 1
                return -1, None
            position = waiting.popleft()
            self._ran[position] = [next(self._ticks)]
            return position, self._message[position]

    def leave(self, position: int) -> None:
        """Note that a call has left its tool."""
        with self._lock:
            self._ran[position].append(next(self._ticks))

    def enter(self, name: str, args: Mapping[str, Any]) -> tuple[str, int, Call | None]:
        """Take a call in: from the dictionary of the control, if it is there, else as one that reached its tool."""
        known = self._memo.get(key_of(name, args))
        if known is not None:
            return known, -1, None
        position, call = self.arrive(name, args)
        return "nobody asked for this", position, call

    def answer(self, position: int, call: Call) -> str:
        """Answer a call as recorded.

        Raises:
            RecordedError: So it was recorded, and errors are raised.
        """
        self.leave(position)
        if self.setting.raised and call.is_error:
            raise RecordedError(call.result)
        if self.setting.guard == CONTROL:
            self._memo[call.key] = call.result
        return call.result

    def settle(self) -> None:
        """Judge the message that has been played: its writes must have run, and in the declared order."""
        for position, call in enumerate(self._message):
            if position not in self._ran:
                self.suppressed += call.kind == "write"
                continue
            for earlier in range(position):
                ran = self._ran.get(earlier)
                if ran and conflict(self.policy, self._message[earlier], call):
                    self.disordered += ran[-1] > self._ran[position][0]

    def wrong(self, messages: Iterable[AnyMessage], *, raised: bool) -> list[str]:
        """Compare what the model was given with what was recorded.

        Args:
            messages: The state of the graph in the end.
            raised: Whether recorded errors were raised by their tools.

        Returns:
            One line for each difference.
        """
        given: dict[int, list[ToolMessage]] = defaultdict(list)
        message = -1
        for each in messages:
            if isinstance(each, AIMessage):
                message += bool(each.tool_calls)
            elif isinstance(each, ToolMessage):
                given[message].append(each)
        found = []
        for index, calls in enumerate(self.conversation.messages):
            for call, got in itertools.zip_longest(calls, given[index]):
                status = "error" if call and call.is_error and raised else "success"
                expected = call and (call.id, status, call.result)
                actual = got and (got.tool_call_id, got.status, got.content)
                if expected != actual:
                    found.append(
                        f"{self.conversation.id}, message {index}, {call and call.key}: {actual} for {expected}"
                    )
        return found


def answer(name: str, args: dict[str, Any]) -> str:
    """Answer a call of the conversation that is being played."""
    played = PLAYING.get()
    known, position, call = played.enter(name, args)
    if call is None:
        return known
    if played.parallel:
        time.sleep(PAUSE)
    return played.answer(position, call)


async def aanswer(name: str, args: dict[str, Any]) -> str:
    """Answer a call, and let others run meanwhile."""
    played = PLAYING.get()
    known, position, call = played.enter(name, args)
    if call is None:
        return known
    await asyncio.sleep(PAUSE if played.parallel else 0)
    return played.answer(position, call)


def tool_of(name: str, args: list[str], *, sync: bool) -> StructuredTool:
    """Make the tool of that name, with a schema as open as the recordings are.

    Its function holds nothing but the name: so it is the same tool in every process.
    """

    def run(**given: Any) -> str:
        return answer(name, given)

    async def arun(**given: Any) -> str:
        return await aanswer(name, given)

    return StructuredTool(
        name=name,
        description=f"{name}, as recorded",
        args_schema={"type": "object", "properties": {arg: {} for arg in args}, "additionalProperties": True},
        **({"func": run} if sync else {"coroutine": arun}),
    )


def build(
    conversations: list[Conversation], setting: Setting, checkpointer: BaseCheckpointSaver[Any] | None = None
) -> CompiledStateGraph:
    """Build the graph that plays these conversations, under the guard of the setting.

    Args:
        conversations: Of one domain.
        setting: How they are played.
        checkpointer: Keeps the threads; None: one in memory.
    """
    names = argument_names(conversations)
    tools = [tool_of(name, args, sync=setting.sync) for name, args in names.items()]
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda _: {"messages": [PLAYING.get().speak()]})
    builder.add_node("tools", ToolNode(tools, handle_tool_errors=as_recorded))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    builder.add_edge("tools", "model")
    graph = builder.compile(checkpointer=InMemorySaver() if checkpointer is None else checkpointer)
    if setting.guard == READS:
        return ibidem.wrap(graph, ibidem.Guard(reads=reading_tools(conversations), store=setting.store))
    if setting.guard == DECLARED:
        policy = POLICIES[conversations[0].domain]
        effects = {name: policy[name] for name in names if name in policy}
        return ibidem.wrap(graph, ibidem.Guard(effects=effects, store=setting.store))
    return graph
