"""The retry budget: how many retries the calls of one dependency have earned."""

from __future__ import annotations

import threading

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
        self._lock = threading.Lock()
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Count a call."""
        with self._lock:
            self._saved = min(RESERVE, self._saved + self._part)

    def take(self, now: float) -> bool:
        """Take a retry; False if there is none left."""
        with self._lock:
            self._saved = min(RESERVE, self._saved + max(0.0, now - self._last) * REFILL)
            self._last = now
            if self._saved < 1:
                return False
            self._saved -= 1
            return True
