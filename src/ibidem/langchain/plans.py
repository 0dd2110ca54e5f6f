"""The plan tool: a LangChain tool by which a model submits a plan over the tools it has."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import PrivateAttr

from ibidem.bound import Bound
from ibidem.core.declarations import decorated_effect
from ibidem.guard import Guard
from ibidem.langgraph.approvals import Approvals, Around, both, can_be_found, found_above
from ibidem.plan.mistakes import PlanError
from ibidem.plan.steps import name_of
from ibidem.plan.submitting import Limits, Submissions
from ibidem.resume.attempts import submitted
from ibidem.wrapping import binding_of

_found: ContextVar[Around | None] = ContextVar("ibidem_plan_approvals", default=None)


class PlanTool(BaseTool):
    """Takes plans of a model's. Each of its calls passes the guard, and is approved as it would be by itself."""

    handle_tool_error: Any = True
    _submissions: Submissions = PrivateAttr()
    _approvals: Approvals | None = PrivateAttr(default=None)

    def _approve(self) -> Approvals | None:
        around = _found.get() or found_above()
        if self._approvals is None and not (can_be_found() and around.is_whole):
            where = "around this call" if can_be_found() else "of this LangChain"
            raise RuntimeError(
                f"HumanInTheLoopMiddleware {where} cannot be seen from a plan: say whose approval calls need, "
                "plan_tool(..., approvals=middleware), or approvals=[] if nobody's"
            )
        return both(self._approvals, around.approvals)

    def _run(self, **told: Any) -> str:
        try:
            return self._submissions.handle(told, approve=self._approve())
        except PlanError as problem:
            raise ToolException(str(problem)) from problem

    async def _arun(self, **told: Any) -> str:
        try:
            return await self._submissions.ahandle(told, approve=self._approve())
        except PlanError as problem:
            raise ToolException(str(problem)) from problem

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        with _noted(input):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        with _noted(input):  # here: LangChain runs what follows as a task of its own, with a stack of its own
            return await super().ainvoke(input, config, **kwargs)


@contextmanager
def _noted(given: Any) -> Iterator[None]:
    """Note which call submits the plan, and who approves calls around it."""
    name = given.get("id") if isinstance(given, Mapping) and given.get("type") == "tool_call" else None
    above, before = found_above(), _found.get()
    if before is not None:
        above = Around(both(above.approvals, before.approvals), above.is_whole or before.is_whole)
    tokens = submitted.set(name), _found.set(above)
    try:
        yield
    finally:
        submitted.reset(tokens[0])
        _found.reset(tokens[1])


def plan_tool(
    tools: Iterable[Any] | Mapping[str, Any],
    guard: Guard | Bound | None = None,
    *,
    writes: Iterable[str] = (),
    approvals: Any = None,
    name: str = "plan",
    max_steps: int = 50,
    fan_out: int = 50,
    timeout: float = 60.0,
    max_concurrency: int | None = 10,
) -> PlanTool:
    """Make a tool by which a model submits a plan over the tools it has.

    Args:
        tools: Those that the model has. Steps may use the ones that are declared `Pure`, `Read` or `Live`.
        guard: What the calls pass; None: those of the tools.
        writes: Names of tools declared `Write` that steps may use too.
        approvals: Whose approval calls need: a `HumanInTheLoopMiddleware`, its `interrupt_on`, or a list of names. One that
            stands around the call in `create_agent` is found by itself.
        name: Of the tool.
        max_steps: Steps that a plan may have.
        fan_out: Elements that a mapped step may have.
        timeout: Seconds for a whole plan.
        max_concurrency: Calls at once.

    Raises:
        ValueError: A name in `writes` that is no declared write, or no tool that a step may use.
    """
    tools = {n: _tool(each) for n, each in tools.items()} if isinstance(tools, Mapping) else [*map(_tool, tools)]
    limits = Limits(max_steps, fan_out, timeout, max_concurrency)
    submissions = Submissions(tools, guard, writes=writes, limits=limits, name=name)
    schema = {"title": name, "description": "A plan.", **submissions.input_schema}
    made = PlanTool(name=name, description=submissions.description, args_schema=schema)
    made._submissions = submissions
    made._approvals = None if approvals is None else Approvals.of(approvals)
    return submissions.effect()(made)


def _tool(given: Any) -> Any:
    """Make of a function the tool that an agent makes of it: what a model gives it is validated."""
    if not (inspect.isfunction(given) or inspect.ismethod(given)) or binding_of(given) is not None:
        return given
    body: Any = {"coroutine" if inspect.iscoroutinefunction(given) else "func": given}
    made = StructuredTool.from_function(
        **body, name=name_of(given), description=inspect.getdoc(given) or name_of(given)
    )
    effect = decorated_effect(given)
    return made if effect is None else effect(made)
