"""Journals: which changes each process of a store has under way, so that they outlive nobody who died in the middle.

A journal is a small file of counts, one for each slot of the board and their sum in front. Its process holds the lock
of the file for as long as it lives; all others have it mapped and only look. Whoever finds a journal that nobody holds
raises every slot that it counts, and removes it.

Journals come and go under the lock of the board, and `PROCESSES` on the board counts that: a process that sees another
number looks for the others anew.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from ibidem.stores.board import FIRST, SLOTS

SIZE = 4 * (FIRST + SLOTS)
"""Words of four bytes, at the same places as those of the board."""
SUM = 0
"""The word that holds the sum of all counts."""


class Journal:
    """The journal of one process, this one or another."""

    def __init__(self, path: Path, *, make: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags | os.O_CREAT | os.O_EXCL if make else flags, 0o600)
        try:
            if make:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                os.pwrite(self._file, bytes(SIZE), 0)
            self.counts = memoryview(mmap.mmap(self._file, SIZE)).cast("I")
        except BaseException:
            os.close(self._file)
            if make:
                path.unlink(missing_ok=True)
            raise

    @classmethod
    def make(cls, folder: Path) -> Journal:
        """Make the journal of this process. The lock of the board is held."""
        return cls(folder / f"{os.getpid()}-{secrets.token_hex(4)}", make=True)

    @property
    def open_slots(self) -> list[int]:
        """The slots of which changes are under way."""
        return [slot for slot in range(FIRST, FIRST + SLOTS) if self.counts[slot]] if self.counts[SUM] else []

    def abandoned(self) -> bool:
        """Whether its process is dead. The lock of the board is held."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def remove(self) -> None:
        """Take it away for good. The lock of the board is held."""
        self.path.unlink(missing_ok=True)
        self.let_go()

    def let_go(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def others(folder: Path, known: Iterable[Journal], own: Journal | None) -> list[Journal]:
    """Give the journals of the other processes, those already known as they are."""
    by_path = {journal.path: journal for journal in known}
    found = []
    for path in sorted(folder.iterdir()):
        if own is not None and path == own.path:
            continue
        journal = by_path.pop(path, None)
        if journal is None:
            try:
                journal = Journal(path)
            except (OSError, ValueError):  # gone again, or no journal
                continue
        found.append(journal)
    for gone in by_path.values():
        gone.let_go()
    return found
