"""The plan tool: a tool of the SDK by which a model submits a plan over the tools it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from anthropic.lib.tools import _beta_functions as sdk

from ibidem.anthropic.tools import collected, is_plain
from ibidem.anthropic.twin import ToldError
from ibidem.bound import Bound
from ibidem.guard import Guard
from ibidem.plan.mistakes import PlanError
from ibidem.plan.submitting import Limits, Submissions


def plan_tool(
    tools: Iterable[Any] | Mapping[str, Any],
    guard: Guard | Bound | None = None,
    *,
    writes: Iterable[str] = (),
    name: str = "plan",
    max_steps: int = 50,
    fan_out: int = 50,
    timeout: float = 60.0,
    max_concurrency: int | None = 10,
) -> Any:
    """Make a tool by which a model submits a plan, for a synchronous loop.

    It is a `beta_tool`, to be given to `answer`, `runner` or `stream` beside the tools themselves. Its calls pass the guard
    one by one. Nobody approves calls in such a loop, so name in `writes` only what the model may do by itself.

    Args:
        tools: Functions, LangChain tools and `beta_tool` objects. Steps may use the ones that are declared `Pure`, `Read`
            or `Live`.
        guard: What the calls pass; None: those of the tools.
        writes: Names of tools declared `Write` that steps may use too.
        name: Of the tool.
        max_steps: Steps that a plan may have.
        fan_out: Elements that a mapped step may have.
        timeout: Seconds for a whole plan.
        max_concurrency: Calls at once.

    Raises:
        ValueError: A name in `writes` that is no declared write, or no tool that a step may use.
    """
    limits = Limits(max_steps, fan_out, timeout, max_concurrency)
    submissions = Submissions(_steps(tools), guard, writes=writes, limits=limits, name=name)

    def plan(**told: Any) -> str:
        try:
            return submissions.handle(told)
        except PlanError as problem:
            raise ToldError(str(problem)) from problem

    return _tool(sdk.beta_tool, plan, submissions)


def aplan_tool(
    tools: Iterable[Any] | Mapping[str, Any],
    guard: Guard | Bound | None = None,
    *,
    writes: Iterable[str] = (),
    name: str = "plan",
    max_steps: int = 50,
    fan_out: int = 50,
    timeout: float = 60.0,
    max_concurrency: int | None = 10,
) -> Any:
    """Make the same for a loop that awaits: steps may be asynchronous tools too."""
    limits = Limits(max_steps, fan_out, timeout, max_concurrency)
    submissions = Submissions(_steps(tools), guard, writes=writes, limits=limits, name=name)

    async def plan(**told: Any) -> str:
        try:
            return await submissions.ahandle(told)
        except PlanError as problem:
            raise ToldError(str(problem)) from problem

    return _tool(sdk.beta_async_tool, plan, submissions)


def _tool(make: Any, plan: Any, submissions: Submissions) -> Any:
    made = make(plan, name=submissions.name, description=submissions.description, input_schema=submissions.input_schema)
    return submissions.effect()(made)


def _steps(tools: Iterable[Any] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Give what steps call: the tools that the loop has, which validate what a model gives."""
    return {name: tool for name, tool in collected(tools).items() if isinstance(name, str) and not is_plain(tool)}
