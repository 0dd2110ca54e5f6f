"""The ways in which a test, which knows nothing of it, meets ibidem."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import suites
from repeats import Repeats


class Way:
    """How tests are run; this one changes nothing."""

    wrapped = 0
    """How many objects were wrapped so far."""

    def calls(self) -> int:
        """Say how many calls passed the guard of the test that is running."""
        return 0

    def replays(self) -> int:
        """Say how many repeats so far were answered from the memo."""
        return 0

    @contextlib.contextmanager
    def test(self, item: pytest.Item) -> Iterator[None]:
        """Surround one test, its fixtures included."""
        yield


def make(name: str | None, guard: str) -> Way:
    """Return the way called *name*, its patches in place."""
    if name is None:
        return Way()
    way = Through(guard)
    ways = {"node": way.replace_node, "wrapped": way.wrap_node, "graph": way.wrap_graphs, "tools": way.wrap_tools}
    {**ways, "middleware": way.add_middleware}[name]()
    return way


class Through(Way):
    """Sends what tests make through a guard that is new for each of them."""

    def __init__(self, guard: str) -> None:
        self.options = suites.GUARDS[guard]
        self.repeats = Repeats(lambda: self.guard) if guard == "replayed" else None
        self.guard: Any = self.new_guard()
        """The guard of the running test; before the first one, of what modules make while they are imported."""
        self.every_tool = False
        self.testing = False
        """Whether a test is running; what is made before is wrapped test by test."""

    def new_guard(self) -> Any:
        import ibidem

        # Raising is what happens without ibidem; while a guard knows no other way, it has no option for it either.
        as_without = {"errors": "raise"} if "errors" in inspect.signature(ibidem.Guard).parameters else {}
        return ibidem.Guard(**as_without, **self.options)

    def calls(self) -> int:
        return self.guard.stats().calls

    def replays(self) -> int:
        return self.repeats.answers if self.repeats is not None else 0

    def wrap(self, value: Any) -> Any:
        """Return *value* wrapped by the current guard."""
        import ibidem

        twin = ibidem.wrap(value, self.guard)
        self.wrapped += twin is not value
        return twin

    @contextlib.contextmanager
    def test(self, item: pytest.Item) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            self.guard = self.new_guard()
            if self.every_tool:
                self.wrap_what_is_there(item, patch)
            self.testing = True
            try:
                yield
            finally:
                self.testing = False

    # -- the ways -----------------------------------------------------------------------------------------------

    def replace_node(self) -> None:
        import ibidem

        way = self

        class ToolNode(ibidem.ToolNode):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, guard=way.guard, **options)
                way.wrapped += 1

            if way.repeats is not None:

                def _execute_tool_sync(self, request: Any, kind: Any, config: Any) -> Any:
                    call = functools.partial(super()._execute_tool_sync, request, kind)
                    unheard = {**config, "callbacks": []}
                    return way.repeats.twice(lambda: call(config), lambda: call(unheard))

                async def _execute_tool_async(self, request: Any, kind: Any, config: Any) -> Any:
                    call = functools.partial(super()._execute_tool_async, request, kind)
                    unheard = {**config, "callbacks": []}
                    return await way.repeats.atwice(lambda: call(config), lambda: call(unheard))

        put(ToolNode)
        self.wrap_graphs()

    def wrap_node(self) -> None:
        from langgraph.prebuilt import ToolNode as Theirs

        way = self

        class Wrapping(type(Theirs)):
            """Makes a class that answers its constructor with a wrapped instance of theirs."""

            def __call__(cls, *args: Any, **options: Any) -> Any:
                return way.wrap(Theirs(*args, **options)) if cls is ToolNode else super().__call__(*args, **options)

            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, Theirs) if cls is ToolNode else super().__instancecheck__(instance)

        class ToolNode(Theirs, metaclass=Wrapping):
            pass

        put(ToolNode)
        self.wrap_graphs()

    def wrap_graphs(self) -> None:
        from langgraph.func import entrypoint
        from langgraph.graph import StateGraph

        for maker, method in ((StateGraph, "compile"), (entrypoint, "__call__")):
            setattr(maker, method, self.wrapping(getattr(maker, method)))

    def wrapping(self, made: Any) -> Any:
        @functools.wraps(made)
        def make(*args: Any, **options: Any) -> Any:
            return self.wrap(made(*args, **options))

        return make

    def add_middleware(self) -> None:
        """Add our middleware to every agent that has any, last in the list: the others see calls first, as without it."""
        from langchain import agents
        from langchain.agents import factory

        import ibidem

        create = factory.create_agent

        @functools.wraps(create)
        def make(*args: Any, middleware: Any = (), **options: Any) -> Any:
            self.wrapped += 1
            return create(*args, middleware=[*middleware, ibidem.Middleware(self.guard)], **options)

        for module in (agents, factory):
            module.create_agent = make  # type: ignore[attr-defined]

    def wrap_tools(self) -> None:
        """Wrap every tool as its constructor returns it, whatever made it: so nobody ever holds the original.

        Patching `invoke` and `run` instead would run a tool that overrides one of them twice.
        """
        from langchain_core.tools import BaseTool

        import ibidem

        metaclass: Any = type(BaseTool)
        construct = metaclass.__call__

        def call(cls: type, *args: Any, **options: Any) -> Any:
            made = construct(cls, *args, **options)
            ours = self.testing and isinstance(made, BaseTool) and ibidem.guard_of(made) is None
            return self.wrap_tool(made) if ours else made

        metaclass.__call__ = call
        self.every_tool = True

    def wrap_tool(self, tool: Any) -> Any:
        """Return *tool* wrapped, and asking twice where that is wanted."""
        twin = self.wrap(tool)
        if self.repeats is not None:
            self.repeats.patch(type(twin))
        return twin

    def wrap_what_is_there(self, item: pytest.Item, patch: pytest.MonkeyPatch) -> None:
        """Wrap, for one test, the tools that its module made at import and those among its parameters."""
        from langchain_core.tools import BaseTool

        places = [vars(item.module), item.callspec.params] if hasattr(item, "callspec") else [vars(item.module)]
        for place in places:
            for name, value in list(place.items()):
                if isinstance(value, BaseTool):
                    patch.setitem(place, name, self.wrap_tool(value))
                elif is_list_of_tools(value):
                    patch.setitem(place, name, [self.wrap_tool(each) for each in value])


def is_list_of_tools(value: Any) -> bool:
    """Whether *value* is a list of tools and nothing else."""
    from langchain_core.tools import BaseTool

    return isinstance(value, list) and bool(value) and all(isinstance(each, BaseTool) for each in value)


def put(node: type) -> None:
    """Put *node* where langgraph and its tests look for ToolNode, under the name that drawings of graphs show.

    Whoever writes ibidem.ToolNode gets a drawing that says so. A wrapped node must keep its name by itself.
    """
    from langgraph import prebuilt
    from langgraph.prebuilt import chat_agent_executor, tool_node

    node.__module__, node.__qualname__ = "langgraph.prebuilt.tool_node", "ToolNode"
    for module in (prebuilt, chat_agent_executor, tool_node):
        setattr(module, "ToolNode", node)
