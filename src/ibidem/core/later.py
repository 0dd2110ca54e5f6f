"""Later: what is to happen in some seconds, in one thread for the whole process.

A timer thread for each would be hundreds after an outage; a timer of an event loop would be gone with its loop.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

from ibidem.core import forks

logger = logging.getLogger("ibidem")


class Later:
    """Calls functions when their time has come; the thread ends when nothing is left to do.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._after_fork()
        forks.after(self)

    def _after_fork(self) -> None:
        """Start a forked child with nothing to do: what was to happen belongs to the parent."""
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._runs = False

    def __call__(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (self._clock() + seconds, next(self._numbers), function))
            if self._runs:
                self._changed.notify()
                return
            self._runs = True
        threading.Thread(target=self._work, name="ibidem-later", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._due:
                    self._runs = False
                    return
                wait = self._due[0][0] - self._clock()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                function = heapq.heappop(self._due)[2]
            try:
                function()
            except Exception:
                logger.exception("something that was to happen later failed; the rest happens all the same")


LATER = Later()
"""The one of this process."""
