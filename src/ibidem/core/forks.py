"""Forks: a forked child has the locks of threads that are not there to release them, and none of their work."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


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


def _pause() -> None:
    for thing in list(_paused):
        thing._before_fork()


def _go_on() -> None:
    for thing in list(_paused):
        thing._after_fork_in_parent()


def _begin_anew() -> None:
    for thing in list(_registered):
        thing._after_fork()


os.register_at_fork(before=_pause, after_in_parent=_go_on, after_in_child=_begin_anew)
