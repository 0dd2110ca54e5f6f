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
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import StructuredTool
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


@dataclass(eq=False)
class Played:
    """One conversation while it is played: what the model says next, and which calls reached their tools."""

    conversation: Conversation
    policy: Policy
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


class World:
    """What stands behind the tools of one run: the recordings, and in the control a dictionary before them."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.memo: dict[tuple[str, str], str] = {}

    def run(self, name: str, args: dict[str, Any]) -> str:
        """Answer a call."""
        known, position, call = self._enter(name, args)
        if call is None:
            return known
        if PLAYING.get().parallel:
            time.sleep(PAUSE)
        return self._leave(position, call)

    async def arun(self, name: str, args: dict[str, Any]) -> str:
        """Answer a call, and let others run meanwhile."""
        known, position, call = self._enter(name, args)
        if call is None:
            return known
        await asyncio.sleep(PAUSE if PLAYING.get().parallel else 0)
        return self._leave(position, call)

    def _enter(self, name: str, args: dict[str, Any]) -> tuple[str, int, Call | None]:
        played = PLAYING.get()
        known = self.memo.get((played.conversation.id, key_of(name, args)))
        if known is not None:
            return known, -1, None
        position, call = played.arrive(name, args)
        return "nobody asked for this", position, call

    def _leave(self, position: int, call: Call) -> str:
        played = PLAYING.get()
        played.leave(position)
        if self.setting.raised and call.is_error:
            raise RecordedError(call.result)
        if self.setting.guard == CONTROL:
            self.memo[played.conversation.id, call.key] = call.result
        return call.result

    def tool(self, name: str, args: list[str]) -> StructuredTool:
        """Make the tool of that name, with a schema as open as the recordings are."""

        def run(**given: Any) -> str:
            return self.run(name, given)

        async def arun(**given: Any) -> str:
            return await self.arun(name, given)

        return StructuredTool(
            name=name,
            description=f"{name}, as recorded",
            args_schema={"type": "object", "properties": {arg: {} for arg in args}, "additionalProperties": True},
            **({"func": run} if self.setting.sync else {"coroutine": arun}),
        )


def build(conversations: list[Conversation], setting: Setting) -> CompiledStateGraph:
    """Build the graph that plays these conversations, under the guard of the setting."""
    world = World(setting)
    names = argument_names(conversations)
    tools = [world.tool(name, args) for name, args in names.items()]
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda _: {"messages": [PLAYING.get().speak()]})
    builder.add_node("tools", ToolNode(tools, handle_tool_errors=as_recorded))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    builder.add_edge("tools", "model")
    graph = builder.compile(checkpointer=InMemorySaver())
    if setting.guard == READS:
        return ibidem.wrap(graph, ibidem.Guard(reads=reading_tools(conversations)))
    if setting.guard == DECLARED:
        policy = POLICIES[conversations[0].domain]
        return ibidem.wrap(graph, ibidem.Guard(effects={name: policy[name] for name in names if name in policy}))
    return graph
