"""The guards that are alive, for whoever asks about all of them. Being listed here keeps none alive."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Any

from ibidem.core import forks


class Living:
    """Things in the order in which they were added, without those that are gone."""

    def __init__(self) -> None:
        # Not a WeakSet: it has no order, and neither of them may be listed while another thread adds.
        self._things: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()
        self._after_fork()
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def add(self, thing: Any) -> None:
        """Note a thing."""
        with self._lock:
            self._things[thing] = None

    def __iter__(self) -> Iterator[Any]:
        with self._lock:
            return iter(list(self._things))


GUARDS = Living()
"""Every guard of this process."""
