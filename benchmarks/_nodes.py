"""The ToolNodes that the benchmarks run, and the ways to run one."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime

from _measure import Sample, clocked

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "benchmark", "__pregel_runtime": Runtime()}}
"""What a graph would hand to its node: a thread and a runtime."""

Calls = Sequence[dict[str, Any]]


def tool_of(function: Callable[..., Any], name: str) -> BaseTool:
    """Make a tool of a function of one argument `x: int`, sync or async."""
    options: dict[str, Any] = {"name": name, "description": name}
    if asyncio.iscoroutinefunction(function):
        return StructuredTool.from_function(coroutine=function, **options)
    return StructuredTool.from_function(function, **options)


def calls_of(name: str, values: Sequence[int]) -> list[dict[str, Any]]:
    """Make a turn: one call of a tool for each value."""
    return [{"name": name, "args": {"x": x}, "id": f"{name}-{n}", "type": "tool_call"} for n, x in enumerate(values)]


def turn_of(calls: Calls) -> dict[str, Any]:
    """Make the state that a ToolNode gets."""
    return {"messages": [AIMessage("", tool_calls=list(calls))]}


async def through_ainvoke(node: ToolNode, turns: Sequence[Any], config: Any = CONFIG) -> Sample:
    """Time turns, one after the other, on the running loop."""
    with clocked() as sample:
        for turn in turns:
            await node.ainvoke(turn, config)
    return sample


def through_invoke(node: ToolNode, turns: Sequence[Any], config: Any = CONFIG) -> Sample:
    """Time turns, one after the other, in this thread."""
    with clocked() as sample:
        for turn in turns:
            node.invoke(turn, config)
    return sample


def passer(node: ToolNode, *, sync: bool, runner: asyncio.Runner) -> Callable[..., Sample]:
    """Choose how the turns of a node are run."""
    if sync:
        return lambda turns, config=CONFIG: through_invoke(node, turns, config)
    return lambda turns, config=CONFIG: runner.run(through_ainvoke(node, turns, config))
