"""Circuits: whether calls to a dependency are let through. A plain object that is told the time.

Invariants, kept under the lock, which is held for a few lines and never while a call runs:
- Every time it opens or closes, and for every probe, `_era` grows by one. Only results of the current era count: calls
  that were let through before it opened say nothing about now.
- While it is half open, at most one call of the current era runs: the probe.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

from ibidem.core import forks
from ibidem.core.policies import Breaker

State = Literal["closed", "open", "half-open"]

_PARTS = 10
"""Parts of the window: the rate is that of the last nine to ten tenths of it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that is not let through."""

    seconds: float
    """After which one may be."""


class Circuit:
    """The state of one dependency.

    Args:
        breaker: When it opens, and for how long.
    """

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.state: State = "closed"
        self.failures = 0
        """Failures one after the other, up to now."""
        self.opened = 0
        """How often it has opened."""
        self._window = float(breaker.window)  # type: ignore[arg-type]  # read in __post_init__
        self._open_for = float(breaker.open_for)  # type: ignore[arg-type]
        self._era = 0
        self._until = 0.0
        self._length = self._window / _PARTS
        self._part = [-math.inf, 0.0, 0.0]
        """The part of the window that is being counted: when it began, its calls, its failures."""
        self._parts: deque[list[float]] = deque()
        self._lock = threading.Lock()
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def enter(self, now: float) -> int | Refused:
        """Ask whether a call may run.

        Returns:
            The era, to be handed back with the result; or for how long not.
        """
        era = self._era  # before the state: one that is opened in between is then of an era that is over
        if self.state == "closed":
            return era
        with self._lock:
            if self._is_closed():
                return self._era
            if now < self._until:
                return Refused(self._until - now)
            # Its time is over, or the probe has been gone for so long that another takes its place.
            self.state = "half-open"
            self._era += 1
            self._until = now + self._open_for
            return self._era

    def succeeded(self, era: int, now: float) -> bool:
        """Count an answer of the dependency; true if that closed it."""
        if self.state == "closed" and not self.failures and era == self._era:
            part = self._part
            if now - part[0] < self._length:
                part[1] += 1  # without the lock: two at once may count as one, which the rate of many does not show
                return False
        with self._lock:
            if era != self._era:
                return False
            self.failures = 0
            if self.state == "closed":
                self._count(now, failed=False)
                return False
            self._change("closed")
            return True

    def failed(self, era: int, now: float) -> bool:
        """Count a failure; true if that opened it."""
        with self._lock:
            if era != self._era:
                return False
            self.failures += 1
            if self.state == "closed":
                self._count(now, failed=True)
                if self.failures < self.breaker.failures and not self._too_many():
                    return False
            self._change("open")
            self._until = now + self._open_for
            self.opened += 1
            return True

    def said_nothing(self, era: int) -> None:
        """Count a call that told nothing: a probe that did makes room for the next."""
        with self._lock:
            if era == self._era and self.state == "half-open":
                self._until = 0.0

    def seconds_left(self, now: float) -> float:
        """Say for how long no call is let through."""
        return max(0.0, self._until - now) if self.state != "closed" else 0.0

    def _is_closed(self) -> bool:
        return self.state == "closed"

    def _change(self, state: State) -> None:
        self.state = state  # before the era: see enter()
        self._era += 1
        self._part = [-math.inf, 0.0, 0.0]
        self._parts.clear()

    def _count(self, now: float, *, failed: bool) -> None:
        while self._parts and now - self._parts[0][0] >= self._window:
            self._parts.popleft()
        if now - self._part[0] >= self._length:
            self._part = [now, 0.0, 0.0]
            self._parts.append(self._part)
        self._part[1] += 1
        self._part[2] += failed

    def _too_many(self) -> bool:
        rate, calls = self.breaker.rate, sum(part[1] for part in self._parts)
        if rate is None or calls < self.breaker.minimum:
            return False
        return sum(part[2] for part in self._parts) >= rate * calls
