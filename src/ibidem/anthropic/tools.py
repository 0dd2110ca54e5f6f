"""Tools: whatever somebody has that can be called, as the SDK's tools or LangChain's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from anthropic.lib.tools import _beta_functions as sdk

from ibidem import wrapping
from ibidem.anthropic.twin import without
from ibidem.bound import Bound
from ibidem.core.call import Tool
from ibidem.core.declarations import decorated_effect
from ibidem.core.identity import is_async
from ibidem.guard import Guard

Key = str | tuple[str, str]
"""The name of a tool; of the member of a toolset, the toolset's and its own."""
Tools = Iterable[Any] | Mapping[Any, Any]

# Dictionaries. The SDK has two sets of classes for them, that of `client.messages` and that of `client.beta.messages`, and
# type checkers let nobody give one for the other, nor a plain dictionary for either.
Results: TypeAlias = Any
"""A message for `messages=`."""
Definition: TypeAlias = Any
"""A tool for `tools=`."""

_BUILTIN = (sdk.BetaBuiltinFunctionTool, sdk.BetaAsyncBuiltinFunctionTool)


def tools_for(tools: Tools, guard: Guard | Bound | None = None) -> list[Definition]:
    """Give the `tools=` parameter of a request.

    What a tool says beside its schema stays: `strict`, `cache_control`, `input_examples` and the like of a `beta_tool`, and
    the `extras` of a LangChain tool. Definitions that are dictionaries already, of server tools say, pass as they are.

    Args:
        tools: As `answer` takes them.
        guard: Arguments that it fills in, the idempotency keys of writes, are not shown to the model.
    """
    if isinstance(tools, Mapping):
        entries = [_made(tool, name) for name, tool in tools.items() if isinstance(name, str)]
    else:
        entries = [tool if isinstance(tool, dict) else _made(tool) for tool in _listed(tools)]
    return [_definition(tool, guard) for tool in entries]


def collected(tools: Tools) -> dict[Key, Any]:
    """Give the tools that are ours to call, by name.

    Raises:
        TypeError: One cannot be called, or a key names none.
        ValueError: Two have one name, or one is given under another name than its own.
    """
    if isinstance(tools, Mapping):
        return {key: _made(tool, key) for key, tool in tools.items()}
    found: dict[Key, Any] = {}
    for each in _listed(tools):
        if isinstance(each, Mapping) or hasattr(each, "toolset_name"):
            continue  # a definition alone, or a toolset that the SDK's runner runs
        tool = _made(each)
        if tool.name in found:
            raise ValueError(f"two tools are called {tool.name!r}")
        found[tool.name] = tool
    return found


def _listed(tools: Any) -> Iterable[Any]:
    is_one = hasattr(tools, "name")  # a LangChain tool iterates too
    if is_one or isinstance(tools, str) or not isinstance(tools, Iterable):
        raise TypeError(f"tools= is a list of tools, or a dict of name to tool, not {tools!r}")
    return tools


def is_langchain(tool: Any) -> bool:
    """Whether a tool is LangChain's, told by name: nothing is imported to find out."""
    return any(c.__name__ == "BaseTool" and c.__module__.startswith("langchain_core.") for c in type(tool).__mro__)


def is_plain(tool: Any) -> bool:
    """Whether a tool is one of the SDK's own, such as its memory tool, which passes no guard."""
    return isinstance(tool, _BUILTIN)


def known_of(wrapped: Any) -> Tool | None:
    """Give what a guard knows of a wrapped tool; None: it passes none."""
    binding = getattr(wrapped, "__ibidem_binding__", None)
    known: Tool | None = binding.tool if binding is not None else getattr(wrapped, "__ibidem_tool__", None)
    return known


def _made(tool: Any, key: Any = None) -> Any:
    """Give a tool; of a function, make one."""
    if key is not None and not (isinstance(key, str) or (isinstance(key, tuple) and len(key) == 2)):
        raise TypeError(f"tools are keyed by name, or by (toolset, name), not by {key!r}")
    name = key[1] if isinstance(key, tuple) else key
    if isinstance(tool, (sdk.BaseFunctionTool, *_BUILTIN)) or is_langchain(tool):
        if name is not None and name != tool.name:
            raise ValueError(f"the tool {tool.name!r} is given as {name!r}: a model and a guard know it by one name")
        return tool
    if hasattr(tool, "toolset_name"):
        return tool
    if not callable(tool) or isinstance(tool, type):
        raise TypeError(
            f"{tool!r} is no tool: give a function, a beta_tool, a LangChain tool, or a dict of name to function"
        )
    return _of_function(tool, name)


def _make(function: Callable[..., Any], name: str | None) -> Any:
    make: Any = sdk.beta_async_tool if is_async(function) else sdk.beta_tool
    if not inspect.isroutine(function) and not isinstance(function, functools.partial):
        function = function.__call__  # type: ignore[operator]  # pydantic knows functions and methods only
    return make(function, name=name or getattr(function, "__name__", None))


_KEPT = 1000
_functions: dict[tuple[int, str | None], Any] = {}
"""The tools made of functions. A tool holds its function, so that no other gets its id meanwhile."""


def _of_function(function: Callable[..., Any], name: str | None) -> Any:
    """Make a tool of a function once: its schema takes longer than most calls."""
    if not inspect.isfunction(function):  # a method is made anew each time it is looked up
        return _make(function, name)
    key = (id(function), name)
    made = _functions.get(key)
    if made is None:
        made = _make(function, name)
        for old in list(_functions)[:-_KEPT]:
            _functions.pop(old, None)
        _functions[key] = made
    return made


def _definition(tool: Any, guard: Guard | Bound | None) -> dict[str, Any]:
    if isinstance(tool, Mapping):
        return dict(tool)
    effect = decorated_effect(tool, getattr(tool, "func", None))
    known = None if guard is None else known_of(wrapping.adapt(tool, guard.here()))
    effect = known.effect if known is not None else effect
    if is_langchain(tool):
        from ibidem.langchain.described import description_of

        shown = {**description_of(tool), **(getattr(tool, "extras", None) or {})}
    else:
        shown = dict(tool.to_dict())
    if effect is not None and effect.idempotency_key is not None:
        shown["input_schema"] = without(effect.idempotency_key, shown["input_schema"])
    return shown
