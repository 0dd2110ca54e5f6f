"""Journals: which changes each process of a store has under way, so that they outlive nobody who died in the middle.

A journal is a small file of counts, one for each slot of the board and their sum in front. Its process holds the lock
of the file for as long as it lives; all others have it mapped and only look. Whoever finds a journal that nobody holds
raises every slot that it counts, and removes it.

Journals come and go under the lock of the board, and `PROCESSES` on the board counts that: a process that sees another
number looks for the others anew. Only who cannot get the lock makes his without it, and writes a new number there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from ibidem.stores.board import FIRST, SLOTS, fill

SIZE = 4 * (FIRST + SLOTS)
"""Words of four bytes, at the same places as those of the board."""
SUM = 0
"""The word that holds the sum of all counts."""


class Journal:
    """The journal of one process, this one or another."""

    def __init__(self, path: Path, *, make: bool = False) -> None:
        self.path = path
        made = path.with_name(f"{path.name}-new") if make else path
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(made, flags | os.O_CREAT | os.O_EXCL if make else flags, 0o600)
        try:
            if make:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                fill(self._file, SIZE)
            self.counts = memoryview(mmap.mmap(self._file, SIZE)).cast("I")
            if make:
                made.rename(path)  # it has its name when it is whole and locked: nobody takes it for a dead one's
        except BaseException:
            os.close(self._file)
            if make:
                made.unlink(missing_ok=True)
            raise

    @classmethod
    def make(cls, folder: Path) -> Journal:
        """Make the journal of this process."""
        for _ in range(9):  # without the lock of the board: who joins may take the half of it for a dead one's
            with contextlib.suppress(FileNotFoundError):
                return cls(folder / f"{os.getpid()}-{secrets.token_hex(4)}", make=True)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))

    @property
    def open_slots(self) -> list[int]:
        """The slots of which changes are under way."""
        return [slot for slot in range(FIRST, FIRST + SLOTS) if self.counts[slot]] if self.counts[SUM] else []

    def abandoned(self) -> bool:
        """Whether its process is dead. The lock of the board is held."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, ValueError):  # ValueError: another thread has let go of it, and knows better
            return False
        return True

    def remove(self) -> None:
        """Take it away for good."""
        self.path.unlink(missing_ok=True)
        self.let_go()

    def let_go(self) -> None:
        """Close the file."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


_NO_JOURNAL = (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENODEV, errno.ENXIO)
"""What is found where a journal is gone again, or where something else stands in its place."""


def others(folder: Path, known: Iterable[Journal], own: Journal | None) -> list[Journal]:
    """Give the journals of the other processes, those already known as they are.

    Raises:
        OSError: One of them cannot be read now, and its process may live: descriptors are short, say.
    """
    by_path = {journal.path: journal for journal in known}
    found: list[Journal] = []
    new: list[Journal] = []
    for path in sorted(folder.iterdir()):
        if own is not None and path == own.path:
            continue
        journal = by_path.pop(path, None)
        if journal is None:
            try:
                journal = Journal(path)
            except ValueError:  # too short: its process died while it made it, or is just making it
                continue
            except OSError as problem:
                if problem.errno in _NO_JOURNAL:
                    continue
                for made in new:
                    made.let_go()
                raise
            new.append(journal)
        found.append(journal)
    for gone in by_path.values():
        gone.let_go()
    return found
