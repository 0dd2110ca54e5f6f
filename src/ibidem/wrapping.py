"""`wrap`: one verb for everything that can be called.

The adapter is picked by where a value's class comes from, so that no framework is imported that the value does not
come from already.
"""

from __future__ import annotations

from typing import Any, TypeVar

from ibidem.bound import Bound
from ibidem.core.asker import NOBODY
from ibidem.core.durations import reject_unknown
from ibidem.core.effects import Effect
from ibidem.guard import Guard
from ibidem.options import OPTIONS

T = TypeVar("T")

_default: list[Guard] = []

_OF_ANTHROPIC = {
    ("anthropic", name)
    for name in (
        "BaseFunctionTool",
        "BetaBuiltinFunctionTool",
        "BetaAsyncBuiltinFunctionTool",
        "BaseRunnableToolset",
        "BaseToolRunner",
    )
}


def wrap(target: T, guard: Guard | Bound | Effect | None = None, /, **options: Any) -> T:
    """Let every call of a tool, a node, a graph or a function pass a guard.

    Yours stays as it is: the answer is a new value of the same type.

    Args:
        target: A LangChain tool, a list or dict of tools, a LangGraph `ToolNode` or compiled graph, a tool or a tool
            runner of the Anthropic SDK, or a plain function or method, sync or async.
        guard: A guard, a bound guard, or for a function or tool simply its effect; those share one guard of the
            process. None: a new guard is made of the options.
        **options: Of `Guard`; not together with a guard.

    Raises:
        TypeError: What cannot be wrapped, an unknown option, or a guard *and* options.
        ValueError: It already passes another guard.
    """
    if isinstance(guard, Effect):
        if options:
            raise TypeError(
                f"wrap(..., {guard!r}) takes no options beside the effect: "
                "make a guard of both, wrap(..., Guard(effects={...}, ...))"
            )
        return adapt(target, Bound(_process_guard(), NOBODY), guard)  # type: ignore[no-any-return]
    if guard is not None and not isinstance(guard, (Guard, Bound)):
        raise TypeError(f"wrap(target, guard): the second argument is a Guard, a bound one or an effect, not {guard!r}")
    if guard is not None and options:
        raise TypeError(
            f"wrap() takes a guard or options, not both: wrap(target, guard.replace({', '.join(options)}=...))"
        )
    if guard is None:
        reject_unknown("wrap()", [name for name in options if name not in OPTIONS], OPTIONS)
        guard = Guard(**options)
    bound = guard if isinstance(guard, Bound) else Bound(guard, NOBODY)
    with bound.guard.toolbox.looking() as tools:
        wrapped = adapt(target, bound)
    if not _is_one(target):
        bound.guard.toolbox.review(tools)
    return wrapped  # type: ignore[no-any-return]


def adapt(target: Any, bound: Bound, effect: Effect | None = None) -> Any:
    """Wrap a value with the adapter of the framework it comes from; a guard that is off leaves it as it is."""
    if bound.guard.off:
        return target
    if isinstance(target, type):
        raise TypeError(f"{target.__name__} is a class: wrap an instance of it")
    if isinstance(target, dict):
        return {name: adapt(each, bound, effect) for name, each in target.items()}
    if isinstance(target, (list, tuple)):
        return type(target)([adapt(each, bound, effect) for each in target])
    origins = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(target).__mro__}
    if origins & {("langgraph", "Pregel"), ("langgraph", "ToolNode")}:
        from ibidem import langgraph

        return langgraph.adapt(target, bound, effect)
    if ("langchain_core", "BaseTool") in origins:
        from ibidem import langchain

        return langchain.adapt(target, bound, effect)
    if origins & _OF_ANTHROPIC:
        from ibidem import anthropic

        return anthropic.adapt(target, bound, effect)
    if ("langgraph", "StateGraph") in origins:
        raise TypeError("this graph is not compiled yet: ibidem.wrap(builder.compile(...))")
    if ("langchain_core", "Runnable") in origins:
        raise TypeError(
            f"a {type(target).__name__} is no tool: wrap the tools, the ToolNode or the compiled graph that it is part of"
        )
    if callable(target):
        from ibidem import functions

        return functions.adapt(target, bound, effect)
    raise TypeError(
        f"{target!r} cannot be wrapped: give a tool, a list or dict of tools, a ToolNode, a compiled graph or a function"
    )


def guard_of(target: Any) -> Guard | None:
    """Give the guard that the calls of a wrapped value pass; None if it is not wrapped."""
    found = binding_of(target)
    if found is None and isinstance(nodes := getattr(target, "nodes", None), dict):
        # A graph that was copied by its own methods, `with_config` say, is another object with the same nodes.
        found = next(filter(None, (binding_of(getattr(node, "bound", None)) for node in nodes.values())), None)
    return found.guard if found is not None else None


def binding_of(target: Any) -> Bound | None:
    """Give the bound guard of a wrapped value."""
    bound = getattr(target, "__ibidem__", None)
    return bound if isinstance(bound, Bound) else None


def _is_one(target: Any) -> bool:
    """Whether a value is a single tool: a glob that misses it may well be meant for the next."""
    return (
        not isinstance(target, (dict, list, tuple))
        and not hasattr(target, "tools_by_name")
        and not hasattr(target, "nodes")
    )


def _process_guard() -> Guard:
    if not _default:
        _default.append(Guard())
    return _default[0]
