"""Checking: everything that can be told to be wrong with a plan, found before anything runs and told at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ibidem.bound import Bound
from ibidem.core.effects import UNDECLARED
from ibidem.core.hazards import Access
from ibidem.guard import Guard
from ibidem.plan.mistakes import Mistake, PlanError, named
from ibidem.plan.order import Cycle, Order
from ibidem.plan.references import ITEM, Reference, found_in
from ibidem.plan.steps import Plan, Step
from ibidem.plan.tools import Callee, by_name, nearest

_MOST = 50
"""Mistakes after which nobody looks for more: a plan may come from anybody."""

_NONE: frozenset[int] = frozenset()

_LONGEST = 20
"""Steps of a circle that are named."""


@dataclass(frozen=True)
class Prepared:
    """A plan that can run."""

    steps: list[Step]
    index: dict[str, int]
    """The number of each step, by id."""
    callees: list[Callee]
    order: Order
    data: list[frozenset[int]]
    """For each step those whose results it uses."""
    afters: list[frozenset[int]]
    """For each step those that it was told to wait for."""


def prepare(
    plan: Plan,
    guard: Guard | Bound | None,
    tools: Any,
    *,
    awaits: bool,
    admits: Callable[[Callee], str | None] = lambda _: None,
) -> Prepared:
    """Check a plan and find the order of its steps.

    Args:
        plan: What was written.
        guard: What the calls pass.
        tools: Those that steps name.
        awaits: Whether it will be run on an event loop.
        admits: Says why a tool has no place in the plan; None: it has.

    Raises:
        PlanError: Mistakes, all of them.
    """
    if guard is not None and not isinstance(guard, (Guard, Bound)):
        raise TypeError(f"a plan is run with a Guard or a bound one, not {guard!r}")
    steps = list(plan.steps.values())
    index = {name: number for number, name in enumerate(plan.steps)}
    callees = _Callees(guard, by_name(plan.tools if tools is None else tools), admits, awaits=awaits)
    mistakes: list[Mistake] = []
    found: list[Callee | None] = []
    data: list[frozenset[int]] = []
    afters: list[frozenset[int]] = []
    for step in steps:
        if len(mistakes) >= _MOST:
            raise PlanError(mistakes)
        callee, problem = callees.of(step.tool)
        found.append(callee)
        if problem is not None:
            mistakes.append(Mistake(step.id, problem))
        if callee is not None and not callee.fits(step.arguments):
            told = callee.problems(step.arguments)
            mistakes.extend(Mistake(step.id, said) for said in told if said != problem)
        used, wrong = _used(plan, step, index)
        waits = frozenset([index[name] for name in step.afters if name in index]) if step.afters else _NONE
        wrong += [f"there is no step {named(n)}{nearest(n, index)}" for n in step.afters if n not in index]
        if wrong:
            mistakes.extend(Mistake(step.id, said) for said in wrong)
        data.append(used)
        afters.append(waits)
    order = None
    try:
        accesses = [
            callee.access(step.arguments) if callee is not None else Access(UNDECLARED, ())
            for callee, step in zip(found, steps, strict=True)
        ]
        order = Order([used | waits if waits else used for used, waits in zip(data, afters, strict=True)], accesses)
    except Cycle as cycle:
        path = [steps[number].id for number in cycle.path]
        shown = " -> ".join(path if len(path) <= _LONGEST else [*path[: _LONGEST - 1], "...", path[-1]])
        mistakes.append(Mistake(None, f"steps wait for each other: {shown} (each is waited for by the next)"))
    if mistakes or order is None:
        raise PlanError(mistakes)
    return Prepared(steps, index, [callee for callee in found if callee is not None], order, data, afters)


def _used(plan: Plan, step: Step, index: dict[str, int]) -> tuple[frozenset[int], list[str]]:
    """Give the steps whose results a step uses, and what is wrong with its references."""
    used: list[int] = []
    wrong: list[str] = []
    for reference in references(step):
        source = reference.source
        if reference.owner is plan and source in index:  # the usual case first: there may be many
            used.append(index[source])
            continue
        if len(wrong) >= _MOST:
            break
        if source == ITEM and not isinstance(reference, Step):
            if step.over is None:
                wrong.append(f"{reference.spelled} stands for an element, and the step is run once: give it map")
        elif reference.owner is not plan:
            wrong.append(f"{reference.spelled} belongs to another plan")
        else:
            wrong.append(f"there is no step {source!r}{nearest(source, index)}")
    if step.over is None:
        return frozenset(used), wrong
    outside = [step.over, *(each.reference for each in step.conditions)]
    wrong.extend(
        f"{reference.spelled} stands for an element, which there is only in the arguments"
        for reference in outside
        if reference.source == ITEM
    )
    return frozenset(used), wrong


def references(step: Step) -> list[Reference]:
    """Give every reference of a step."""
    found = found_in(step.arguments)
    if step.conditions:
        found += [condition.reference for condition in step.conditions]
    if step.over is not None:
        found.append(step.over)
    return found


class _Callees:
    """The tools of the steps, each looked at once."""

    def __init__(
        self,
        guard: Guard | Bound | None,
        named: dict[str, Any],
        admits: Callable[[Callee], str | None],
        *,
        awaits: bool,
    ) -> None:
        self._guard = guard
        self._named = named
        self._admits = admits
        self._awaits = awaits
        self._found: dict[Any, tuple[Any, tuple[Callee | None, str | None]]] = {}

    def of(self, tool: Any) -> tuple[Callee | None, str | None]:
        """Give a tool and what is wrong with it."""
        key = tool if isinstance(tool, str) else id(tool)
        known = self._found.get(key)
        if known is None:
            known = self._found[key] = (tool, self._look(tool))  # held, so that its id is nobody else's meanwhile
        return known[1]

    def _look(self, tool: Any) -> tuple[Callee | None, str | None]:
        if isinstance(tool, str):
            if tool not in self._named:
                where = (
                    nearest(tool, self._named) if self._named else ": give the plan its tools, plan.run(tools=[...])"
                )
                return None, f"there is no tool {named(tool)}{where}"
            tool = self._named[tool]
        try:
            callee = Callee(tool, self._guard)
        except (TypeError, ValueError) as problem:
            return None, str(problem)
        if not self._awaits and callee.only_awaits:
            return callee, f"{callee.name} is asynchronous: await plan.arun(...)"
        return callee, self._admits(callee)
