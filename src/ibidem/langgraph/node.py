"""The guarded ToolNode: every call of a turn passes the guard below whatever the node's own wrappers do."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode as PlainToolNode

from ibidem import langchain
from ibidem.bound import Bound
from ibidem.core.asker import NOBODY
from ibidem.core.call import Outcome
from ibidem.core.turns import Place, Turn
from ibidem.guard import Guard
from ibidem.langchain.binding import Binding
from ibidem.langchain.failures import deciding, is_default, message_for, note_misuse, unmade
from ibidem.langchain.shape import listens
from ibidem.langgraph.kept import Begun, Gave, Kept
from ibidem.langgraph.turns import (
    NodeRun,
    arrives,
    asked,
    effects,
    let_ask_for,
    matters,
    sibling_place,
    start_order,
    under_way,
)


class GuardedNode(PlainToolNode):
    """A ToolNode whose calls pass a guard.

    The tools of the node stay the user's own; each call is handed on with its tool replaced by the twin, below whatever
    `wrap_tool_call` does. What belongs to one run of the node lies in a context variable, not in the node.
    """

    __ibidem__: Bound
    sent_whole: bool = False
    """Whether the graph sends all calls of a message, each in a task of its own, as the message has them."""

    def __repr__(self) -> str:
        plain: Any = object.__new__(PlainToolNode)
        plain.__dict__.update(
            {name: held for name, held in self.__dict__.items() if name not in {"__ibidem__", *_CACHED}}
        )
        return repr(plain)

    @functools.wraps(PlainToolNode._func)
    def _func(self, input: Any, config: Any, runtime: Any) -> Any:  # type: ignore[override]  # noqa: A002
        with NodeRun(config, in_threads=True):
            return super()._func(input, config, runtime)

    @functools.wraps(PlainToolNode._afunc)
    async def _afunc(self, input: Any, config: Any, runtime: Any) -> Any:  # type: ignore[override]  # noqa: A002
        async with NodeRun(config, in_threads=False):
            return await super()._afunc(input, config, runtime)

    def _parse_input(self, input: Any) -> Any:  # noqa: A002
        """Look at the whole turn before anything starts: answer what is known, and order what waits behind the rest."""
        calls, kind = super()._parse_input(input)
        run = under_way.get()
        one = kind == "tool_calls" and len(calls) < 2  # Send brings the calls of a turn one by one
        if run is None or one or self.__ibidem__.guard.off:
            return calls, kind
        if len({id(call) for call in calls}) < len(calls):
            calls = [call.copy() for call in calls]  # the same one twice: each has a place of its own
        plain = self._is_plain
        turn = Turn(asked(self._twins, calls), sure=plain) if matters(self._twins, calls) else None
        if turn is not None and plain:
            let_ask_for(turn, self._twins, calls, run.config)
        run.kept = kept = Kept.of(calls, effects(self._twins, calls))
        if kept is not None:
            run.answers = {
                number: self._again(calls[number], known, turn, number) for number, known in kept.ended.items()
            }
        if plain:
            run.answers |= self._answers(calls, kind, turn, run)
        rest = [number for number in range(len(calls)) if number not in run.answers]
        run.order = start_order(calls, rest, self._twins, turn) if run.in_threads else rest
        if kept is not None:
            first = kept.first(turn, run.order)
            run.order = [*first, *(number for number in run.order if number not in first)]
        run.places = {id(calls[number]): turn.places[number] for number in rest} if turn is not None else {}
        return [calls[number] for number in run.order], kind

    def _again(self, call: Any, known: Gave | Begun, turn: Turn | None, number: int) -> Any:
        """Give what a call gave before somebody was asked, and its place in the turn the end that it had."""
        if turn is not None:
            turn.places[number].end(known.told if isinstance(known, Gave) else "unknown")
        return self._gave(call, known)

    def _gave(self, call: Any, known: Gave | Begun, place: Place | None = None) -> Any:
        if isinstance(known, Gave):
            return known.output
        if place is not None:
            place.tell(Outcome(fault=known.fault))
        return unmade(self._twins[call["name"]][1].__ibidem_binding__, call, known.fault)

    def _answers(self, calls: Sequence[Any], kind: Any, turn: Turn | None, run: NodeRun) -> dict[int, Any]:
        """Give the calls of a turn that are remembered; wrappers of the node would want to see them, so it has none."""
        found: dict[int, Any] = {}
        if listens(run.config):
            return found
        for number, call in enumerate(calls):
            known = self._twins.get(call["name"]) if number not in run.answers else None
            place = turn.places[number] if turn is not None else None
            if known is None or (place is not None and (place.behind or place.is_ordered)):
                continue
            at = place.number if place is not None else 0
            message = known[1].__ibidem_binding__.hit(known[1], call, run.config, quiet=True, number=at)
            if message is not None:
                found[number] = self._normalize_tool_response(message, call, kind)
                if place is not None:
                    place.end("done")
                if run.kept is not None:
                    run.kept.keep(call, found[number], "done")
        return found

    def _combine_tool_outputs(self, outputs: Any, input_type: Any) -> Any:
        run = under_way.get()
        if run is not None and run.order is not None:
            done = {**run.answers, **dict(zip(run.order, outputs, strict=True))}
            outputs = [done[number] for number in range(len(done))]
        return super()._combine_tool_outputs(outputs, input_type)

    def _run_one(self, call: Any, input_type: Any, tool_runtime: Any) -> Any:
        run, place = under_way.get(), self._place(call, tool_runtime)
        kept = run.kept if run is not None else None
        if kept is None:
            with place or _NOWHERE:
                return super()._run_one(call, input_type, tool_runtime)
        with place or _NOWHERE:
            known = kept.before(call)
            if known is not None:
                return self._gave(call, known, place)
            with kept.around(call, tool_runtime):
                output = super()._run_one(call, input_type, tool_runtime)
        kept.keep(call, output, place.state if place is not None else "done")
        return output

    async def _arun_one(self, call: Any, input_type: Any, tool_runtime: Any) -> Any:
        run, place = under_way.get(), self._place(call, tool_runtime)
        kept = run.kept if run is not None else None
        if kept is None:
            with place or _NOWHERE:
                return await super()._arun_one(call, input_type, tool_runtime)
        with place or _NOWHERE:
            known = await kept.abefore(call)
            if known is not None:
                return self._gave(call, known, place)
            with kept.around(call, tool_runtime):
                output = await super()._arun_one(call, input_type, tool_runtime)
        kept.keep(call, output, place.state if place is not None else "done")
        await kept.alate()
        return output

    def _place(self, call: Any, tool_runtime: Any) -> Place | None:
        """Give the place of a call in its turn; None where no order is to be kept."""
        run = under_way.get()
        if run is not None and run.places is not None:
            return run.places.get(id(call))
        guard = self.__ibidem__.guard
        if guard.off:
            return None
        state, config = tool_runtime.state, tool_runtime.config
        key = self._messages_key
        return sibling_place(
            guard, self._twins, call, state, key, config, whole=lambda: self.sent_whole and self._is_plain
        )

    @property
    def _is_plain(self) -> bool:
        """Whether nothing of the user's stands between the message and the tools."""
        return self._wrap_tool_call is None and self._awrap_tool_call is None and _runs_plainly(self.__class__)

    def _execute_tool_sync(self, request: Any, input_type: Any, config: Any) -> Any:
        twin = self._twin(request)
        if twin is None:
            return super()._execute_tool_sync(request, input_type, config)
        arrives(twin, request.tool_call)
        message = twin.__ibidem_binding__.hit(twin, request.tool_call, config)
        if message is None:
            return self._told(twin, request, input_type, config)
        return self._normalize_tool_response(message, request.tool_call, input_type)

    async def _execute_tool_async(self, request: Any, input_type: Any, config: Any) -> Any:
        twin = self._twin(request)
        if twin is None:
            return await super()._execute_tool_async(request, input_type, config)
        arrives(twin, request.tool_call)
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
        if tool is None:
            return None
        own: Binding | None = getattr(tool, "__ibidem_binding__", None)
        if own is not None and own.guard is not self.__ibidem__.guard:
            note_misuse(own.tool)  # a middleware's: what `adapt` raises is for the program, not for its model
        return langchain.adapt(tool, self.__ibidem__)

    @functools.cached_property
    def _twins(self) -> dict[str, tuple[Any, Any]]:
        """The twins of the node's own tools by name."""
        return {name: (tool, langchain.adapt(tool, self.__ibidem__)) for name, tool in self.tools_by_name.items()}


_CACHED = ("_twins", "_raising")
"""What a node works out once, and a copy of it must work out anew."""


_NOWHERE: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


@functools.lru_cache(maxsize=256)
def _runs_plainly(cls: type[PlainToolNode]) -> bool:
    """Whether a node leaves the running of calls to LangGraph: a subclass may check them on the way."""
    for name in ("_run_one", "_arun_one", "_execute_tool_sync", "_execute_tool_async", "_inject_tool_args"):
        owner = next((base for base in cls.__mro__ if name in vars(base) and base is not GuardedNode), None)
        if owner not in (PlainToolNode, None):
            return False
    return True


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
        toolbox = self.__ibidem__.guard.toolbox
        with toolbox.looking() as found:
            meet(self)
        toolbox.review(found)


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
