"""Workers: what runs the calls of a plan, on an event loop or in threads; and the options of a run."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, get_args

from ibidem.core.call import Outcome
from ibidem.core.pool import POOL
from ibidem.core.runtime import run_blocking
from ibidem.plan.steps import OnFault, Schedule
from ibidem.resume.attempts import Attempt

Approve = Callable[[Attempt | None, tuple[str, int], str, dict[str, Any]], "dict[str, Any] | Outcome"]
"""Asks whether a call may be made: gives the arguments it may be made with, or what stands for it."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a plan is run."""

    schedule: Schedule = "eager"
    on_fault: OnFault = "continue"
    max_concurrency: int | None = None
    timeout: float | None = None
    fan_out: int | None = None
    """Elements that a mapped step may have; None: any number."""
    approve: Approve | None = None
    """Asked before each call that is made."""
    observe: Callable[[Any], object] | None = None
    """Told whenever a step has begun or ended."""

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule={self.schedule!r} is unknown: it is one of {', '.join(get_args(Schedule))}")
        if self.on_fault not in get_args(OnFault):
            raise ValueError(f"on_fault={self.on_fault!r} is unknown: it is one of {', '.join(get_args(OnFault))}")
        slots = self.max_concurrency
        if slots is not None and (isinstance(slots, bool) or not isinstance(slots, int) or slots < 1):
            raise ValueError(f"max_concurrency={slots!r} makes no sense: give the number of calls at once, 1 or more")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout={self.timeout!r} makes no sense: give seconds above 0")


class Threads:
    """Workers in threads of the pool, where the body of a waiting tool keeps no place."""

    def __init__(self) -> None:
        self._over = threading.Lock()
        self._over.acquire()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        context = contextvars.copy_context()
        POOL.submit(lambda: context.run(run_blocking, work))

    def wake(self) -> None:
        self._over.release()

    def wait(self, seconds: float | None) -> bool:
        with POOL.waiting():
            return self._over.acquire(timeout=-1 if seconds is None else seconds)


_left: set[asyncio.Task[None]] = set()
"""Workers for which nobody waits any more: a loop itself holds its tasks weakly."""


class Tasks:
    """Workers that are tasks of the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._tasks: list[asyncio.Task[None]] = []
        """All of them, to the end: a callback for each that takes it away would take longer than starting it."""
        self._late = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._loop.create_task(work))

    def wake(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def wait(self, seconds: float | None) -> bool:
        timer = None if seconds is None else self._loop.call_later(seconds, self._expire)
        try:
            await self._over
        finally:
            if timer is not None:
                timer.cancel()
        return not self._late

    def _expire(self) -> None:
        self._late = not self._over.done()
        self.wake()

    async def cancel(self) -> None:
        """End the workers: whoever is cancelled here waits until they have ended, as `gather` would let him."""
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def leave(self) -> None:
        """Tell the workers to end, and wait for none of them."""
        for task in [task for task in self._tasks if not task.done()]:
            _left.add(task)
            task.add_done_callback(_left.discard)
            task.cancel()
