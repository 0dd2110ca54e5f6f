"""Forks: a forked child has the locks of threads that are not there to release them, and none of their work."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that must be put right in a forked child."""

    def _after_fork(self) -> None:
        """Begin anew: fresh locks, and nothing that only another thread could finish."""


_registered: weakref.WeakSet[Forked] = weakref.WeakSet()


def after(thing: Forked) -> None:
    """Call `thing._after_fork()` in every forked child, for as long as the thing lives."""
    _registered.add(thing)


def _begin_anew() -> None:
    for thing in list(_registered):
        thing._after_fork()


os.register_at_fork(after_in_child=_begin_anew)
