"""The reader: rows of the database, read by whoever asks, without a hop to another thread.

A row is read in a few microseconds, a hop takes fifty. SQLite's readers do not wait for its writers; where one must wait
all the same it gives up after milliseconds, and the database is left alone for a second. What is read is believed only if
`records.py` finds it authentic and the stamps find it fresh, so nothing here has to be right for an answer to be.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from pathlib import Path

from ibidem.stores.codec import LARGEST

FILE = "cache.db"
MODE = 1
"""The mode of a row whose value is bytes; every other one is a miss."""

BUSY = 0.005
"""Seconds that a read waits for SQLite."""
LONGEST = 0.1
"""Seconds after which a read is broken off: one row never takes that long, a table that is none could."""
REST = 1.0
"""Seconds that a database which does not answer is left alone."""

_ONE = f"SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1 AND length(value) <= {LARGEST}"  # noqa: S608
_ALL = "SELECT key FROM Cache WHERE raw = 1 AND length(key) = 32 ORDER BY rowid"
_IS_A_VIEW = "SELECT 1 FROM sqlite_master WHERE name = 'Cache' AND type <> 'table'"


class Reader:
    """Reads the rows of one database.

    Args:
        folder: Where it is; it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._abandoned: list[sqlite3.Connection] = []
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._look_at = 0.0
        self._ends = 0.0
        self._is_paused = False
        self._spoilt = False

    def pause(self) -> bool:
        """Close the connection and let nobody open another until `go_on`; false if that takes too long."""
        self._is_paused = self._lock.acquire(timeout=2 * LONGEST)
        if self._is_paused:
            self._drop()
        return self._is_paused

    def go_on(self) -> None:
        """End a pause."""
        if self._is_paused:
            self._is_paused = False
            self._lock.release()

    def after_fork(self, *, spoilt: bool) -> None:
        """Begin anew.

        Args:
            spoilt: SQLite was in use during the fork: it may wait for ever here, for a thread that is not there.
        """
        if self._connection is not None:
            self._abandoned.append(self._connection)
        self._begin()
        self._spoilt = spoilt

    def row(self, name: bytes) -> bytes | None:
        """Give what stands in a row; None if there is none, or none that is ours, or it cannot be read now."""
        now = time.monotonic()
        if not self._lock.acquire(True, 2 * BUSY):
            return None
        try:
            connection = self._connection
            if now > self._look_at:
                connection = self._look(now)
            if connection is None:
                return None
            self._ends = now + LONGEST
            found = connection.execute(_ONE, (name,)).fetchone()  # the cursor goes, and with it SQLite's snapshot
        except sqlite3.Error:
            self._drop()
            self._look_at = now + REST
            return None
        finally:
            self._lock.release()
        if found is None or found[0] != MODE or found[1] is not None or type(found[2]) is not bytes:
            return None
        return found[2]

    def names(self) -> list[bytes]:
        """Give the names of all rows."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            connection = self._look(time.monotonic())
            if connection is not None:
                self._ends = time.monotonic() + 60
                return [name for (name,) in connection.execute(_ALL) if type(name) is bytes]
        return []

    def _look(self, now: float) -> sqlite3.Connection | None:
        """Open the database when it is there, and another one when it was replaced."""
        self._look_at = now + REST
        if self._spoilt:
            return None
        try:
            inode = self._path.stat().st_ino
        except OSError:
            self._drop()
            self._look_at = now + 10 * BUSY
            return None
        if self._connection is None or inode != self._inode:
            self._drop()
            self._connection, self._inode = self._opened(), inode
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw", uri=True, timeout=BUSY, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in ("query_only = ON", "trusted_schema = OFF", "mmap_size = 0"):
                connection.execute(f"PRAGMA {pragma}")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * LARGEST)
            connection.set_progress_handler(lambda: time.monotonic() > self._ends, 10_000)
            self._ends = time.monotonic() + LONGEST
            if connection.execute(_IS_A_VIEW).fetchone() is not None:
                raise sqlite3.DatabaseError("its rows are a view, and may have no end")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        with self._lock:
            self._drop()
            self._look_at = 0.0
