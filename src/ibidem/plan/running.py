"""Running: each step begins when its inputs are there, is called through the guard, and ends as a value or a fault.

Written once: a worker takes what is ready, one call after the other, and starts others for what else is. On an event
loop a worker is a task, for a synchronous caller a thread; nothing else differs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

from ibidem.core.call import Outcome
from ibidem.core.effects import Live, Pure, Read
from ibidem.core.faults import Fault, is_interrupt
from ibidem.core.runtime import ASYNCIO, BLOCKING, Runtime, run_blocking
from ibidem.plan.checking import Prepared, prepare
from ibidem.plan.conditions import holds
from ibidem.plan.deciding import Deciding, Unit
from ibidem.plan.references import ITEM, NotThere, Reference, filled, follow
from ibidem.plan.results import Ended, Result, own_fault, together, upstream_failed
from ibidem.plan.steps import Plan, Step
from ibidem.plan.tools import Callee
from ibidem.plan.workers import Options, Tasks, Threads
from ibidem.resume.attempts import Attempt
from ibidem.resume.scratchpad import AnotherAsks

__all__ = ["Options", "arun", "prepare", "run"]

_IN_A_ROW = 50
"""Calls that a worker makes before it lets others have the event loop."""


def run(plan: Plan, prepared: Prepared, options: Options) -> Result:
    """Run a plan for a synchronous caller: in its own thread, and in others what runs beside that."""
    crew = Threads()
    going = Run(prepared, options, BLOCKING, crew)
    going.save()
    first = going.start()
    if first is not None:
        try:
            if options.timeout is None:
                run_blocking(going.work(first))
            else:
                crew.spawn(going.work(first))
            if not crew.wait(options.timeout):
                going.out_of_time()
        except BaseException:  # the user stops the program: what runs in other threads ends, and begins nothing
            going.close()
            raise
    try:
        plan.result = going.result()
    finally:
        going.save()
    return plan.result


async def arun(plan: Plan, prepared: Prepared, options: Options) -> Result:
    """Run a plan on an event loop."""
    crew = Tasks()
    going = Run(prepared, options, ASYNCIO, crew)
    await going.asave()
    first = going.start()
    if first is not None:
        crew.spawn(going.work(first))
        try:
            in_time = await crew.wait(options.timeout)
        except BaseException:
            going.close()
            await crew.cancel()
            raise
        if not in_time:
            going.out_of_time()
            crew.leave()
    try:
        plan.result = going.result()
    finally:
        await going.asave()
    return plan.result


class _Fan:
    """The calls of a mapped step."""

    def __init__(self, elements: list[Any], *, one_by_one: bool) -> None:
        self.elements = elements
        self.outcomes: list[Outcome | None] = [None] * len(elements)
        self.left = len(elements)
        self.one_by_one = one_by_one


class Run(Deciding):
    """One run of a plan."""

    def __init__(self, prepared: Prepared, options: Options, runtime: Runtime, crew: Threads | Tasks) -> None:
        super().__init__(prepared, options, runtime, crew)
        self._fans: dict[int, _Fan] = {}

    async def work(self, unit: Unit | None) -> None:
        """Work until nothing is ready."""
        count = 0
        while unit is not None:
            index, element = unit
            ended = None
            try:
                ended = await (self._begin(index) if element < 0 else self._element(index, element))
            except BaseException as flow:  # control flow ends the plan; it is raised where the plan was run
                with self._lock:
                    self._flows.append((index, element, flow))
            count += 1
            if count % _IN_A_ROW == 0:
                with contextlib.suppress(asyncio.CancelledError):
                    await self._runtime.sleep(0)
            unit = self._next(index, ended)

    async def _begin(self, index: int) -> Ended | None:
        """Run a step; None: its calls for each element are ready."""
        step = self.prepared.steps[index]
        if self._options.observe is not None:
            self._tell()
        before = self._resumed(index) if self._attempt is not None else None
        if isinstance(before, Ended):
            return before
        blocked = self._blocked(index) if self._blocking and before is None else None
        if blocked is not None:
            return blocked
        try:
            for condition in step.conditions if before is None else ():
                if not holds(condition, self._look):
                    return self._end(index, "skipped", Outcome(), calls=0)
            if step.over is None:
                arguments = {name: filled(value, self._look) for name, value in step.arguments.items()}
                outcome = await self._call(index, -1, arguments)
                return self._end(index, "failed" if outcome.failed else "done", outcome)
            elements = self._elements(self._look(step.over), step.over) if before is None else before
        except NotThere as problem:
            outcome = Outcome(fault=own_fault("invalid_arguments", str(problem), problem))
            return self._end(index, "failed", outcome, calls=0)
        if not elements:
            return self._end(index, "done", Outcome([]), calls=0)
        effect = self.prepared.callees[index].effect
        fan = self._fans[index] = _Fan(elements, one_by_one=effect.changes and effect.declared)
        if self._attempt is not None and not self._is_harmless(index):
            self._attempt.begin(step.id, elements)
        with self._lock:
            for element in range(1 if fan.one_by_one else len(elements)):
                self._add(index, element)
        return None

    def _resumed(self, index: int) -> Ended | list[Any] | None:
        """Tell how a step ended before somebody was asked, or what a mapped one goes on with; None: it has not begun."""
        step, attempt = self.prepared.steps[index], self._attempt
        if attempt is None:
            return None
        again = attempt.again((step.id, -1), None)
        if again is not None:
            return self._end(index, "failed" if again.failed else "done", again)
        elements, blocked = attempt.elements(step.id), self._blocked(index)
        if elements is None or blocked is None or blocked.outcome.fault is None:
            return elements
        if all(attempt.again((step.id, element), None) for element in range(len(elements))):
            return elements
        fault = blocked.outcome.fault
        fault = Fault(fault.exception, fault.kind, f"Not finished. {fault.message}").as_unknown()
        return self._end(index, "failed", Outcome(fault=fault), blocked.root, calls=0)

    def _elements(self, value: Any, over: Reference) -> list[Any]:
        most = self._options.fan_out
        if not isinstance(value, (list, tuple)):
            raise NotThere(f"{over.spelled} is a {type(value).__name__}, and map goes over a list")
        try:
            elements = list(value)
        except Exception as problem:
            raise NotThere(f"{over.spelled}: looking at the list raised {type(problem).__name__}") from problem
        if most is not None and len(elements) > most:
            raise NotThere(f"{over.spelled} has {len(elements)} elements, and map goes over {most} at most")
        return elements

    async def _element(self, index: int, element: int) -> Ended | None:
        """Make the call for one element; after the last the step has ended."""
        fan, step = self._fans[index], self.prepared.steps[index]

        def look(reference: Reference) -> Any:
            if reference.source == ITEM and not isinstance(reference, Step):
                return follow(fan.elements[element], reference)
            return self._look(reference)

        again = self._attempt.again((step.id, element), None) if self._attempt is not None else None
        try:
            arguments = {} if again is not None else {name: filled(v, look) for name, v in step.arguments.items()}
        except NotThere as problem:
            outcome = Outcome(fault=own_fault("invalid_arguments", str(problem), problem))
        else:
            outcome = again or await self._call(index, element, arguments)
        fan.outcomes[element] = outcome
        with self._lock:
            fan.left -= 1
            if fan.left:
                if fan.one_by_one:
                    self._add(index, element + 1)
                return None
        whole = together(fan.outcomes)
        return self._end(index, "failed" if whole.failed else "done", whole, calls=len(fan.elements))

    def _call(self, index: int, element: int, arguments: dict[str, Any]) -> Awaitable[Outcome]:
        """Make a call of a step: at once where nobody is asked first, and nothing is to be kept for a resume."""
        callee = self.prepared.callees[index]
        if self._attempt is None and self._options.approve is None:
            return callee(arguments, self._runtime)
        return self._call_with_care(callee, index, element, arguments)

    async def _call_with_care(self, callee: Callee, index: int, element: int, arguments: dict[str, Any]) -> Outcome:
        attempt, approve = self._attempt, self._options.approve
        unit = (self.prepared.steps[index].id, element)
        if attempt is None:
            if approve is not None:
                allowed = approve(None, unit, callee.name, arguments)
                if isinstance(allowed, Outcome):
                    return allowed
                arguments = allowed
            return await callee(arguments, self._runtime)
        again = attempt.again(unit, arguments)
        if again is not None:
            return again
        effect = callee.effect
        harmless = isinstance(effect, (Pure, Read, Live))
        if attempt.is_unknown and not harmless and not self._is_unbegun(attempt):
            message = "The plan was interrupted, and what it had done by then is not known any more."
            return Outcome(fault=Fault(RuntimeError(message), "tool_error", message).as_unknown())
        given = arguments
        number = index * 1_000_003 + element + 1
        guarded = approve is not None and getattr(approve, "guards", lambda _: True)(callee.name)
        hidden = isinstance(effect, (Pure, Read)) and unit != attempt.asker and not guarded
        with attempt.around(unit, number, hidden=hidden):
            try:
                if approve is not None:
                    allowed = approve(attempt, unit, callee.name, arguments)
                    if isinstance(allowed, Outcome):
                        attempt.keep(unit, given, effect, allowed)
                        return allowed
                    arguments = allowed
                if not harmless:
                    attempt.settle(unit, Outcome(fault=_begun()), over=False)
                outcome = await callee(arguments, self._runtime)
            except AnotherAsks as problem:
                outcome = _refused(problem)
            except BaseException as flow:
                if is_interrupt(flow) and not attempt.may_ask:  # of a graph below
                    return _refused(AnotherAsks(inside=True))
                if not (hidden and is_interrupt(flow)):
                    # One that raised has ended; one that was cancelled may have been carried out.
                    if not harmless and isinstance(flow, Exception):
                        attempt.unsettle(unit)
                    raise
                outcome = None
        if outcome is None:  # it asks a person, so it is to know that others were asked before
            with attempt.around(unit, number, hidden=False):
                outcome = await callee(arguments, self._runtime)
        attempt.keep(unit, given, effect, outcome)
        return outcome

    def _is_unbegun(self, attempt: Attempt) -> bool:
        """Whether nothing that may have changed something can have been done although there is an answer.

        So it is where each such call is approved first, and the first of them had just been asked about.
        """
        approve = self._options.approve
        guarded = getattr(approve, "guards", None)
        if approve is None or guarded is None or attempt.answers != 1:
            return False
        changing = [c for c in self.prepared.callees if not isinstance(c.effect, (Pure, Read, Live))]
        return all(guarded(callee.name) for callee in changing)

    # -- looking ------------------------------------------------------------------------------------------------

    def _look(self, reference: Reference) -> Any:
        """Give what a reference means, now that its step has ended."""
        ended = self.ended[self.prepared.index[reference.source]]
        value = None if ended is None else ended.value
        return follow(value, reference) if reference.path else value

    def _blocked(self, index: int) -> Ended | None:
        """End a step that cannot run because of one that it needs."""
        data, afters = self.prepared.data[index], self.prepared.afters[index]
        if self._blocking.isdisjoint(data) and self._blocking.isdisjoint(afters):
            return None
        above = [ended for other in data | afters if (ended := self.ended[other]) is not None and ended.blocks]
        above.sort(key=lambda ended: self.prepared.index[ended.id])
        name = self.prepared.steps[index].id
        failed = next((ended for ended in above if ended.state == "failed"), None)
        if failed is not None:
            root = self.ended[self.prepared.index[failed.root]] if failed.root else failed
            fault = upstream_failed(name, root or failed)
            return self._end(index, "failed", Outcome(fault=fault), failed.root or failed.id, calls=0)
        skipped = next((ended for ended in above if self.prepared.index[ended.id] in data), None)
        if skipped is None:
            return None  # it waited for what was skipped, and does without its result
        return self._end(index, "skipped", Outcome(), skipped.root or skipped.id, calls=0)


def _refused(problem: AnotherAsks) -> Outcome:
    """Make the outcome of a call that would ask a person where nobody can be asked."""
    return Outcome(fault=own_fault("unauthorized", f"Not run: {problem}.", problem))


def _begun() -> Fault:
    """Make what is said of a change that was begun, until it has ended."""
    message = "It was begun before the plan was interrupted, and had not ended by then."
    return Fault(RuntimeError(message), "cancelled", message).as_unknown()
