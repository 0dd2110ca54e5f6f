"""Notices: what a store tells of itself, to the logger `ibidem` and to whoever counts.

They stand apart from the store so that its thread, which tells most of it, does not keep the store alive.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from ibidem.core import forks
from ibidem.report.events import logger


class Notices:
    """The notices of one store.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._told: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._after_fork()
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def tell(self, text: str) -> None:
        """Warn, once of each kind: what stands in brackets, and the folder, do not tell kinds apart."""
        kind = text.replace(self._path, "").partition("(")[0]
        with self._lock:
            told = kind in self._told
            self._told.add(kind)
        if not told:
            logger.warning("%s", text)

    def report(self, count: int, what: str) -> None:
        """Count results, and what happened to them."""
        if count:
            with self._lock:
                self._counts[what] += count
            logger.debug("%s: %d results: %s", self._path, count, what)

    def counts(self) -> dict[str, int]:
        """Give the counts so far."""
        with self._lock:
            return dict(self._counts)
