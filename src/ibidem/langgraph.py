"""The adapter for LangGraph: `ToolNode` and compiled graphs."""

from __future__ import annotations

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
    `wrap_tool_call` does. A turn that runs in threads is a *view* of the node: a shallow copy that knows its order.
    """

    __ibidem__: Bound
    _order: Sequence[int] | None = None

    @functools.wraps(PlainToolNode._func)
    def _func(self, input: Any, config: Any, runtime: Any) -> Any:  # noqa: A002
        turn = copy.copy(self)
        turn._order = ()
        return super(_Guarded, turn)._func(input, config, runtime)

    def _parse_input(self, input: Any) -> Any:  # noqa: A002
        calls, kind = super()._parse_input(input)
        if self._order is None or len(calls) < 2:
            return calls, kind
        self._order = _leaders_first(calls)
        return [calls[n] for n in self._order], kind

    def _combine_tool_outputs(self, outputs: Any, input_type: Any) -> Any:
        if self._order:
            ordered = dict(zip(self._order, outputs, strict=True))
            outputs = [ordered[n] for n in range(len(outputs))]
        return super()._combine_tool_outputs(outputs, input_type)

    def _execute_tool_sync(self, request: Any, input_type: Any, config: Any) -> Any:
        twin = self._twin(request)
        if twin is None:
            return super()._execute_tool_sync(request, input_type, config)
        token = langchain.behind.set(self._is_behind(request))
        try:
            message = twin.__ibidem_binding__.hit(twin, {**request.tool_call, "type": "tool_call"}, config)
            if message is not None:
                return self._normalize_tool_response(message, request.tool_call, input_type)
            return super()._execute_tool_sync(request.override(tool=twin), input_type, config)
        finally:
            langchain.behind.reset(token)

    async def _execute_tool_async(self, request: Any, input_type: Any, config: Any) -> Any:
        twin = self._twin(request)
        if twin is None:
            return await super()._execute_tool_async(request, input_type, config)
        token = langchain.behind.set(self._is_behind(request))
        try:
            message = twin.__ibidem_binding__.hit(twin, {**request.tool_call, "type": "tool_call"}, config)
            if message is not None:
                return self._normalize_tool_response(message, request.tool_call, input_type)
            return await super()._execute_tool_async(request.override(tool=twin), input_type, config)
        finally:
            langchain.behind.reset(token)

    def _twin(self, request: Any) -> Any:
        return None if request.tool is None else langchain.adapt(request.tool, self.__ibidem__)

    def _is_behind(self, request: Any) -> bool:
        """Whether a call that comes earlier in the same message may change what this one reads."""
        for call in _siblings(request.state, self._messages_key):
            if call["id"] == request.tool_call["id"]:
                return False
            tool = self._tools_by_name.get(call["name"])
            if tool is None or langchain.effect_of(tool, self.__ibidem__).changes:
                return True
        return False


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
    for tool in node.tools_by_name.values():
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
