"""ibidem: the layer between a model's tool calls and the tools.

Wrap a LangChain tool, a LangGraph `ToolNode`, a graph that is already compiled, or a plain function, and every call
runs once, apart, and never wrong: no read is stale after the agent's own write, no error is remembered, no approval is
replayed, nobody gets another user's data.

    graph = ibidem.wrap(graph, reads=["get_*", "search_*"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ibidem.bound import Bound
from ibidem.core.batches import Batch
from ibidem.core.call import Call, Inner, Layer, Outcome
from ibidem.core.effects import Effect, Live, Nested, Pure, Read, Write
from ibidem.core.faults import CallTimeout, CircuitOpen, Fault
from ibidem.core.policies import Breaker, Retry
from ibidem.core.telling import PARTIAL_RESULTS_PROMPT
from ibidem.guard import Guard
from ibidem.report.events import Event, IbidemWarning
from ibidem.report.statistics import Stats
from ibidem.report.summary import Outcomes, Summary
from ibidem.report.trials import Report
from ibidem.stores.memory import Memory
from ibidem.stores.protocol import Entry, Store
from ibidem.wrapping import guard_of, wrap

if TYPE_CHECKING:
    from ibidem import anthropic
    from ibidem.langchain.middleware import Middleware
    from ibidem.langchain.plans import plan_tool
    from ibidem.langgraph import ToolNode
    from ibidem.plan import Plan, PlanError, text
    from ibidem.stores.disk import Disk

__version__ = "0.1.0.dev0"

__all__ = [
    "PARTIAL_RESULTS_PROMPT",
    "Batch",
    "Bound",
    "Breaker",
    "Call",
    "CallTimeout",
    "CircuitOpen",
    "Disk",
    "Effect",
    "Entry",
    "Event",
    "Fault",
    "Guard",
    "IbidemWarning",
    "Inner",
    "Layer",
    "Live",
    "Memory",
    "Middleware",
    "Nested",
    "Outcome",
    "Outcomes",
    "Plan",
    "PlanError",
    "Pure",
    "Read",
    "Report",
    "Retry",
    "Stats",
    "Store",
    "Summary",
    "ToolNode",
    "Write",
    "anthropic",
    "guard_of",
    "plan_tool",
    "text",
    "wrap",
]


_LATER = {
    "Disk": "stores.disk",
    "Middleware": "langchain.middleware",
    "Plan": "plan",
    "PlanError": "plan",
    "ToolNode": "langgraph",
    "plan_tool": "langchain.plans",
    "text": "plan",
}
"""Where the names are that are imported only for those who ask for them: they take a framework, SQLite, or more time."""


def __getattr__(name: str) -> Any:
    """Import what not everybody needs for those who ask for it."""
    if name == "anthropic":
        return importlib.import_module("ibidem.anthropic")
    if name in _LATER:
        try:
            return getattr(importlib.import_module(f"ibidem.{_LATER[name]}"), name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "langchain":
                raise
            raise ModuleNotFoundError(
                f"ibidem.{name} needs the package langchain: pip install 'ibidem[langchain]'", name=error.name
            ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List what there is for users, imported yet or not: what Tab shows in a notebook."""
    return sorted([*__all__, "__version__", "load_ipython_extension", "unload_ipython_extension"])


def load_ipython_extension(shell: Any) -> None:
    """Give a notebook the magic `%ibidem`. IPython calls this for `%load_ext ibidem`."""
    from ibidem import notebook

    notebook.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take the magic away. IPython calls this for `%unload_ext ibidem`."""
    from ibidem import notebook

    notebook.unload(shell)
