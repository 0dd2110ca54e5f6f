"""Turns: the calls of one message, each as early as the calls before it allow.

`run_all` and `arun_all` are what a message that is complete goes through; a turn by itself is for a message that still
streams, whose calls come one by one.

Without ibidem every loop over a message's calls, the SDK's own too, runs them one after another. So calls of which nothing
is declared keep their place in the order: they wait for all before them, and all after them wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ibidem import running
from ibidem.bound import Bound
from ibidem.core.call import Outcome
from ibidem.core.effects import Write
from ibidem.core.hazards import Access, After, hazard
from ibidem.core.pool import POOL
from ibidem.layers.hazards import skipped

BARRIER = Access(Write(), None)
"""What a call does of which nothing is known: it may change anything."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A call that is to be made."""

    name: str
    target: Any
    """What passes the guard, or a function that passes none."""
    arguments: Mapping[str, Any]
    access: Access = BARRIER
    family: str | None = None
    """The toolset that it belongs to: its calls keep their order."""
    refused: Outcome | None = None
    """How it ends without being made."""
    guarded: bool = True

    def waits_for(self, earlier: Planned) -> bool:
        """Whether it must not begin before another has ended, which the model asked for earlier."""
        if self.refused is not None or earlier.refused is not None:
            return False
        if self.family is not None and self.family == earlier.family:
            return True
        return hazard(earlier.access, self.access) is not None

    def run(self, bound: Bound) -> Outcome:
        """Make the call in this thread."""
        if self.refused is not None:
            return self.refused
        if self.guarded:
            return running.run(bound, self.target, (), dict(self.arguments))
        return _plainly(lambda: self.target(**self.arguments))

    async def arun(self, bound: Bound) -> Outcome:
        """Make the call on this event loop."""
        if self.refused is not None:
            return self.refused
        if self.guarded:
            return await running.arun(bound, self.target, (), dict(self.arguments))
        made = _plainly(lambda: self.target(**self.arguments))
        if not inspect.isawaitable(made.value):
            return made
        try:
            return Outcome(await made.value)
        except Exception as problem:
            return running._failed(problem, None)


def _plainly(make: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(make())
    except Exception as problem:
        return running._failed(problem, None)


def run_all(bound: Bound, calls: Sequence[Planned]) -> list[Outcome]:
    """Run the calls of one message, and give their outcomes in order."""
    if len(calls) > 1 and _is_free(calls):
        return list(running.gather(bound, [(call.target, call.arguments) for call in calls]))
    if len(calls) == 1 or all(call.access is BARRIER for call in calls):
        return [call.run(bound) for call in calls]  # in this thread, as a loop without ibidem does
    turn = ThreadTurn(bound)
    try:
        for call in calls:
            turn.start(turn.add(call))
        return turn.wait()
    finally:
        turn.stop()


async def arun_all(bound: Bound, calls: Sequence[Planned]) -> list[Outcome]:
    """Do the same on an event loop."""
    if _is_free(calls):
        return list(await running.agather(bound, [(call.target, call.arguments) for call in calls]))
    turn = LoopTurn(bound)
    try:
        for call in calls:
            turn.start(turn.add(call))
        return await turn.wait()
    finally:
        turn.stop()


def _is_free(calls: Sequence[Planned]) -> bool:
    return all(call.guarded and call.refused is None for call in calls) and not any(
        later.waits_for(earlier) for place, later in enumerate(calls) for earlier in calls[:place]
    )


def _is_lost(earlier: Planned, later: Planned) -> bool:
    declared = later.access is not BARRIER
    return declared and hazard(earlier.access, later.access) == "write after write"


@dataclass(slots=True)
class _Slot:
    planned: Planned
    before: set[int]
    """The calls that it waits for."""
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    wanted: bool = False
    ended: bool = False
    outcome: Outcome | None = None
    error: BaseException | None = None


class Turn(ABC):
    """The calls of one message, in the order in which they stand there."""

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self._slots: list[_Slot] = []
        self._lock = threading.Lock()
        self._stopped = False

    def add(self, planned: Planned) -> int:
        """Take the next call of the message; it begins when it is started, and those it waits for have ended."""
        with self._lock:
            slots = self._slots
            before = {n for n, slot in enumerate(slots) if not slot.ended and planned.waits_for(slot.planned)}
            slots.append(_Slot(planned, before))
            return len(slots) - 1

    def start(self, place: int) -> None:
        """Let a call begin as soon as those it waits for have ended."""
        with self._lock:
            slot = self._slots[place]
            already, slot.wanted = slot.wanted, True
            ready = not already and not slot.ended and not slot.before and not self._stopped
        if ready:
            self._go(place, slot)

    def stop(self) -> None:
        """Let nothing begin any more: whoever asked for it is gone, or has what there is."""
        with self._lock:
            self._stopped = True

    def _end(self, place: int) -> None:
        ready, ended = [], [place]
        with self._lock:
            for over in ended:
                own = self._slots[over]
                own.ended = True
                lost = self._lost(over, own)
                for n, slot in enumerate(self._slots):
                    if over not in slot.before:
                        continue
                    slot.before.discard(over)
                    if lost is not None and _is_lost(own.planned, slot.planned):
                        slot.planned = replace(slot.planned, refused=Outcome(fault=skipped(lost)))
                    if own.error is not None:
                        slot.error = own.error  # what it waited for did not end as calls do: it never begins
                        ended.append(n)
                    elif slot.wanted and not slot.before and not slot.ended and not self._stopped:
                        ready.append((n, slot))
        for n, slot in ready:
            self._go(n, slot)

    def _lost(self, place: int, slot: _Slot) -> After | None:
        """Say what a change is to those after it if nobody knows whether it was made; None: it is known."""
        fault = slot.outcome.fault if slot.outcome is not None else None
        if fault is None or fault.kind != "maybe_executed" or self.bound.guard.after_unknown == "run":
            return None
        return After(place + 1, slot.planned.name, "write after write", "unknown")

    def _outcomes(self) -> list[Outcome]:
        for slot in self._slots:
            if slot.error is not None:
                raise slot.error  # control flow, which is nobody's failure
        return [slot.outcome for slot in self._slots if slot.outcome is not None]

    @abstractmethod
    def _go(self, place: int, slot: _Slot) -> None:
        """Let a call begin now."""


class ThreadTurn(Turn):
    """A turn whose calls run in threads."""

    def __init__(self, bound: Bound) -> None:
        super().__init__(bound)
        self._over = threading.Condition()

    def wait(self) -> list[Outcome]:
        """Give the outcomes of the calls that were started, when the last has ended."""
        with POOL.waiting(), self._over:
            self._over.wait_for(lambda: all(slot.ended for slot in self._slots if slot.wanted))
        return self._outcomes()

    def _go(self, place: int, slot: _Slot) -> None:
        def run() -> None:
            try:
                slot.outcome = slot.context.run(slot.planned.run, self.bound)
            except BaseException as flow:
                slot.error = flow
            self._end(place)
            with self._over:
                self._over.notify_all()

        POOL.submit(run)


class LoopTurn(Turn):
    """A turn whose calls run on the event loop."""

    def __init__(self, bound: Bound) -> None:
        super().__init__(bound)
        self._tasks: list[asyncio.Task[None]] = []

    async def wait(self) -> list[Outcome]:
        """Give the outcomes of the calls that were started, when the last has ended."""
        done = 0
        while done < len(self._tasks):  # one that ends may let another begin
            task = self._tasks[done]
            await asyncio.wait([task])
            done += 1
        return self._outcomes()

    def stop(self) -> None:
        """Let nothing begin any more, and cancel what still runs."""
        super().stop()
        for task in self._tasks:
            task.cancel()

    def _go(self, place: int, slot: _Slot) -> None:
        async def run() -> None:
            try:
                slot.outcome = await slot.planned.arun(self.bound)
            except BaseException as flow:
                slot.error = flow
            self._end(place)

        work: Coroutine[Any, Any, None] = run()
        self._tasks.append(asyncio.get_running_loop().create_task(work, context=slot.context))
