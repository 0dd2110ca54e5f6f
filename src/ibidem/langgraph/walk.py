"""The walk through a compiled graph: it wraps the tools it finds, and copies only what holds something wrapped.

Not reachable: tools behind bound methods or in the globals of a node's function, and tools made at run time. The docs
say so.
"""

from __future__ import annotations

import copy
import functools
import types
from typing import Any

from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode as PlainToolNode
from langgraph.pregel import Pregel

from ibidem import langchain
from ibidem.bound import Bound
from ibidem.core.effects import Effect
from ibidem.functions import another_guard
from ibidem.langgraph.node import GuardedNode, guarded, meet
from ibidem.wrapping import binding_of

_PLUMBING = ("langchain_core.runnables", "langgraph.")
"""Where the classes come from that only hold together what does the work."""


def adapt(target: Any, bound: Bound, effect: Effect | None = None) -> Any:
    """Wrap a ToolNode or a compiled graph; the very same object comes back where there is nothing to wrap.

    Raises:
        TypeError: An effect is of one tool, not of a node or a graph.
        ValueError: A tool in it already passes another guard.
    """
    if effect is not None:
        raise TypeError(f"{effect!r} is the effect of one tool: for a node or a graph use effects={{name: effect}}")
    return _Walk(bound).visit(target)


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
        if isinstance(thing, functools.partial):
            return self._partial(thing)
        if isinstance(thing, Runnable) and type(thing).__module__.startswith(_PLUMBING):
            return self._attributes(thing)
        return thing

    def _tool_node(self, node: PlainToolNode) -> Any:
        already = binding_of(node)
        if already is not None:
            if already.guard is not self._bound.guard:
                raise another_guard(node)
            if already.given == self._bound.given:
                meet(node)  # type: ignore[arg-type]
                return node
        return guarded(node, self._bound)

    def _graph(self, graph: Pregel[Any, Any, Any, Any]) -> Any:
        already = binding_of(graph)
        if already is not None and already.guard is not self._bound.guard:
            raise another_guard(graph)
        nodes = {name: self._node(node) for name, node in graph.nodes.items()}
        builder = getattr(graph, "builder", None)
        if _sends_whole_messages(builder):
            for name, node in nodes.items():
                if node is not graph.nodes[name] and isinstance(node.bound, GuardedNode):
                    node.bound.sent_whole = True
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

    def _partial(self, partial: functools.partial[Any]) -> Any:
        """LangGraph keeps a synchronous function for asynchronous graphs in one."""
        held = (partial.func, partial.args, partial.keywords)
        found = self._held(held)
        return partial if found is held else functools.partial(found[0], *found[1], **found[2])

    def _held(self, held: Any) -> Any:
        """Wrap what an attribute or a cell holds: one thing, or a list or dict of them."""
        if isinstance(held, (Runnable, types.FunctionType, functools.partial)):
            return self.visit(held)
        if type(held) is dict:
            found = {name: self._held(each) for name, each in held.items()}
            return found if any(found[name] is not each for name, each in held.items()) else held
        if type(held) in (list, tuple):
            each_found = [self._held(each) for each in held]
            same = all(new is old for new, old in zip(each_found, held, strict=True))
            return held if same else type(held)(each_found)
        return held


_SENDERS = ("langchain.agents.factory", "langgraph.prebuilt.chat_agent_executor")
"""Where the functions come from of which it is known that they send every call of a message, as it stands there."""


def _sends_whole_messages(builder: Any) -> bool:
    """Whether a graph is an agent of LangChain's in which nobody can change or drop calls after the model has made them."""
    if builder is None or any(name.endswith((".after_model", "post_model_hook")) for name in builder.nodes):
        return False
    branches = [branch for each in builder.branches.values() for branch in each.values()]
    return any(getattr(getattr(branch.path, "func", None), "__module__", "") in _SENDERS for branch in branches)


def _with(thing: Any, **changes: Any) -> Any:
    twin = copy.copy(thing)
    for name, value in changes.items():
        object.__setattr__(twin, name, value)
    return twin
