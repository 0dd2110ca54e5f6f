"""Stamps: whether anything that a result depends on has changed since it was read.

One sequence counts every change. A cell (`resources.py`) holds the number of the last change that touched it. A read
takes the number as its snapshot before it runs; its result holds as long as no cell it looks at stands above the
snapshot. A write raises its cells when it opens and when it closes: in between, what a read saw may be half of it.

Invariants, kept under the lock; readers take none:
- A cell is raised *before* the sequence shows its number. The other way round a read could take a snapshot that
  already counts a change whose cells it does not see yet.
- A lookup that misses answers `floor`. Folding raises the floor to the sequence, then drops the cells: it forgets too
  much, never too little.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from ibidem.core import forks
from ibidem.core.resources import Cell


class Opening(Protocol):
    """A change under way."""

    def close(self, cells: Iterable[Cell]) -> None:
        """End it and raise these cells. Ending it again does nothing."""


class Stamps(Protocol):
    """What a store keeps so that nothing stale is served from it."""

    def now(self) -> int:
        """The number of the last change: the snapshot of a read that starts now."""
        ...

    def fresh(self, cells: Iterable[Cell], snapshot: int) -> bool:
        """Whether none of the cells has changed since the snapshot."""
        ...

    def still(self, cells: Iterable[Cell]) -> bool:
        """Whether no change of any of the cells is under way."""
        ...

    def alone(self, cells: Iterable[Cell]) -> bool:
        """Whether no other process has a change of any of the cells under way.

        Where one has, it may have died in the middle: the change is over then, and what it touched was not raised.
        """
        ...

    def touch(self, cells: Iterable[Cell]) -> None:
        """Raise the cells: a change that has happened."""

    def open(self, raised: Iterable[Cell], held: Iterable[Cell]) -> Opening:
        """Begin a change: raise the first cells now, and hold the second open until it closes."""
        ...


class MemoryStamps:
    """Stamps of one process.

    Args:
        limit: Cells kept apart; beyond it all are folded into one floor, which forgets every read.
    """

    def __init__(self, limit: int = 1 << 17) -> None:
        self._lock = threading.Lock()
        self._cells: dict[Cell, int] = {}
        self._open: Counter[Cell] = Counter()
        self._sequence = 0
        self._floor = 0
        self._limit = limit
        forks.after(self)

    def _after_fork(self) -> None:
        """Forget every read, and let go of changes that only the parent's threads could end."""
        self._lock = threading.Lock()
        self._open = Counter()
        self._raise(())
        self._floor, self._cells = self._sequence, {}

    def now(self) -> int:
        return self._sequence

    def fresh(self, cells: Iterable[Cell], snapshot: int) -> bool:
        if snapshot == self._sequence:
            return True
        lookup = self._cells.get  # bound before the floor is read: see the invariants
        floor = self._floor
        for cell in cells:  # noqa: SIM110  # three times as fast as all() with a generator, and on every hit
            if lookup(cell, floor) > snapshot:
                return False
        return True

    def still(self, cells: Iterable[Cell]) -> bool:
        held = self._open
        return not held or not any(cell in held for cell in cells)

    def alone(self, cells: Iterable[Cell]) -> bool:  # noqa: ARG002
        return True

    def touch(self, cells: Iterable[Cell]) -> None:
        with self._lock:
            self._raise(cells)

    def open(self, raised: Iterable[Cell], held: Iterable[Cell]) -> MemoryOpening:
        held = tuple(held)
        with self._lock:
            for cell in held:
                self._open[cell] += 1
            self._raise(raised)
        return MemoryOpening(self, held, self._open)

    def _close(self, held: tuple[Cell, ...], counted: Counter[Cell], raised: Iterable[Cell]) -> None:
        with self._lock:
            # Raise before letting go: a read that finds the cells still must also find them above its snapshot.
            self._raise(raised)
            for cell in held if counted is self._open else ():  # a fork inside a change has let go of it already
                counted[cell] -= 1
                if not counted[cell]:
                    del counted[cell]

    def _raise(self, cells: Iterable[Cell]) -> None:
        number = self._sequence + 1
        if len(self._cells) > self._limit:
            self._floor = number
            self._cells = {}
        for cell in cells:
            self._cells[cell] = number
        self._sequence = number


class MemoryOpening:
    """A change under way in this process."""

    __slots__ = ("_counted", "_held", "_stamps")

    def __init__(self, stamps: MemoryStamps, held: tuple[Cell, ...], counted: Counter[Cell]) -> None:
        self._stamps: MemoryStamps | None = stamps
        self._held = held
        self._counted = counted

    def close(self, cells: Iterable[Cell]) -> None:
        stamps, self._stamps = self._stamps, None
        if stamps is not None:
            stamps._close(self._held, self._counted, cells)
