"""Signals: something that threads and event loops can both wait for, and that happens once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Protocol


class Waitable(Protocol):
    """What a runtime can wait for: a flight, or a signal."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to wait for."""
        ...

    async def landed(self) -> None:
        """Wait on the running loop."""

    def landed_blocking(self, seconds: float | None = None) -> bool:
        """Wait in this thread, at most so many seconds; false if they were not enough."""
        ...


class Signal:
    """Is given once; whoever waits for it, in a thread or on a loop, goes on then."""

    __slots__ = ("_given", "_lock", "_loops", "_threads")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given = False
        self._loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._threads: list[threading.Event] = []

    @property
    def ended(self) -> bool:
        """Whether it was given."""
        return self._given

    def give(self) -> None:
        """Let everybody go on; more than once does no more than once."""
        with self._lock:
            self._given = True
            loops, self._loops = self._loops, []
            threads, self._threads = self._threads, []
        here = asyncio._get_running_loop()
        for loop, future in loops:
            if loop is here:
                _wake(future)
            else:
                with contextlib.suppress(RuntimeError):  # closed: nobody is left there to tell
                    loop.call_soon_threadsafe(_wake, future)
        for event in threads:
            event.set()

    async def landed(self) -> None:
        """Wait on the running loop. Cancelling the wait ends nothing else."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._given:
                return
            self._loops.append((loop, future))
        await future

    def landed_blocking(self, seconds: float | None = None) -> bool:
        """Wait in this thread.

        Args:
            seconds: At most so many; None: without end.

        Returns:
            False if the seconds were not enough.
        """
        event = threading.Event()
        with self._lock:
            if self._given:
                return True
            self._threads.append(event)
        return event.wait(seconds) or self._given


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
