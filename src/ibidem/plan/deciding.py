"""Deciding: which call of a plan is next, and what is over. It acts by starting workers only."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Coroutine
from typing import Any

from ibidem.core.call import Outcome
from ibidem.core.effects import Live, Pure, Read
from ibidem.core.faults import CallTimeout, Fault, is_interrupt, is_refused_answer
from ibidem.core.runtime import Runtime
from ibidem.plan.checking import Prepared
from ibidem.plan.drawing import Row
from ibidem.plan.results import Ended, Result, own_fault
from ibidem.plan.workers import Options, Tasks, Threads
from ibidem.report.events import logger
from ibidem.resume.attempts import Attempt

Unit = tuple[int, int]
"""What a worker does: a step by its number, or the call for one of its elements; the number of that, or -1."""


class Deciding:
    """One run of a plan: what is ready, what has ended, and who works.

    The lock is held for decisions only, never while a tool runs.
    """

    def __init__(self, prepared: Prepared, options: Options, runtime: Runtime, crew: Threads | Tasks) -> None:
        self.prepared = prepared
        self._options = options
        self._runtime = runtime
        self._crew = crew
        self._order = prepared.order
        self._waiting = [len(needs) for needs in prepared.order.needs]
        self._ready: list[tuple[int, int, int]] = []
        self._next_batch: list[tuple[int, int, int]] = []
        self.began: list[float | None] = [None] * len(prepared.steps)
        self.ended: list[Ended | None] = [None] * len(prepared.steps)
        self._blocking: set[int] = set()
        """The steps that ended so that those who need them cannot run."""
        self._workers = 0
        self._helps = False
        """Whether a worker was started that has not taken a call yet."""
        self._lock = threading.Lock()
        self._closed: Fault | None = None
        self._flows: list[tuple[int, int, BaseException]] = []
        self._limit = options.max_concurrency or len(prepared.steps) * 1_000 + 1
        self._zero = runtime.now()
        self._attempt = Attempt.here(tuple((step.id, step.tool_name) for step in prepared.steps))
        self._held: list[tuple[int, int, int]] = []
        self._gate: set[int] | None = None
        asker = self._attempt.asker if self._attempt is not None else None
        if asker is not None and asker[0] in prepared.index:
            self._gate = self._order.above(prepared.index[asker[0]])

    # -- deciding -----------------------------------------------------------------------------------------------

    def start(self) -> Unit | None:
        """Begin: give the first call of the first worker; None if there is nothing to do."""
        for index, waits in enumerate(self._waiting):
            if not waits:
                self._add(index, -1)
        if not self.prepared.steps:
            return None
        self._workers = 1
        return self._next()

    def _add(self, index: int, element: int) -> None:
        entry = (-self._order.remaining[index], index, element)
        if self._gate is not None and index not in self._gate:
            self._held.append(entry)
        elif self._options.schedule == "batches" and element < 0 and self._workers:
            self._next_batch.append(entry)
        else:
            heapq.heappush(self._ready, entry)

    def _take(self) -> Unit | None:
        if self._closed is not None or self._flows:
            return None
        if not self._ready and self._workers == 1 and self._next_batch:
            self._ready, self._next_batch = self._next_batch, []
            heapq.heapify(self._ready)
        if not self._ready:
            return None
        _, index, element = heapq.heappop(self._ready)
        if element < 0:  # while the lock is held: what is told to have begun too late would be told not to have run
            self.began[index] = self._runtime.now() - self._zero
        return index, element

    def _next(self, index: int = -1, ended: Ended | None = None, *, helps: bool = False) -> Unit | None:
        """Note that a step has ended, if one has, and give the calling worker its next call.

        If there is more that could run, one other worker is started, which takes it when this one waits, and starts the next
        before it waits itself. One for each call at once would cost as much as the rest of the plan where no call waits.
        """
        with self._lock:
            if helps:
                self._helps = False
            if ended is not None:
                self._settle(index, ended)
            unit = self._take()
            more = unit is not None and not self._helps and bool(self._ready) and self._workers < self._limit
            if more:
                self._helps = True
                self._workers += 1
            if unit is None:
                self._workers -= 1
            over = not self._workers
        if ended is not None and self._options.observe is not None:
            self._tell()
        if more:
            self._crew.spawn(self._help())
        if over:
            self._crew.wake()
        return unit

    async def _help(self) -> None:
        await self.work(self._next(helps=True))

    def _tell(self) -> None:
        """Tell whoever looks; what goes wrong there is nothing to the plan."""
        try:
            if self._options.observe is not None:
                self._options.observe(self)
        except Exception:
            logger.exception("a plan could not be drawn while it runs; it goes on")

    def _settle(self, index: int, ended: Ended) -> None:
        if self._closed is not None and self.ended[index] is not None:
            return  # its time was over before it ended
        self.ended[index] = ended
        if ended.blocks:
            self._blocking.add(index)
        if self._gate is not None and self._attempt is not None:
            asker = self._attempt.asker
            if asker is None or asker[0] == ended.id:
                self._gate, held, self._held = None, self._held, []
                for _, other, element in held:
                    self._add(other, element)
        waiting = self._waiting
        for follower in self._order.followers[index]:
            waiting[follower] -= 1
            if not waiting[follower]:
                self._add(follower, -1)
        if self._options.on_fault == "stop" and ended.state == "failed" and not ended.is_optional and not self._closed:
            message = f"Not begun: step {ended.id!r} failed, and the plan stops at the first failure."
            self._closed = own_fault("cancelled", message)

    def close(self) -> None:
        """Begin nothing more."""
        with self._lock:
            self._closed = self._closed or own_fault("cancelled", "Not begun: the plan was cancelled.")

    def out_of_time(self) -> None:
        """Let everything that has not ended have failed because time was over."""
        seconds = self._options.timeout or 0.0
        with self._lock:
            late = CallTimeout(seconds)
            self._closed = own_fault("timeout", f"Not begun: the plan's {seconds:g} s were over.", late, retryable=True)
            for index, began in enumerate(self.began):
                if began is None or self.ended[index] is not None:
                    continue
                fault = Fault(late, "timeout", f"The plan's {seconds:g} s were over before it ended.", retryable=True)
                if not self._is_harmless(index):
                    fault = fault.as_unknown()
                    if self._attempt is not None and index not in {flow[0] for flow in self._flows}:
                        self._attempt.settle((self.prepared.steps[index].id, -1), Outcome(fault=fault), over=False)
                self.ended[index] = self._end(index, "failed", Outcome(fault=fault))

    def result(self) -> Result:
        """Give what came of the steps.

        Raises:
            BaseException: Control flow: a step was cancelled, or asks a person.
        """
        if self._flows:
            index, element, flow = min(self._flows, key=lambda each: (not is_interrupt(each[2]), *each[:2]))
            if self._attempt is not None and is_interrupt(flow):
                self._attempt.shown((self.prepared.steps[index].id, element), flow)
            elif self._attempt is not None and is_refused_answer(flow):
                self._attempt.stop()
            raise flow
        if self._attempt is not None:
            self._attempt.finish()
        steps = self.prepared.steps
        for index, ended in enumerate(self.ended):
            if ended is None:
                self.ended[index] = self._unfinished(index)
        needs = [tuple([steps[other].id for other in sorted(waited)]) for waited in self._order.needs]
        ids = [step.id for step in steps]
        known = [ended for ended in self.ended if ended is not None]
        return Result(
            dict(zip(ids, known, strict=True)), self._runtime.now() - self._zero, dict(zip(ids, needs, strict=True))
        )

    def save(self) -> None:
        """Save what a later attempt is to know, if there is anything."""
        if self._attempt is not None:
            self._attempt.save()

    async def asave(self) -> None:
        """Do the same on an event loop."""
        if self._attempt is not None:
            await self._attempt.asave()

    def _unfinished(self, index: int) -> Ended:
        """End a step that was never begun or, a mapped one, whose last calls were not."""
        fault = self._closed
        if self.began[index] is not None and fault is not None and not self._is_harmless(index):
            fault = Fault(fault.exception, fault.kind, "Not finished: some of its calls were not begun.").as_unknown()
        return self._end(index, "failed", Outcome(fault=fault), calls=0)

    def _is_harmless(self, index: int) -> bool:
        return isinstance(self.prepared.callees[index].effect, (Pure, Read, Live))

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return not self._workers

    def progress(self) -> tuple[str, list[Row], float]:
        """Say how far it is, to be drawn."""
        now = self._runtime.now() - self._zero
        rows = []
        for index, (began, ended) in enumerate(zip(self.began, self.ended, strict=True)):
            if ended is not None:
                rows.append(Row.of(ended, frozenset()))
                continue
            step, tool = self.prepared.steps[index], self.prepared.callees[index].name
            state = "waits" if began is None else "running"
            rows.append(Row(step.id, tool, state, now if began is None else began, now, ""))
        done = sum(ended is not None for ended in self.ended)
        return f"{done} of {len(rows)} steps have ended", rows, now

    def work(self, unit: Unit | None) -> Coroutine[Any, Any, None]:
        """Work until nothing is ready."""
        raise NotImplementedError

    def _end(self, index: int, state: Any, outcome: Outcome, root: str = "", *, calls: int = 1) -> Ended:
        step, now = self.prepared.steps[index], self._runtime.now() - self._zero
        began = self.began[index]
        tool = self.prepared.callees[index].name
        return Ended(step.id, tool, state, outcome, now if began is None else began, now, root, step.is_optional, calls)
