"""The worker: one thread that does jobs in order, behind whoever hands them over.

Handing over must cost next to nothing, and waking a thread costs more than all the rest. So the thread is woken once,
waits a moment for more to come, and does everything at once; unless somebody waits for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

J = TypeVar("J")

GATHER = 0.005
"""Seconds that the thread waits for more before it begins."""


class Worker(Generic[J]):
    """One thread, started when there is something to do. A forked child makes a new one.

    Args:
        work: Given what waits, in order; takes from its left what it has done.
        pause: What is done every so often while nothing else is.
        leave: What the thread does last.
        every: Seconds between two pauses.
    """

    def __init__(
        self,
        work: Callable[[deque[J]], None],
        *,
        pause: Callable[[], None],
        leave: Callable[[], None],
        every: float,
    ) -> None:
        self._does = work
        self._pause = pause
        self._leave = leave
        self._every = every
        self._jobs: deque[J] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ends = self._held = False
        self._wake = threading.Event()
        self._hurry = threading.Event()

    def put(self, job: J) -> None:
        """Hand over a job that nobody waits for."""
        self._jobs.append(job)
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self._start()

    def hurry(self, job: J) -> None:
        """Hand over a job that somebody waits for."""
        self._jobs.append(job)
        self._hurry.set()
        self._wake.set()
        self._start()

    def stop(self, timeout: float) -> None:
        """Do what waits, and end the thread.

        Args:
            timeout: Seconds to wait for that.
        """
        with self._lock:  # or it may not have been started yet
            thread = self._thread
        if thread is not None:
            self._ends = True
            self._hurry.set()
            self._wake.set()
            if thread is not threading.current_thread():  # a store may be collected here
                thread.join(timeout)

    def hold(self) -> bool:
        """Let no thread start until `let_go`; false if there is one already, or something waits for one."""
        self._lock.acquire()
        self._held = self._thread is None and not self._jobs
        if not self._held:
            self._lock.release()
        return self._held

    def let_go(self) -> None:
        """End what `hold` began."""
        if self._held:
            self._held = False
            self._lock.release()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ibidem keeper", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            if self._wake.wait(self._every):
                self._hurry.wait(GATHER)
            self._hurry.clear()
            self._wake.clear()  # before looking: what comes later wakes us again
            self._does(self._jobs)
            if self._ends:
                break
            self._pause()
        self._leave()
        with self._lock:
            self._thread, self._ends = None, False
        if self._jobs:  # somebody has handed one over who still saw a thread
            self._start()
