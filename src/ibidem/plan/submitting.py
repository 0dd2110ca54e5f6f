"""Submitting: how a model hands in a plan over the tools it has, and what it is told of it. No framework is needed here.

An adapter for another framework needs four things: `name`, `description`, `input_schema`, and `handle` or `ahandle`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ibidem.bound import Bound
from ibidem.core.effects import Effect, Live, Nested, Pure, Read, Undeclared, Write
from ibidem.core.hazards import Access, is_ordered
from ibidem.core.telling import as_error
from ibidem.guard import Guard
from ibidem.plan import form, running
from ibidem.plan.mistakes import one
from ibidem.plan.references import NotThere, Reference, follow, parse
from ibidem.plan.results import Ended, Result
from ibidem.plan.steps import Plan
from ibidem.plan.tools import Callee, by_name, nearest
from ibidem.plan.workers import Approve

DESCRIPTION = """\
Run several tool calls as one plan, when later calls need results of earlier ones and you need not decide in between. \
Steps run as soon as what they use is there. In args, "$id" is the whole result of step id, "$id.key" or "$id.list[0].key" \
a part of it; {"$text": ["$id.key", " today"]} joins text. "map": "$id.list" runs a step once per element, "$item" in args. \
"return": ids or references whose results you want to read; leave it out for all. Example: \
{"steps": [{"id": "place", "tool": "geocode", "args": {"city": "Paris"}}, {"id": "sky", "tool": "weather", "args": \
{"lat": "$place.lat", "lon": "$place.lon"}}], "return": ["sky"]}. Tools: %s."""

_RETURN = {
    "type": "array",
    "items": {"type": "string"},
    "description": "ids of steps, or references, whose results you want; all if left out",
}


@dataclass(frozen=True)
class Limits:
    """What a plan of a model's may ask for."""

    max_steps: int = 50
    fan_out: int = 50
    """Elements that a mapped step may have."""
    timeout: float = 60.0
    """Seconds for all of it."""
    max_concurrency: int | None = 10
    """Calls at once."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "fan_out", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} makes no sense: give a number above 0")


class Submissions:
    """Takes plans over some tools, and answers them.

    Args:
        tools: Those that the model has. Steps may use the ones that are declared `Pure`, `Read` or `Live`.
        guard: What the calls pass.
        writes: Names of tools declared `Write` that steps may use too.
        limits: What a plan may ask for.
        name: That of the tool by which plans are submitted.

    Raises:
        ValueError: A name in `writes` that is no declared write, or no tool that a step may use.
    """

    def __init__(
        self,
        tools: Iterable[Any] | Mapping[str, Any],
        guard: Guard | Bound | None,
        *,
        writes: Iterable[str] = (),
        limits: Limits | None = None,
        name: str = "plan",
    ) -> None:
        if isinstance(writes, str):
            raise TypeError(f"writes= is a list of names of tools, such as writes=[{writes!r}]")
        self.name = name
        self.limits = limits or Limits()
        self._guard = guard
        self._tools = by_name(tools)
        self._writes = frozenset(writes)
        callees = self._callees = {called: Callee(tool, guard) for called, tool in self._tools.items()}
        for wanted in sorted(self._writes):
            if wanted not in callees:
                raise ValueError(f"writes= names {wanted!r}, which is none of the tools: {', '.join(sorted(callees))}")
            if not isinstance(callees[wanted].effect, Write):
                raise ValueError(  # noqa: TRY004  # as for a name that there is not
                    f"writes= names {wanted!r}, which is declared {callees[wanted].effect!r}: declare what it changes, "
                    f"Guard(effects={{{wanted!r}: Write(...)}}), so that steps keep their order"
                )
        self.admitted = [called for called, callee in callees.items() if self._refusal(callee) is None]
        """The names of the tools that steps may use."""
        if not self.admitted:
            raise ValueError(
                "a plan takes tools that are declared Pure, Read or Live, and none of these is: "
                f"{', '.join(sorted(callees)) or 'there are none'}; say for example Guard(reads=['get_*'])"
            )

    @property
    def description(self) -> str:
        """What the model is told of it."""
        return DESCRIPTION % ", ".join(self.admitted)

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of what is submitted."""
        properties = {**form.SCHEMA["properties"], "return": _RETURN}
        return {**form.SCHEMA, "properties": properties}

    def _refusal(self, callee: Callee) -> str | None:
        if isinstance(callee.effect, (Pure, Read, Live)) or callee.name in self._writes:
            return f"{callee.name} {callee.taken}" if callee.taken else None
        what = "not declared" if isinstance(callee.effect, Undeclared) else "no plain read"
        return f"{callee.name} is {what}, and has no place in a plan: call it by itself"

    def effect(self) -> Nested:
        """Make the effect of the tool by which plans are submitted: in its turn it keeps the order of all it may do."""
        accesses = [self._callees[called].any_access for called in self.admitted]
        ordered = [each for each in accesses if is_ordered(each.effect)]
        touched = [each.touched for each in ordered]
        whole = None if None in touched else tuple([resource for each in touched for resource in each or ()])
        alike: Effect = Write() if any(each.effect.changes for each in ordered) else Read() if ordered else Pure()
        found = Nested()
        found.inside = Access(alike, whole)
        return found

    # -- answering ------------------------------------------------------------------------------------------------

    def handle(self, submitted: Mapping[str, Any], *, approve: Approve | None = None) -> str:
        """Run a plan and answer it, for a synchronous caller.

        Args:
            submitted: What the model wrote: `steps`, and `return` if it likes.
            approve: Asks before each call that is made.

        Raises:
            PlanError: Mistakes; the model is told the message.
        """
        plan, wanted, prepared = self._read(submitted, awaits=False)
        return self._answer(running.run(plan, prepared, self._options(approve)), wanted)

    async def ahandle(self, submitted: Mapping[str, Any], *, approve: Approve | None = None) -> str:
        """Do the same on an event loop."""
        plan, wanted, prepared = self._read(submitted, awaits=True)
        return self._answer(await running.arun(plan, prepared, self._options(approve)), wanted)

    def _options(self, approve: Approve | None) -> running.Options:
        limits = self.limits
        return replace(
            running.Options(max_concurrency=limits.max_concurrency, timeout=limits.timeout),
            fan_out=limits.fan_out,
            approve=approve,
        )

    def _read(
        self, submitted: Mapping[str, Any], *, awaits: bool
    ) -> tuple[Plan, dict[str, tuple[str, tuple[Any, ...]]], Any]:
        steps, wanted = submitted.get("steps"), submitted.get("return")
        unknown = [name for name in submitted if name not in ("steps", "return")]
        if unknown:
            raise one(f"a plan has steps and return, not {str(unknown[0])[:40]!r}")
        if isinstance(steps, str):  # as some models write what is nested
            told = form._loaded(steps)
            document = {"steps": told} if isinstance(told, list) else told
        else:
            document = {"steps": steps}
        plan = form.read(document, max_steps=self.limits.max_steps)
        prepared = running.prepare(plan, self._guard, self._tools, awaits=awaits, admits=self._refusal)
        return plan, _wanted(plan, wanted), prepared

    def _answer(self, result: Result, wanted: Mapping[str, tuple[str, tuple[Any, ...]]]) -> str:
        told = [
            f"{json.dumps(name)}: {_written(_told(result.steps[step], path))}" for name, (step, path) in wanted.items()
        ]
        return f"{{{', '.join(told)}}}"


def _wanted(plan: Plan, told: Any) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Read what the model wants to be told: the name under which it is, the step and the path."""
    if told is None:
        return {name: (name, ()) for name in plan.steps}
    if not isinstance(told, list) or not all(isinstance(each, str) for each in told) or len(told) > form.MAX_STEPS:
        raise one('return is a list of ids of steps or references, such as ["sky", "$place.lat"]')
    found: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for each in told:
        try:
            step, path = parse(each if each.startswith("$") else f"${each}")
        except ValueError as problem:
            raise one(f"return: {problem}") from None
        if step not in plan.steps:
            raise one(f"return: there is no step {step!r}{nearest(step, plan.steps)}")
        found[each] = step, path
    return found


def _told(ended: Ended, path: tuple[Any, ...]) -> Any:
    """Say what came of a step as a model reads it."""
    if ended.state == "skipped":
        return {"skipped": f"condition of {ended.root or ended.id} did not hold"}
    if ended.state == "failed":
        fault = ended.outcome.fault
        return as_error(fault) if fault is not None else None
    try:
        return follow(ended.outcome.value, Reference(None, ended.id, path))
    except NotThere as problem:
        return {"error": {"kind": "not_found", "message": str(problem), "retryable": False}}


def _written(value: Any) -> str:
    """Write a result as JSON or, if it is nothing of that kind, as text. What has run is answered, whatever it gave."""
    with contextlib.suppress(Exception):
        text = json.dumps(value, ensure_ascii=False, default=str)
        text.encode()  # half a character cannot be sent
        return text
    with contextlib.suppress(Exception):
        return json.dumps(value, default=str)
    with contextlib.suppress(Exception):
        return json.dumps(str(value))
    message = f"It ran, and its result of type {type(value).__name__} cannot be written down: do not ask for it."
    return json.dumps({"error": {"kind": "tool_error", "message": message, "retryable": False}})
