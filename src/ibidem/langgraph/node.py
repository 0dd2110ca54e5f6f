"""The guarded ToolNode: every call of a turn passes the guard below whatever the node's own wrappers do."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode as PlainToolNode

from ibidem import langchain
from ibidem.bound import Bound
from ibidem.core.asker import NOBODY
from ibidem.core.effects import Pure
from ibidem.core.keys import NoExactKey, canonical
from ibidem.core.resources import Resource, overlap
from ibidem.guard import Guard
from ibidem.langchain.binding import Binding, behind_others
from ibidem.langchain.failures import deciding, is_default, message_for
from ibidem.langchain.shape import listens


class GuardedNode(PlainToolNode):
    """A ToolNode whose calls pass a guard.

    The tools of the node stay the user's own; each call is handed on with its tool replaced by the twin, below whatever
    `wrap_tool_call` does. What belongs to one run of the node lies in a context variable, not in the node.
    """

    __ibidem__: Bound

    def __repr__(self) -> str:
        plain: Any = object.__new__(PlainToolNode)
        plain.__dict__.update(
            {name: held for name, held in self.__dict__.items() if name not in {"__ibidem__", *_CACHED}}
        )
        return repr(plain)

    @functools.wraps(PlainToolNode._func)
    def _func(self, input: Any, config: Any, runtime: Any) -> Any:  # type: ignore[override]  # noqa: A002
        token = _turn.set(_Turn(config, in_threads=True))
        try:
            return super()._func(input, config, runtime)
        finally:
            _turn.reset(token)

    @functools.wraps(PlainToolNode._afunc)
    async def _afunc(self, input: Any, config: Any, runtime: Any) -> Any:  # type: ignore[override]  # noqa: A002
        token = _turn.set(_Turn(config, in_threads=False))
        try:
            return await super()._afunc(input, config, runtime)
        finally:
            _turn.reset(token)

    def _parse_input(self, input: Any) -> Any:  # noqa: A002
        """Look at the whole turn before anything starts: answer what is known, and put repeats behind their leaders."""
        calls, kind = super()._parse_input(input)
        turn = _turn.get()
        one = kind == "tool_calls" and len(calls) < 2  # Send brings the calls of a turn one by one
        if turn is None or one or self.__ibidem__.guard.off:
            return calls, kind
        behind = turn.behind = self._behind(calls)
        if self._wrap_tool_call is None and self._awrap_tool_call is None and _runs_plainly(self.__class__):
            turn.answers = self._answers(calls, kind, behind, turn.config)
        rest = [number for number in range(len(calls)) if number not in turn.answers]
        turn.order = self._leaders_first(calls, rest, behind) if turn.in_threads else rest
        return [calls[number] for number in turn.order], kind

    def _answers(self, calls: Sequence[Any], kind: Any, behind: frozenset[Any], config: Any) -> dict[int, Any]:
        """Give the calls of a turn that are remembered; wrappers of the node would want to see them, so it has none."""
        found: dict[int, Any] = {}
        if listens(config):
            return found
        for number, call in enumerate(calls):
            known = self._twins.get(call["name"])
            if known is not None and call["id"] not in behind:
                message = known[1].__ibidem_binding__.hit(known[1], call, config, quiet=True)
                if message is not None:
                    found[number] = self._normalize_tool_response(message, call, kind)
        return found

    def _combine_tool_outputs(self, outputs: Any, input_type: Any) -> Any:
        turn = _turn.get()
        if turn is not None and turn.order is not None:
            done = {**turn.answers, **dict(zip(turn.order, outputs, strict=True))}
            outputs = [done[number] for number in range(len(done))]
        return super()._combine_tool_outputs(outputs, input_type)

    def _execute_tool_sync(self, request: Any, input_type: Any, config: Any) -> Any:
        twin = self._twin(request)
        if twin is None:
            return super()._execute_tool_sync(request, input_type, config)
        with self._place(twin, request):
            message = twin.__ibidem_binding__.hit(twin, request.tool_call, config)
            if message is None:
                return self._told(twin, request, input_type, config)
        return self._normalize_tool_response(message, request.tool_call, input_type)

    async def _execute_tool_async(self, request: Any, input_type: Any, config: Any) -> Any:
        twin = self._twin(request)
        if twin is None:
            return await super()._execute_tool_async(request, input_type, config)
        with self._place(twin, request):
            message = twin.__ibidem_binding__.hit(twin, request.tool_call, config)
            if message is None:
                return await self._atold(twin, request, input_type, config)
        return self._normalize_tool_response(message, request.tool_call, input_type)

    def _told(self, twin: Any, request: Any, kind: Any, config: Any) -> Any:
        """Run a call; where the node has no handler of its own, a failure becomes the guard's message."""
        binding: Binding = twin.__ibidem_binding__
        request = request.override(tool=twin)
        if not binding.speaks:
            return super()._execute_tool_sync(request, kind, config)
        with deciding(binding.tool) as holder:
            if not is_default(self._handle_tool_errors):
                return super()._execute_tool_sync(request, kind, config)
            plainly: Any = super(GuardedNode, self._raising)
            try:
                return plainly._execute_tool_sync(request, kind, config)
            except Exception as problem:
                message = message_for(binding.guard, holder, request.tool_call, problem)
                if message is None:
                    raise
                return message

    async def _atold(self, twin: Any, request: Any, kind: Any, config: Any) -> Any:
        """Do the same on an event loop."""
        binding: Binding = twin.__ibidem_binding__
        request = request.override(tool=twin)
        if not binding.speaks:
            return await super()._execute_tool_async(request, kind, config)
        with deciding(binding.tool) as holder:
            if not is_default(self._handle_tool_errors):
                return await super()._execute_tool_async(request, kind, config)
            plainly: Any = super(GuardedNode, self._raising)
            try:
                return await plainly._execute_tool_async(request, kind, config)
            except Exception as problem:
                message = message_for(binding.guard, holder, request.tool_call, problem)
                if message is None:
                    raise
                return message

    @functools.cached_property
    def _raising(self) -> Any:
        """This node without a handler: LangGraph's own puts arguments that do not fit into words of its own."""
        node = copy.copy(self)
        node._handle_tool_errors = False
        return node

    def _twin(self, request: Any) -> Any:
        tool = request.tool
        if self.__ibidem__.guard.off:
            return None
        known = self._twins.get(tool.name) if tool is not None else None
        if known is not None and known[0] is tool:
            return known[1]
        return None if tool is None else langchain.adapt(tool, self.__ibidem__)

    def _place(self, twin: Any, request: Any) -> Any:
        """Say for one call whether one that comes earlier in the same message may change what it reads."""
        if not twin.__ibidem_binding__.tool.effect.merge:
            return _NOTHING
        turn = _turn.get() or _Turn(None, in_threads=False)
        if turn.behind is None:
            # A person may have edited a sibling: what it will really touch is not known from the message.
            turn.behind = self._behind(_siblings(request.state, self._messages_key), as_written=False)
        return behind_others() if request.tool_call["id"] in turn.behind else _NOTHING

    def _behind(self, calls: Sequence[Any], *, as_written: bool = True) -> frozenset[Any]:
        """Give the ids of the calls that come after one that may change what they read.

        Args:
            calls: Of one message.
            as_written: Whether they run with the arguments that stand there.
        """
        found: set[Any] = set()
        changed: list[tuple[Resource, ...] | None] = []
        for call in calls:
            known = self._twins.get(call["name"])
            binding: Binding | None = known[1].__ibidem_binding__ if known is not None else None
            changes = binding is None or binding.tool.effect.changes
            if not changed and not changes:
                continue
            touched = binding.touched(call["args"]) if binding is not None and as_written else None
            pure = binding is not None and isinstance(binding.tool.effect, Pure)
            if not pure and any(one is None or touched is None or overlap(one, touched) for one in changed):
                found.add(call["id"])
            if changes:
                changed.append(touched)
        return frozenset(found)

    def _leaders_first(self, calls: Sequence[Any], numbers: Sequence[int], behind: frozenset[Any]) -> list[int]:
        """Order a turn so that no thread waits for a call that has none yet: repeats come after what they repeat.

        Only what may be shared moves, and nothing moves past a call that may change something.
        """
        seen = set()
        order: list[int] = []
        repeats: list[int] = []
        for number in numbers:
            call = calls[number]
            known = self._twins.get(call["name"])
            effect = known[1].__ibidem_binding__.tool.effect if known is not None else None
            if effect is None or effect.changes:
                order.extend(repeats)
                repeats = []
            elif effect.merge and call["id"] not in behind:
                with contextlib.suppress(NoExactKey):
                    key = (call["name"], canonical(call["args"]))
                    if key in seen:
                        repeats.append(number)
                        continue
                    seen.add(key)
            order.append(number)
        return [*order, *repeats]

    @functools.cached_property
    def _twins(self) -> dict[str, tuple[Any, Any]]:
        """The twins of the node's own tools by name."""
        return {name: (tool, langchain.adapt(tool, self.__ibidem__)) for name, tool in self.tools_by_name.items()}


_CACHED = ("_twins", "_raising")
"""What a node works out once, and a copy of it must work out anew."""


class _Turn:
    """What one run of a node knows of its calls."""

    __slots__ = ("answers", "behind", "config", "in_threads", "order")

    def __init__(self, config: Any, *, in_threads: bool) -> None:
        self.config = config
        self.in_threads = in_threads
        """Whether its calls take threads of an executor with a bound."""
        self.behind: frozenset[Any] | None = None
        """The ids of calls that come after one that may change something, once somebody asked."""
        self.answers: dict[int, Any] = {}
        """What was remembered, by the number of the call in the message."""
        self.order: Sequence[int] | None = None
        """The numbers of the other calls in the order in which they start; None: as they came."""


_turn: ContextVar[_Turn | None] = ContextVar("ibidem_turn", default=None)
"""The run of a node that is under way here."""

_NOTHING: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


@functools.lru_cache(maxsize=256)
def _runs_plainly(cls: type[PlainToolNode]) -> bool:
    """Whether a node leaves the running of calls to LangGraph: a subclass may check them on the way."""
    for name in ("_run_one", "_arun_one", "_execute_tool_sync", "_execute_tool_async", "_inject_tool_args"):
        owner = next((base for base in cls.__mro__ if name in vars(base) and base is not GuardedNode), None)
        if owner not in (PlainToolNode, None):
            return False
    return True


def _siblings(state: Any, key: str) -> Sequence[Any]:
    """Give the calls of the message that a call comes from."""
    messages = (
        state if isinstance(state, list) else state.get(key) if isinstance(state, dict) else getattr(state, key, None)
    )
    for message in reversed(messages or ()):
        if isinstance(message, AIMessage):
            return message.tool_calls
    return ()


class ToolNode(GuardedNode):
    """LangGraph's `ToolNode` with a guard.

    Args:
        tools: As LangGraph's.
        guard: The guard that its calls pass; None: one of its own.
        **options: LangGraph's own.
    """

    def __init__(
        self, tools: Sequence[BaseTool | Callable[..., Any]], *, guard: Guard | Bound | None = None, **options: Any
    ) -> None:
        self.__ibidem__ = guard if isinstance(guard, Bound) else Bound(guard or Guard(), NOBODY)
        super().__init__(tools, **options)
        meet(self)


def meet(node: GuardedNode) -> None:
    """Declare the tools of a node, so that what is wrong with a declaration is said at once."""
    for tool, _ in node._twins.values():
        langchain.adapt(tool, node.__ibidem__)


def guarded(node: PlainToolNode, bound: Bound) -> GuardedNode:
    """Give a node of the same class that passes a guard; the one given stays as it is."""
    twin: Any = copy.copy(node)
    twin.__class__ = type(node) if isinstance(node, GuardedNode) else _guarded_class(type(node))
    twin.__ibidem__ = bound
    for name in _CACHED:
        twin.__dict__.pop(name, None)
    twin.func, twin.afunc = twin._func, twin._afunc  # a copy keeps those of the node it was copied from
    meet(twin)
    return twin  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=256)
def _guarded_class(cls: type[PlainToolNode]) -> type[GuardedNode]:
    bases = (GuardedNode,) if cls is PlainToolNode else (GuardedNode, cls)
    return type(cls.__name__, bases, {"__module__": cls.__module__, "__qualname__": cls.__qualname__})
