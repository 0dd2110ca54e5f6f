"""A pool of daemon threads for synchronous tools of asynchronous callers.

Its bound counts threads that *run*: one that waits for a flight gives its place back meanwhile. With an ordinary
executor a full set of waiting threads would keep the leader they wait for in the queue, for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ibidem.core import forks

LIMIT = min(32, (os.cpu_count() or 1) + 4)
"""Threads that run at once: the bound of Python's own default executor."""

TIMED_LIMIT = 256
"""Threads that run at once where each call is waited for a bounded time only: a hung one is soon left behind, and
meanwhile must not keep others waiting."""

LEFT_BEHIND = 1000
"""Threads that may hang, left behind, without counting; with more than that the bound holds for them too."""

IDLE = 5.0
"""Seconds a thread without work stays."""

logger = logging.getLogger("ibidem")


class Task:
    """One function on its way through the pool."""

    __slots__ = ("_function", "_lock", "_state", "_told", "error", "value")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._state: Literal["queued", "running", "done", "cancelled"] = "queued"
        self._told: list[Callable[[], None]] = []
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        with self._lock:
            if self._state != "queued":
                return
            self._state = "running"
        try:
            self.value = self._function()
        except BaseException as error:
            self.error = error
        with self._lock:
            self._state = "done"
        self._tell()

    def cancel(self) -> bool:
        """Keep it from running; False if it already began."""
        with self._lock:
            if self._state != "queued":
                return self._state == "cancelled"
            self._state = "cancelled"  # in the same breath: the pool may take it from the queue at any time
        self._tell()
        return True

    def _tell(self) -> None:
        with self._lock:
            told, self._told = self._told, []
        for tell in told:
            try:
                tell()
            except BaseException:
                logger.exception("a callback of a finished call failed; the others are told all the same")

    def when_done(self, tell: Callable[[], None]) -> None:
        """Call `tell` when it has ended, at once if it has already."""
        with self._lock:
            if self._state in ("queued", "running"):
                self._told.append(tell)
                return
        tell()

    @property
    def runs(self) -> bool:
        """Whether the function has begun and not ended."""
        return self._state == "running"

    @property
    def finished(self) -> bool:
        """Whether the function has run to its end, by returning or raising."""
        return self._state == "done"


class _Place:
    """What a thread of the pool counts for: one place, unless it waits."""

    __slots__ = ("waits",)

    def __init__(self) -> None:
        self.waits = 0


class Pool:
    """Threads that start when they are needed and go when they are not."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._after_fork()
        forks.after(self)

    def _after_fork(self) -> None:
        self._ready = threading.Condition()
        self._queue: deque[Task] = deque()
        self._running = 0
        self._idle = 0
        self._left: set[Task] = set()
        self._mine = threading.local()

    def submit(self, function: Callable[[], Any]) -> Task:
        """Run a function in a thread as soon as there is a place."""
        task = Task(function)
        with self._ready:
            self._queue.append(task)
            self._fill()
        return task

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Give the place of this thread to another while it waits; does nothing in threads that are not the pool's."""
        place: _Place | None = getattr(self._mine, "place", None)
        if place is None:
            yield
            return
        with self._ready:
            place.waits += 1  # several tasks of a loop that a tool runs may wait at once: it is one place
            if place.waits == 1:
                self._running -= 1
                self._fill()
        try:
            yield
        finally:
            with self._ready:
                place.waits -= 1
                if place.waits == 0:
                    self._running += 1

    def leave(self, task: Task) -> None:
        """Give the place of a task for which nobody waits any more to another; the task goes on."""
        with self._ready:
            # A task that is done has yet to come for this lock in its thread, or already has its place back.
            if task.runs and len(self._left) < LEFT_BEHIND:
                self._left.add(task)
                self._running -= 1
                self._fill()

    def _fill(self) -> None:
        """Wake or start threads while there are places and tasks; the lock is held."""
        places = self._limit - self._running
        wanted = min(places, len(self._queue))
        if wanted > 0:
            self._ready.notify(min(wanted, self._idle))
            for _ in range(wanted - self._idle):
                self._running += 1
                threading.Thread(target=self._work, name="ibidem", daemon=True).start()

    def _work(self) -> None:
        """Run tasks until none has come for a while. A thread counts as running from its start."""
        self._mine.place = _Place()
        task: Task | None = None
        while True:
            with self._ready:
                if task in self._left:
                    self._left.discard(task)
                    self._running += 1
                task = None  # an idle thread must not keep the last result alive
                while not self._queue or self._running > self._limit:
                    self._running -= 1
                    self._idle += 1
                    came = self._ready.wait(IDLE)
                    self._idle -= 1
                    self._running += 1
                    if not came and not self._queue:
                        self._running -= 1
                        return
                task = self._queue.popleft()
            task.run()


POOL = Pool()
"""The threads of this process. A forked child starts with none."""

TIMED = Pool(TIMED_LIMIT)
"""Those of calls with a timeout."""
