"""The retry budget: how many retries the calls of one dependency have earned."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from ibidem.core import forks

RESERVE = 10.0
"""Retries that are there at the start, and the most that can be saved up: a burst, not an outage's worth."""

REFILL = 0.1
"""Retries a second that come by themselves: a tool that is called once a minute must not go without."""


class Budget:
    """Each call earns a part of a retry; each retry takes a whole one. So retries never multiply an outage's load.

    Args:
        part: What a call earns.
        now: The second at which it begins.
    """

    def __init__(self, part: float, now: float) -> None:
        self._part = part
        self._saved = RESERVE
        self._last = now
        self._counter = itertools.count()
        self._counted = 0
        self._lock = threading.Lock()
        self.earn: Callable[[], object] = self._counter.__next__
        """Count a call: in one step that no other thread can come between, so that calls that succeed take no lock."""
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def take(self, now: float) -> bool:
        """Take a retry; False if there is none left."""
        with self._lock:
            count = next(self._counter)
            calls, self._counted = count - self._counted, count + 1  # the look itself counted one
            earned = calls * self._part + max(0.0, now - self._last) * REFILL
            self._saved = min(RESERVE, self._saved + earned)
            self._last = now
            if self._saved < 1:
                return False
            self._saved -= 1
            return True
