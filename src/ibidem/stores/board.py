"""The board: the stamps of a `Disk`, in a file that every process of the store has mapped into its memory.

A header of words, then `SLOTS` words, one for each hash of a cell: two cells in one slot forget too much, never too
little. Looking takes no lock. Whoever raises holds the lock of the file, for a few microseconds. Behind the slots are
`HINTS` bytes that say which rows the database may hold, so that most misses need not ask it.

Invariants:
- Only the holder of the lock writes, with two exceptions: `MARKS`, and who cannot get the lock in time writes a new
  number into `VOIDED`. As long as that is not what stands in `HEALED`, nothing is fresh for any process. Whoever gets the lock next
  raises every slot, and only then copies into `HEALED` what he had found in `VOIDED` before.
- Slots are raised before the sequence shows their number (`core/stamps.py` says why).
- The file is never larger or smaller: it is written full when it is made, so that no full disk is met later, in a mapping.

Rejected: stamps in SQLite (200 us to raise, and they wait for whoever holds its lock); a number for each process
(a snapshot would have to name them all); shared memory by name (it outlives nobody's restart, or everybody's).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
import os
import secrets
import sys
import threading
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from ibidem.stores.birth import birth_of

try:
    import fcntl
except ImportError:
    raise NotImplementedError(
        "a store on the disk takes the file locks of POSIX, which this platform lacks: use store=ibidem.Memory()"
    ) from None

SLOTS = 1 << 16
FIRST = 512
"""The word of the first slot; the words before it are the header."""
HINTS = 1 << 20
_HINTS = 8 * (FIRST + SLOTS)
SIZE = _HINTS + HINTS

MAGIC, SEQUENCE, BEGINNING, PURGED, PROCESSES, MARKS, VOIDED, HEALED, INODE, CLEAN, BIRTH = range(11)
"""Words of the header. `BEGINNING` is the number at which this life of the store began, `PURGED` that of the last purge;
`PROCESSES` counts who came and went, and `MARKS` is another number after each new mark, so that the others look again."""
_INCARNATION = slice(128, 144)
_BOOT = slice(144, 208)
"""Bytes of the header: the name of this life of the store, and the boot of the machine that it was last used in."""

_MAGIC = int.from_bytes(b"ibidem 1", "little")

_EXCLUSIVE, _UNLOCK = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN

LOOK = 0.05
"""Seconds between two looks whether the path still names the file: a deleted one is noticed at once, by whoever writes."""
PATIENCE = 0.25
"""Seconds that a thread waits for the lock."""
PATIENCE_ON_LOOP = 0.01
"""The same for a thread that runs an event loop: everybody else there waits with it."""


class Unavailable(Exception):  # noqa: N818
    """The file cannot be used; the message says why."""


class Gone(Exception):  # noqa: N818
    """The file was deleted or replaced under us."""


class Board:
    """One mapping of the file.

    Args:
        path: Where the file is; None for a board of this process alone, of which no other knows.
        last: The life that this process knew before, and the last number that it saw there: if the store has begun
            another life since, nothing that was read in the old one may pass for fresh.

    Raises:
        Unavailable: The file can neither be used nor made.
    """

    def __init__(self, path: Path | None, last: tuple[bytes, int] = (b"", 0)) -> None:
        self.path = path
        self._threads = threading.Lock()
        self._file = -1
        self._name = None if path is None else str(path)
        self._identity = (0, 0)
        self._origin = (0, 0)  # no copy of the file has it
        self._look_at = 0.0
        try:
            self._map = mmap.mmap(-1, SIZE) if path is None else self._open(path)
        except (OSError, ValueError) as problem:
            self.let_go()
            busy = isinstance(problem, TimeoutError)
            raise Unavailable("another process holds its lock" if busy else str(problem)) from problem
        self.words = memoryview(self._map)[:_HINTS].cast("Q")
        self.hints = memoryview(self._map)[_HINTS:]
        if path is None:
            self.renew(last[1] + 1)
            return
        try:
            with self.locked(PATIENCE):
                if self.words[MAGIC] != _MAGIC or (self.words[INODE], self.words[BIRTH]) != self._origin:
                    self.renew(last[1] + 1)  # new, half made, or a copy: what changes in the original is not known here
                elif self.incarnation != last[0] and self.words[BEGINNING] <= last[1]:
                    self.raise_all(last[1] + 1)
        except (TimeoutError, Gone) as problem:
            self.let_go()
            held = isinstance(problem, TimeoutError)
            raise Unavailable("another process holds its lock" if held else "it is replaced again and again") from None

    def _open(self, path: Path) -> mmap.mmap:
        """Map the file; where there is none, or something else, make one."""
        for _ in range(10):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            found = os.fstat(self._file)
            self._identity = found.st_dev, found.st_ino
            self._origin = found.st_ino, birth_of(self._file)
            with contextlib.suppress(Gone), self.locked(PATIENCE):
                size = os.fstat(self._file).st_size
                if size == 0:
                    fill(self._file, SIZE)
                    size = SIZE
                if size == SIZE:
                    return mmap.mmap(self._file, SIZE)
                path.rename(path.with_name(f"{path.name}.set-aside-{time.time_ns()}"))
            self.let_go()
        raise Unavailable(f"{path} is replaced again and again")

    def let_go(self) -> None:
        """Close the file. The mapping stays until nobody looks at it any more: another thread may be doing so now."""
        # First no longer ours, then closed: another thread must not find a number that means another file by now.
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    # -- the lock -----------------------------------------------------------------------------------------------------

    def acquire(self, patience: float | None = None) -> None:
        """Take the lock against all threads and processes.

        Args:
            patience: Seconds to wait for it; None: as long as this thread may wait.

        Raises:
            TimeoutError: Others held it all that time.
            Gone: The path names another file by now, or none.
        """
        if not self._threads.acquire(False) and not self._threads.acquire(True, _patience(patience)):
            raise TimeoutError
        if self.path is None:
            return
        try:
            if not self._flock():
                self._wait_for_file(_patience(patience))
        except BaseException:
            self._threads.release()
            raise
        if self._gone():
            self.release()
            raise Gone

    def _gone(self) -> bool:
        now = time.monotonic()
        if now > self._look_at:
            self._look_at = now + LOOK
            return self.moved
        try:
            return os.fstat(self._file).st_nlink == 0  # a third of the price of asking for the path
        except (OSError, ValueError):  # closed in the meantime
            return True

    def release(self) -> None:
        """Give the lock back."""
        try:
            if self.path is not None:
                fcntl.flock(self._file, _UNLOCK)
        except (OSError, ValueError):  # another thread has let go of the file, and of the lock with it
            pass
        finally:
            self._threads.release()

    @contextlib.contextmanager
    def locked(self, patience: float | None = None) -> Iterator[None]:
        """Hold the lock for a block, as `acquire` and `release` do."""
        self.acquire(patience)
        try:
            yield
        finally:
            self.release()

    def _flock(self) -> bool:
        try:
            fcntl.flock(self._file, _EXCLUSIVE)
        except BlockingIOError:
            return False
        except (OSError, ValueError):  # closed in the meantime: the number is another file's, or -1
            raise Gone from None
        return True

    def _wait_for_file(self, patience: float) -> None:
        ends = time.monotonic() + patience
        while not self._flock():
            if time.monotonic() > ends:
                raise TimeoutError
            time.sleep(0.0002)

    @property
    def moved(self) -> bool:
        """Whether the path names another file by now, or none."""
        if self._name is None:
            return False
        try:
            found = os.stat(self._name)  # noqa: PTH116  # on the way of every change
        except OSError:
            return True
        return found.st_ino != self._identity[1] or found.st_dev != self._identity[0]

    # -- what the lock is held for --------------------------------------------------------------------------------------

    def raise_(self, slots: Iterable[int]) -> int:
        """Raise some words, and give the number; where changes could not be recorded before, raise all."""
        words = self.words
        if words[VOIDED] != words[HEALED]:
            return self.raise_all()
        number = words[SEQUENCE] + 1
        for slot in slots:
            words[slot] = number
        words[SEQUENCE] = number
        return number

    def raise_all(self, at_least: int = 0) -> int:
        """Raise every word: nothing that was read before is fresh."""
        words = self.words
        voided = words[VOIDED]
        number = max(words[SEQUENCE] + 1, at_least)
        words[FIRST:] = memoryview(array("Q", [number]) * SLOTS)
        words[SEQUENCE] = number
        words[HEALED] = voided
        return number

    def renew(self, at_least: int = 0) -> None:
        """Begin a new life of the store: every entry of an earlier one is a miss."""
        # A clock for a start, so that no snapshot of an earlier life stands above it.
        self.words[BEGINNING] = self.raise_all(max(at_least, time.time_ns() // 1000))
        self.hints[:] = bytes(HINTS)
        self._map[_INCARNATION] = secrets.token_bytes(16)
        self.words[INODE], self.words[BIRTH] = self._origin
        self.words[MAGIC] = _MAGIC

    def void(self) -> None:
        """Say, without the lock, that something changed: nothing is fresh until somebody has recorded that."""
        self.words[VOIDED] = new_number()

    # -- the header -----------------------------------------------------------------------------------------------------

    @property
    def incarnation(self) -> bytes:
        """The name of this life of the store."""
        return self._map[_INCARNATION]

    def begin(self, boot: bytes | None, *, alone: bool) -> None:
        """Take the board into use. The lock is held.

        Args:
            boot: Names the time since the machine started; None where that cannot be told.
            alone: Whether no other process uses the store.

        Raises:
            Unavailable: A process of another machine uses it.
        """
        here = not alone if boot is None else self._map[_BOOT] == boot
        new = self._map[_BOOT] == bytes(64)  # deleted under those who are here: they come after us
        if not here and not alone and not new:
            raise Unavailable("a process on another machine uses it; a store belongs to one machine")
        if not here and not self.words[CLEAN]:
            self.renew()  # the machine went down: what it had not yet written to the disk is not known
        if self.words[CLEAN] or not here:
            self._map[_BOOT] = boot or bytes(64)
            self.words[CLEAN] = 0
            self._map.flush(0, mmap.PAGESIZE)

    def end(self) -> None:
        """Note that everything is on the disk. The lock is held, and no other process uses the store."""
        self._map.flush()
        self.words[CLEAN] = 1
        self._map.flush(0, mmap.PAGESIZE)


def _patience(given: float | None) -> float:
    if given is not None:
        return given
    return PATIENCE if asyncio._get_running_loop() is None else PATIENCE_ON_LOOP


def fill(file: int, size: int) -> None:
    """Write a new file full of zeros, so that no full disk is met later, in a mapping.

    Raises:
        OSError: The disk is full; the file is left empty.
    """
    if os.pwrite(file, bytes(size), 0) < size:
        os.ftruncate(file, 0)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def new_number() -> int:
    """Give a number that stood nowhere before: who sees another than he knows looks again, whatever it is."""
    return secrets.randbits(63) + 1


def renumber(path: Path, word: int) -> None:
    """Write a new number into a word of a board that this process could not map.

    Raises:
        OSError: The file cannot be written.
    """
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(file).st_size == SIZE:
            os.pwrite(file, new_number().to_bytes(8, sys.byteorder), 8 * word)
    finally:
        os.close(file)
