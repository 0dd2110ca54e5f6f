"""The toolbox: the tools that a guard has met, each with the effect that was declared for it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ibidem.core.call import Tool
from ibidem.core.declarations import Declarations, check_fields
from ibidem.core.effects import Effect, Nested, Undeclared
from ibidem.core.policies import Breaker, Defaults
from ibidem.report.events import IbidemWarning

_PACKAGE = str(Path(__file__).parent) + os.sep


class Toolbox:
    """What a guard knows of its tools.

    Args:
        declarations: What the guard was told.
        defaults: What it was told about failures of all declared tools.
        trust_mcp: Whether an MCP server's hint counts as a declaration.
    """

    def __init__(self, declarations: Declarations, defaults: Defaults, *, trust_mcp: bool) -> None:
        self.tools: dict[str, Tool] = {}
        """The tools met so far, by name."""
        self._declarations = declarations
        self._defaults = defaults
        self._breakers: dict[str, Breaker] = {}
        self._trust_mcp = trust_mcp
        self.twins = Twins()
        self._looking = threading.local()
        self._warned: set[str] = set()

    def declare(self, tool: Tool, decorated: Effect | None = None, hinted: Effect | None = None) -> Tool:
        """Give a tool its effect, and remember it for `explain`. Called by adapters.

        Raises:
            ValueError: Contradicting declarations, or a template that names an argument the tool does not have.
        """
        effect, origin = self._declarations.effect_of(tool.name, decorated, hinted if self._trust_mcp else None)
        check_fields(tool.name, effect, tool.parameters)
        if effect.identity is not None or (effect.scope_spelled and effect.scope == "conversation"):
            tool = tool.replace(reason=None)  # spelled out: whoever wrote that takes it on
        if effect.identity is not None:
            named = f"named:{tool.name!r}:{effect.identity!r}"
            tool = tool.replace(identify=lambda: named)
        policies = self._defaults.policies(tool.name, effect)
        self._check_breaker(tool.name, policies.breaker)
        tool = tool.replace(effect=effect, origin=origin, policies=policies)
        if isinstance(effect, Nested):
            self._look_inside(tool)
        self.tools[tool.name] = tool
        self.saw(tool)
        return tool

    def _check_breaker(self, tool: str, breaker: Breaker | None) -> None:
        if breaker is None or breaker.name is None:
            return
        known = self._breakers.setdefault(breaker.name, breaker)
        if known != breaker:
            raise ValueError(
                f"tool {tool!r} says {breaker!r} and another tool {known!r}: one name is one breaker, write it once"
            )

    def _look_inside(self, tool: Tool) -> None:
        """Warn of graphs and nodes that a nested tool calls and that pass no guard: nobody sees what they change."""
        unseen = [
            name for name, thing in _held(tool.function) if _runs_tools(thing) and not hasattr(thing, "__ibidem__")
        ]
        if unseen and tool.name not in self._warned:
            self._warned.add(tool.name)
            _warn(
                f"tool {tool.name!r} is declared Nested(), but what it calls as {unseen[0]!r} passes no guard, so that "
                "its writes are not seen: wrap that with this guard before the tool is made"
            )

    def saw(self, tool: Tool) -> None:
        """Note a tool for whoever is looking through a graph or a list."""
        for found in getattr(self._looking, "stack", ()):
            found[tool.name] = tool

    @contextlib.contextmanager
    def looking(self) -> Iterator[dict[str, Tool]]:
        """Collect the tools that adapters meet in the meantime."""
        stack = self._looking.__dict__.setdefault("stack", [])
        found: dict[str, Tool] = {}
        stack.append(found)
        try:
            yield found
        finally:
            stack.remove(found)

    def review(self, tools: Mapping[str, Tool]) -> None:
        """Warn, once each, of declarations without a tool, and of tools without any declaration."""
        missed = [p for p in self._declarations.unmatched(self.tools) if p not in self._warned]
        if missed:
            self._warned.update(missed)
            has = ", ".join(sorted(tools)) or "none"
            _warn(
                f"declared, but no tool has that name: {', '.join(map(repr, missed))}; the tools are: {has}. "
                "Nothing is wrong if more tools are wrapped with this guard later"
            )
        bare = tools and all(isinstance(tool.effect, Undeclared) for tool in tools.values())
        if bare and not self._declarations.patterns and "" not in self._warned:
            self._warned.add("")
            _warn(
                f"nothing is declared, so nothing is remembered; the tools are: {', '.join(sorted(tools))}. "
                "Say which only read, for example ibidem.wrap(graph, reads=['get_*'])"
            )


def _warn(text: str) -> None:
    """Warn at the line of the user's that led here, however many of ours lie between."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, IbidemWarning, stacklevel=level)


class Twins:
    """The wrapped tools of one guard: a tool that comes again, with each message say, has one."""

    MOST = 1000
    """Those that are kept: tools made for one request must not pile up. One pushed out too early is made again."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Any], tuple[Any, Any]] = {}

    def get(self, plain: Any, given: Any) -> Any:
        """Give the twin of a tool for who asks, or None."""
        found = self._known.get((id(plain), given))
        return found[1] if found is not None and found[0] is plain else None

    def keep(self, plain: Any, given: Any, twin: Any, *, instead: bool) -> Any:
        """Keep a twin until others have pushed it out, or the guard goes.

        Args:
            plain: The tool.
            given: Who asks.
            twin: The wrapped one.
            instead: Whether it takes the place of one that is there, being wrapped with an effect of its own.

        Returns:
            The one that is kept: threads that come at once get the same, since a turn knows its calls by it.
        """
        for old in list(self._known)[: -self.MOST]:
            self._known.pop(old, None)
        if instead:
            self._known.pop((id(plain), given), None)
        return self._known.setdefault((id(plain), given), (plain, twin))[1]


def _held(function: Any) -> Iterator[tuple[str, Any]]:
    """Give what a function reaches by name: its closure's, then its module's."""
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a cell that is not filled yet
            yield name, cell.cell_contents
    yield from ((name, function.__globals__[name]) for name in code.co_names if name in function.__globals__)


def _runs_tools(thing: Any) -> bool:
    """Whether something is a compiled graph or a node of LangGraph's, told by name: nothing is imported to find out."""
    return any(
        c.__name__ in ("Pregel", "ToolNode") and c.__module__.startswith("langgraph.") for c in type(thing).__mro__
    )
