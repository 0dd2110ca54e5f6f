"""Forks: a forked child has the locks of threads that are not there to release them, and none of their work."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import Protocol, TypeVar

T = TypeVar("T")


class Forked(Protocol):
    """Something that must be put right in a forked child."""

    def _after_fork(self) -> None:
        """Begin anew: fresh locks, and nothing that only another thread could finish."""


class Paused(Protocol):
    """Something that must stand still while the process forks."""

    def _before_fork(self) -> None:
        """Stand still; not for long, as the fork waits."""

    def _after_fork_in_parent(self) -> None:
        """Go on."""


_registered: weakref.WeakSet[Forked] = weakref.WeakSet()
_paused: weakref.WeakSet[Paused] = weakref.WeakSet()


def after(thing: Forked) -> None:
    """Call `thing._after_fork()` in every forked child, for as long as the thing lives."""
    _registered.add(thing)


def around(thing: Paused) -> None:
    """Let a thing stand still around every fork, for as long as it lives."""
    _paused.add(thing)


_one_at_a_time = threading.Lock()
_standing: list[Paused] = []
"""What stands still for the fork under way. Nothing of it may be collected meanwhile: its finalizer would wait for ever."""


def _pause() -> None:
    _one_at_a_time.acquire()
    _standing[:] = _all(_paused)
    for thing in _standing:
        with contextlib.suppress(Exception):  # the others must stand still all the same
            thing._before_fork()


def _go_on() -> None:
    try:
        for thing in _standing:
            with contextlib.suppress(Exception):
                thing._after_fork_in_parent()
    finally:
        _standing.clear()
        _one_at_a_time.release()


def _begin_anew() -> None:
    global _one_at_a_time  # noqa: PLW0603
    _one_at_a_time = threading.Lock()
    for thing in _all(_registered):
        thing._after_fork()
    _standing.clear()  # last: what is collected here takes locks that were held for the fork


def _all(things: weakref.WeakSet[T]) -> list[T]:
    while True:
        with contextlib.suppress(RuntimeError):  # another thread has added one
            return list(things)


os.register_at_fork(before=_pause, after_in_parent=_go_on, after_in_child=_begin_anew)
