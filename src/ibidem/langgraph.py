"""The adapter for LangGraph: `ToolNode` and compiled graphs."""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode as PlainToolNode
from langgraph.pregel import Pregel

from ibidem import langchain
from ibidem.core.asker import NOBODY
from ibidem.core.effects import Effect
from ibidem.core.keys import NoExactKey, canonical
from ibidem.functions import another_guard
from ibidem.guard import Bound, Guard
from ibidem.wrapping import binding_of


def adapt(target: Any, bound: Bound, effect: Effect | None = None) -> Any:
    """Wrap a ToolNode or a compiled graph; the very same object comes back where there is nothing to wrap.

    Raises:
        TypeError: An effect is of one tool, not of a node or a graph.
        ValueError: A tool in it already passes another guard.
    """
    if effect is not None:
        raise TypeError(f"{effect!r} is the effect of one tool: for a node or a graph use effects={{name: effect}}")
    return _Walk(bound).visit(target)


_PLUMBING = ("langchain_core.runnables", "langgraph.")
"""Where the classes come from that only hold together what does the work."""


class _Guarded(PlainToolNode):
    """A ToolNode whose calls pass a guard.

    The tools of the node stay the user's own; each call is handed on with its tool replaced by the twin, below whatever
    `wrap_tool_call` does. Each run is one of a *view* of the node: a shallow copy that knows its turn.
    """

    __ibidem__: Bound
    _turn: _Turn | None = None

    @functools.wraps(PlainToolNode._func)
    def _func(self, input: Any, config: Any, runtime: Any) -> Any:  # noqa: A002
        return super(_Guarded, self._view(in_threads=True))._func(input, config, runtime)

    @functools.wraps(PlainToolNode._afunc)
    async def _afunc(self, input: Any, config: Any, runtime: Any) -> Any:  # noqa: A002
        return await super(_Guarded, self._view(in_threads=False))._afunc(input, config, runtime)

    def _view(self, *, in_threads: bool) -> Any:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, _turn=_Turn(in_threads=in_threads))
        return view

    def _parse_input(self, input: Any) -> Any:  # noqa: A002
        calls, kind = super()._parse_input(input)
        if self._turn is None or not self._turn.in_threads or len(calls) < 2:
            return calls, kind
        self._turn.order = _leaders_first(calls)
        return [calls[n] for n in self._turn.order], kind

    def _combine_tool_outputs(self, outputs: Any, input_type: Any) -> Any:
        if self._turn is not None and self._turn.order:
            ordered = dict(zip(self._turn.order, outputs, strict=True))
            outputs = [ordered[n] for n in range(len(outputs))]
        return super()._combine_tool_outputs(outputs, input_type)

    def _execute_tool_sync(self, request: Any, input_type: Any, config: Any) -> Any:
        twin = self._twin(request)
        if twin is None:
            return super()._execute_tool_sync(request, input_type, config)
        with self._place(twin, request):
            message = twin.__ibidem_binding__.hit(twin, request.tool_call, config)
            if message is None:
                return super()._execute_tool_sync(request.override(tool=twin), input_type, config)
        return self._normalize_tool_response(message, request.tool_call, input_type)

    async def _execute_tool_async(self, request: Any, input_type: Any, config: Any) -> Any:
        twin = self._twin(request)
        if twin is None:
            return await super()._execute_tool_async(request, input_type, config)
        with self._place(twin, request):
            message = twin.__ibidem_binding__.hit(twin, request.tool_call, config)
            if message is None:
                return await super()._execute_tool_async(request.override(tool=twin), input_type, config)
        return self._normalize_tool_response(message, request.tool_call, input_type)

    def _twin(self, request: Any) -> Any:
        tool = request.tool
        known = self._twins.get(tool.name) if tool is not None else None
        if known is not None and known[0] is tool:
            return known[1]
        return None if tool is None else langchain.adapt(tool, self.__ibidem__)

    def _place(self, twin: Any, request: Any) -> Any:
        """Say for one call whether one that comes earlier in the same message may change what it reads."""
        if not twin.__ibidem_binding__.tool.effect.merge:
            return _NOTHING
        turn = self._turn or _Turn(in_threads=False)
        if turn.behind is None:
            turn.behind = self._behind(_siblings(request.state, self._messages_key))
        return langchain.behind_others() if request.tool_call["id"] in turn.behind else _NOTHING

    def _behind(self, calls: Sequence[Any]) -> frozenset[Any]:
        """Give the ids of the calls that come after one that may change something."""
        for number, call in enumerate(calls):
            known = self._twins.get(call["name"])
            if known is None or known[1].__ibidem_binding__.tool.effect.changes:
                return frozenset(later["id"] for later in calls[number + 1 :])
        return frozenset()

    @functools.cached_property
    def _twins(self) -> dict[str, tuple[Any, Any]]:
        """The twins of the node's own tools by name."""
        return {name: (tool, langchain.adapt(tool, self.__ibidem__)) for name, tool in self.tools_by_name.items()}


class _Turn:
    """What one run of a node knows of its calls."""

    __slots__ = ("behind", "in_threads", "order")

    def __init__(self, *, in_threads: bool) -> None:
        self.in_threads = in_threads
        """Whether its calls take threads of an executor with a bound."""
        self.order: Sequence[int] = ()
        """The order in which the calls are started, where it is not that of emission."""
        self.behind: frozenset[Any] | None = None
        """The ids of calls that come after one that may change something, once somebody asked."""


_NOTHING: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


def _siblings(state: Any, key: str) -> Sequence[Any]:
    """Give the calls of the message that a call comes from."""
    messages = state if isinstance(state, list) else state.get(key) if isinstance(state, dict) else getattr(state, key, None)
    for message in reversed(messages or ()):
        if isinstance(message, AIMessage):
            return message.tool_calls
    return ()


def _leaders_first(calls: Sequence[Any]) -> list[int]:
    """Order a turn so that no thread waits for a call that has none yet: repeats come after what they repeat."""
    seen = set()
    leaders, followers = [], []
    for number, call in enumerate(calls):
        try:
            key = (call["name"], canonical(call["args"]))
        except NoExactKey:
            leaders.append(number)
            continue
        (followers if key in seen else leaders).append(number)
        seen.add(key)
    return [*leaders, *followers]


class ToolNode(_Guarded):
    """LangGraph's `ToolNode` with a guard.

    Args:
        tools: As LangGraph's.
        guard: The guard that its calls pass; None: one of its own.
        **options: LangGraph's own.
    """

    def __init__(self, tools: Sequence[BaseTool | Callable[..., Any]], *, guard: Guard | Bound | None = None, **options: Any) -> None:
        self.__ibidem__ = guard if isinstance(guard, Bound) else Bound(guard or Guard(), NOBODY)
        super().__init__(tools, **options)
        _meet(self)


def _meet(node: _Guarded) -> None:
    """Declare the tools of a node, so that what is wrong with a declaration is said at once."""
    for tool, _ in node._twins.values():
        langchain.adapt(tool, node.__ibidem__)


@functools.lru_cache(maxsize=256)
def _guarded_class(cls: type[PlainToolNode]) -> type[_Guarded]:
    if cls is PlainToolNode:
        return _Guarded
    return type(cls.__name__, (_Guarded, cls), {"__module__": cls.__module__, "__qualname__": cls.__qualname__})


class _Walk:
    """Wraps what it finds in a graph, and copies only what holds something wrapped."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._done: dict[int, tuple[Any, Any]] = {}

    def visit(self, thing: Any) -> Any:
        """Give the wrapped form of a thing, or the thing itself."""
        if id(thing) in self._done:
            return self._done[id(thing)][1]
        self._done[id(thing)] = (thing, thing)  # a circle ends at the thing itself
        wrapped = self._visit(thing)
        self._done[id(thing)] = (thing, wrapped)
        return wrapped

    def _visit(self, thing: Any) -> Any:
        if isinstance(thing, PlainToolNode):
            return self._tool_node(thing)
        if isinstance(thing, BaseTool):
            return langchain.adapt(thing, self._bound)
        if isinstance(thing, Pregel):
            return self._graph(thing)
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if isinstance(thing, Runnable) and type(thing).__module__.startswith(_PLUMBING):
            return self._attributes(thing)
        return thing

    def _tool_node(self, node: PlainToolNode) -> Any:
        already = binding_of(node)
        if already is not None:
            if already.guard is not self._bound.guard:
                raise another_guard(node)
            if already.given == self._bound.given:
                _meet(node)  # type: ignore[arg-type]
                return node
        twin: Any = copy.copy(node)
        twin.__class__ = node.__class__ if already is not None else _guarded_class(type(node))
        twin.__ibidem__ = self._bound
        twin.__dict__.pop("_twins", None)
        twin.func, twin.afunc = twin._func, twin._afunc  # a copy keeps those of the node it was copied from
        _meet(twin)
        return twin

    def _graph(self, graph: Pregel) -> Any:
        already = binding_of(graph)
        if already is not None and already.guard is not self._bound.guard:
            raise another_guard(graph)
        nodes = {name: self._node(node) for name, node in graph.nodes.items()}
        builder = getattr(graph, "builder", None)
        specs = {name: self._spec(spec) for name, spec in builder.nodes.items()} if builder is not None else {}
        same = all(nodes[name] is node for name, node in graph.nodes.items())
        if same and (builder is None or all(specs[name] is spec for name, spec in builder.nodes.items())):
            return graph
        twin: Any = copy.copy(graph)
        twin.nodes = nodes
        if builder is not None:
            twin.builder = copy.copy(builder)
            twin.builder.nodes = specs
        twin.__dict__["__ibidem__"] = self._bound
        return twin

    def _node(self, node: Any) -> Any:
        bound = self.visit(node.bound)
        subgraphs = [self.visit(graph) for graph in node.subgraphs or ()]
        same = all(new is old for new, old in zip(subgraphs, node.subgraphs or (), strict=True))
        return node if bound is node.bound and same else node.copy({"bound": bound, "subgraphs": subgraphs})

    def _spec(self, spec: Any) -> Any:
        runnable = self.visit(spec.runnable)
        return spec if runnable is spec.runnable else _with(spec, runnable=runnable)

    def _attributes(self, thing: Any) -> Any:
        changed = {name: found for name, held in vars(thing).items() if (found := self._held(held)) is not held}
        return _with(thing, **changed) if changed else thing

    def _function(self, function: types.FunctionType) -> Any:
        """Give a function whose closure holds tools or graphs one that holds the wrapped ones: a supervisor's, say."""
        cells = list(function.__closure__ or ())
        for number, cell in enumerate(cells):
            try:
                held = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            found = self._held(held)
            if found is not held:
                cells[number] = types.CellType(found)
        if all(new is old for new, old in zip(cells, function.__closure__ or (), strict=True)):
            return function
        twin = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
        )
        twin.__kwdefaults__ = function.__kwdefaults__
        twin.__dict__.update(function.__dict__)
        for name in ("__module__", "__qualname__", "__doc__", "__annotations__"):
            setattr(twin, name, getattr(function, name))
        return twin

    def _held(self, held: Any) -> Any:
        """Wrap what an attribute or a cell holds: one thing, or a list or dict of them."""
        if isinstance(held, (Runnable, types.FunctionType)):
            return self.visit(held)
        if type(held) is dict:
            found = {name: self._held(each) for name, each in held.items()}
            return found if any(found[name] is not each for name, each in held.items()) else held
        if type(held) in (list, tuple):
            each_found = [self._held(each) for each in held]
            same = all(new is old for new, old in zip(each_found, held, strict=True))
            return held if same else type(held)(each_found)
        return held


def _with(thing: Any, **changes: Any) -> Any:
    twin = copy.copy(thing)
    for name, value in changes.items():
        object.__setattr__(twin, name, value)
    return twin
