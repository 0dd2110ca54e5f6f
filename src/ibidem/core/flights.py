"""Flights: identical calls under way at the same time share one run.

A flight is one run of one key. Its leader runs the tool; the others wait for it to land, or are told to look again.

Invariants, all kept under the one lock:
- `Flights._flights[key]` is the newest flight of a key. A call joins it only if what it read can still be right
  (`fresh`); otherwise the call leads a new one in its place, and the older flight keeps only those who joined before.
- A flight ends once, by `land` or `abandon`. Whoever is told does his own work outside the lock.
- `blocked` counts, per flight, the flights that calls in its leader's body wait for. A call that would close a circle
  does not wait. It is kept for calls with ancestors only: the others lead nothing that anyone could wait for.

Each waiter has a future of his own and one callback per event loop wakes them all: a cancelled waiter can hurt nobody.
The lock belongs to the module, since circles may run through several guards; it is held for a few dictionary
operations at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ibidem.core import forks

if TYPE_CHECKING:
    from ibidem.core.call import Call, Key, Outcome
    from ibidem.core.resources import Cell

PATIENCE = 0.1
"""Seconds between two looks whether the loop of a leader elsewhere still runs."""

DEAF = 1.0
"""Seconds after which a loop that does not turn is not waited for: perhaps it waits, blocked, for who waits for it."""

_lock = threading.Lock()


class Flight:
    """One run of one key, from the moment it is led to the moment it lands."""

    __slots__ = (
        "_done",
        "_loops",
        "_threads",
        "blocked",
        "call",
        "cells",
        "detached",
        "loop",
        "lowered",
        "outcome",
        "snapshot",
        "table",
        "unshared",
        "waiters",
    )

    def __init__(self, table: Flights, call: Call, snapshot: int) -> None:
        self.table = table
        self.call = call
        """The call that leads it."""
        self.snapshot = snapshot
        """The stamp from which on every change is unknown to it."""
        self.loop = asyncio._get_running_loop()
        """The event loop on which its leader runs, if any."""
        self.detached = False
        """Whether its work goes on in a thread: it then no longer depends on the loop."""
        self.outcome: Outcome | None = None
        self.cells: tuple[Cell, ...] = ()
        """Everything that the outcome depends on, once it is there."""
        self.lowered = False
        """Whether its snapshot was set back after others had boarded: they look once more whether it is right for them."""
        self.unshared = False
        """Whether the outcome is of a kind that cannot be given to others: they run for themselves."""
        self.waiters = 0
        self.blocked: Counter[Flight] = Counter()
        self._done = False
        self._loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        self._threads: list[threading.Event] = []

    @property
    def stalled(self) -> bool:
        """Whether the leader can no longer land: his loop was stopped or closed under him."""
        return self.loop is not None and not self.detached and not self.loop.is_running()

    def land(self, outcome: Outcome | None) -> None:
        """End it. Those who wait get the outcome, or with None look again."""
        with _lock:
            if self._done:
                return
            self._done = True
            self.table.landings += 1
            self.outcome = outcome
            if self.table._flights.get(self._key) is self:
                del self.table._flights[self._key]
            loops, self._loops = self._loops, {}
            threads, self._threads = self._threads, []
        here = asyncio._get_running_loop()
        for loop, futures in loops.items():
            if loop is here:
                _wake(futures)
            elif not loop.is_closed():
                try:
                    loop.call_soon_threadsafe(_wake, futures)
                except RuntimeError:  # closed in between: nobody is left there to tell
                    continue
        for event in threads:
            event.set()

    @property
    def _key(self) -> Key:
        assert self.call.key is not None  # noqa: S101
        return self.call.key

    @property
    def ended(self) -> bool:
        """Whether it has landed, with an outcome or without one."""
        return self._done

    async def landed(self) -> None:
        """Wait on the running loop until it has ended, or is deaf. Cancelling the wait ends nothing else."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with _lock:
            if self._done:
                return
            self._loops.setdefault(loop, []).append(future)
        if self.loop is loop or self.loop is None or self.detached:
            await future
            return
        pulse = _Pulse(self.loop)
        while not future.done() and (self.detached or pulse.beats()):
            await asyncio.wait((future,), timeout=PATIENCE)
            if self.stalled:
                self.land(None)

    def landed_blocking(self, seconds: float | None = None) -> bool:
        """Wait in this thread until it has ended, or is deaf.

        Args:
            seconds: At most so many; None: without end.

        Returns:
            False if the seconds were not enough.
        """
        event = threading.Event()
        with _lock:
            if self._done:
                return True
            self._threads.append(event)
        if self.loop is None:
            return event.wait(seconds)
        pulse = _Pulse(self.loop)
        until = None if seconds is None else time.monotonic() + seconds
        while not event.wait(_shorter(None if self.detached else PATIENCE, until)):
            if until is not None and time.monotonic() >= until:
                return self._done
            if self.stalled:
                self.land(None)
            elif not (self.detached or pulse.beats()):
                break
        return True


def _shorter(wait: float | None, until: float | None) -> float | None:
    """Cut a wait in seconds short at a second of the monotonic clock; None: without end."""
    if until is None:
        return wait
    left = max(0.0, until - time.monotonic())
    return left if wait is None else min(wait, left)


class _Pulse:
    """Tells whether a loop still turns, asked every `PATIENCE` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._missed = 0
        self._ask()

    def _ask(self) -> None:
        self._answered = False
        with contextlib.suppress(RuntimeError):  # closed: that is seen elsewhere
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._answered = True

    def beats(self) -> bool:
        """Ask again; false if it has not answered for too long."""
        if self._answered:
            self._missed = 0
            self._ask()
        else:
            self._missed += 1
        return self._missed * PATIENCE < DEAF


class Flights:
    """The flights of one guard, by key."""

    def __init__(self) -> None:
        self._flights: dict[Key, Flight] = {}
        self.landings = 0
        """Counts the flights that have ended: who has looked for a result since the last one need not look again."""
        forks.after(self)

    def _after_fork(self) -> None:
        """Start a forked child with no flights: their leaders are not there to land them."""
        global _lock  # noqa: PLW0603
        _lock = threading.Lock()
        self._flights = {}

    def __len__(self) -> int:
        return len(self._flights)

    def board(self, call: Call, joinable: Callable[[Call, Flight], bool], now: Callable[[], int]) -> Flight | None:
        """Join the flight of a call's key, or lead a new one.

        Args:
            call: It has a key.
            joinable: Whether what a flight reads is right for a call.
            now: Takes the snapshot of a new flight.

        Returns:
            The flight; `flight.call is call` if it leads. None: it must run alone, because it would wait for itself.
        """
        assert call.key is not None  # noqa: S101
        with _lock:
            flight = self._flights.get(call.key)
            if flight is None or flight.stalled or not joinable(call, flight):
                flight = Flight(self, call, now())
                call.work.flight = flight
                self._flights[call.key] = flight
                return flight
            if not call.runtime.may_wait():
                return None
            if call.parent is not None:
                led = {a.work.flight for a in call.ancestors if a.work.flight is not None and not a.work.flight._done}
                if led and _reaches(flight, led):
                    return None
                for own in led:
                    own.blocked[flight] += 1
            flight.waiters += 1
            return flight

    def flying(self, key: Key) -> Flight | None:
        """Give the flight of a key that is under way."""
        return self._flights.get(key)

    @contextlib.contextmanager
    def depending(self, flight: Flight, other: Flight | None) -> Iterator[None]:
        """Say that a flight cannot land before another one does, so that no circle is closed through both."""
        if other is None or other is flight:
            yield
            return
        with _lock:
            flight.blocked[other] += 1
        try:
            yield
        finally:
            with _lock:
                flight.blocked[other] -= 1

    def leave(self, call: Call, flight: Flight) -> None:
        """Take back that a call waits for a flight."""
        with _lock:
            flight.waiters -= 1
            cancel = flight.call.work.cancel if flight.waiters == 0 else None
            for above in call.ancestors if call.parent is not None else ():
                own = above.work.flight
                if own is not None and own.blocked[flight] > 0:
                    own.blocked[flight] -= 1
        if cancel is not None:
            cancel()  # its caller is gone, and now everybody else


def _reaches(start: Flight, goals: set[Flight]) -> bool:
    """Whether one of the goals would have to land before `start` can."""
    seen: set[Flight] = set()
    stack = [start]
    while stack:
        flight = stack.pop()
        if flight in goals:
            return True
        if flight not in seen:
            seen.add(flight)
            stack.extend(other for other, count in flight.blocked.items() if count and not other._done)
    return False


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
