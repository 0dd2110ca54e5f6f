"""Schedules: time and turns in the hands of a test."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Clock:
    """A clock in seconds, for stores and tests: it stands still until it is moved, backwards too."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        """Move it by so many seconds."""
        self.now += seconds


class Stuck(RuntimeError):  # noqa: N818
    """Every task waits and no timer runs: in real time the program would hang here."""


class ShuffledLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time that runs one ready callback after the other in random order.

    asyncio runs what is ready first come, first served: most interleavings never happen in a test. Here each step is
    drawn from all that is ready. Sleeping takes no time: when nothing is ready, the clock jumps to the next timer.

    Args:
        seed: The same seed gives the same order.
        fifo: Keep asyncio's own order, for comparison; time is virtual all the same.
        threads: Whether other threads may wake the loop; it then waits for them instead of raising `Stuck`.
    """

    def __init__(self, seed: int, *, fifo: bool = False, threads: bool = False) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._fifo = fifo
        self._threads = threads
        self._virtual = 0.0
        super().__init__()

    def time(self) -> float:
        return self._virtual

    def _run_once(self) -> None:
        loop: Any = self  # the queues have no public name; they are the same in every supported Python
        ready = loop._ready
        if not ready and not loop._stopping:
            timers = [timer for timer in loop._scheduled if not timer.cancelled()]
            if timers:
                self._virtual = max(self._virtual, min(timer.when() for timer in timers))
            elif not self._threads:
                raise Stuck("every task waits, and nothing is left that could wake one")
        if self._fifo or len(ready) < 2:
            super()._run_once()  # type: ignore[misc]
            return
        chosen = self._random.randrange(len(ready))
        handle = ready[chosen]
        del ready[chosen]
        others = list(ready)
        ready.clear()
        ready.append(handle)
        super()._run_once()  # type: ignore[misc]
        ready.extendleft(reversed(others))


def run_shuffled(main: Coroutine[Any, Any, T], seed: int, *, fifo: bool = False, threads: bool = False) -> T:
    """Run a coroutine as `asyncio.run` does, but on a `ShuffledLoop` of this seed and these options.

    Raises:
        Stuck: Every task waits and no timer runs.
    """
    with asyncio.Runner(loop_factory=lambda: ShuffledLoop(seed, fifo=fifo, threads=threads)) as runner:
        return runner.run(main)


@contextmanager
def eager_switching() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can: then rare faults show in a short test."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(*functions: Callable[[], object]) -> None:
    """Run functions in threads that start together, and raise what the first of them raised."""
    together = threading.Barrier(len(functions))
    with ThreadPoolExecutor(len(functions), initializer=together.wait) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result()
