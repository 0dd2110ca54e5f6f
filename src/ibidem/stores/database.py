"""The database: `diskcache`, hardened, for the one thread that writes (`keeper.py`).

What `diskcache` would do and ours does not: pickle, value files, eviction, and whatever its `Settings` table says. Keys
are digests, values are records (`records.py`) that lie in their rows. A row's mode, file name and settings are never
followed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import diskcache

from ibidem.stores.reader import FILE, MODE

BUSY = 0.5
"""Seconds that one attempt waits for the write lock of another process."""

_SETTINGS: dict[str, Any] = {
    **diskcache.DEFAULT_SETTINGS,
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    "tag_index": 1,
    "sqlite_mmap_size": 0,  # a file that somebody truncates would end the process
    "sqlite_synchronous": 1,  # NORMAL: what was committed survives a killed process
}
_COUNTERS = ("count", "size", "hits", "misses")


class Corrupt(Exception):  # noqa: N818
    """What lies there is no database of ours, or a damaged one."""


class Unwritable(Exception):  # noqa: N818
    """The database cannot be written now; the message says why."""


class _Inline(diskcache.Disk):  # type: ignore[misc]
    """Keeps bytes in their row, and knows no other way."""

    def put(self, key: bytes) -> tuple[sqlite3.Binary, bool]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return sqlite3.Binary(key), True

    def get(self, key: bytes, raw: bool) -> bytes:  # noqa: ARG002
        return bytes(key)

    def store(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        value: bytes,
        read: bool,  # noqa: ARG002
        key: Any = None,  # noqa: ARG002
    ) -> tuple[int, int, None, sqlite3.Binary]:
        return len(value), MODE, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: bytes, read: bool) -> bytes:  # noqa: ARG002
        raise KeyError("values are read by reader.py")

    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:
        raise NotImplementedError("no value lies in a file")

    def remove(self, file_path: str) -> None:
        """Remove nothing: a name that stands in a row is never followed."""


class Database:
    """One open database.

    Args:
        folder: Where it is; made if need be, for its owner alone.

    Raises:
        Corrupt: There is something else, or a damaged database.
        Unwritable: It cannot be opened now.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with _translated():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made before SQLite does, which would let others read it; its side files take after it.
            os.close(os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            self._inode = (folder / FILE).stat().st_ino
            self._clean_settings()
            self._cache = diskcache.Cache(str(folder), timeout=cast("int", BUSY), disk=_Inline, **_SETTINGS)

    def _clean_settings(self) -> None:
        """Leave no setting but ours: `diskcache` does what the table says before it does what it is told."""
        with contextlib.closing(sqlite3.connect(self.folder / FILE, timeout=BUSY, isolation_level=None)) as plain:
            plain.execute("PRAGMA trusted_schema = OFF")
            objects = set(plain.execute("SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view')"))
            if not objects:
                return
            if objects != {("table", "Cache"), ("table", "Settings")}:
                raise Corrupt(f"it holds {sorted(name for _, name in objects)}")
            found = dict(plain.execute("SELECT key, value FROM Settings"))
            if any(not isinstance(found.get(name), int) for name in _COUNTERS):
                raise Corrupt("its counters are no numbers")
            if {name: value for name, value in found.items() if name not in _COUNTERS} != _SETTINGS:
                with plain:
                    plain.execute("BEGIN IMMEDIATE")
                    marks = ",".join("?" * len(_COUNTERS))
                    plain.execute(f"DELETE FROM Settings WHERE key NOT IN ({marks})", _COUNTERS)  # noqa: S608
                    plain.executemany("INSERT INTO Settings VALUES (?, ?)", _SETTINGS.items())

    @property
    def moved(self) -> bool:
        """Whether it was deleted or replaced under us."""
        try:
            return (self.folder / FILE).stat().st_ino != self._inode
        except OSError:
            return True

    def write(self, rows: Iterable[tuple[bytes, bytes, float | None, bytes]]) -> None:
        """Write rows, all or none: `(row, record, seconds to live, tag)`. The iterable is read inside the transaction.

        Raises:
            Corrupt: The database is damaged.
            Unwritable: Another process holds its lock, the disk is full, and the like.
        """
        with _translated(), self._cache.transact():
            for row, record, live, tag in rows:
                self._cache.set(row, record, expire=live, tag=tag)

    def delete(self, rows: Iterable[bytes]) -> None:
        """Delete rows, all or none."""
        with _translated(), self._cache.transact():
            for row in rows:
                self._cache.delete(row)

    def expire(self) -> int:
        """Delete what has outlived its time, and say how much that was."""
        with _translated():
            return int(self._cache.expire())

    def size(self) -> int:
        """Add up what the records take."""
        return sum(size for _, _, size in self._conversations())

    def sweep(self, before: float) -> int:
        """Delete the conversations that were last stored to before some time, and say how many entries that was.

        Args:
            before: Seconds since the epoch.
        """
        old = [tag for tag, stored_at, _ in self._conversations() if stored_at < before]
        return sum(self._evict(tag) for tag in old)

    def make_room(self, most: int, spared: Collection[bytes]) -> int:
        """Delete whole conversations, oldest first, and say how many entries that was.

        Args:
            most: The bytes down to which to delete.
            spared: The tags of conversations that stay.
        """
        found = self._conversations()
        left, swept = sum(size for _, _, size in found), 0
        for tag, _, size in found:
            if left <= most:
                break
            if tag not in spared:
                swept += self._evict(tag)
                left -= size
        return swept

    def _evict(self, tag: bytes) -> int:
        with _translated():
            return int(self._cache.evict(tag))

    def _conversations(self) -> list[tuple[bytes, float, int]]:
        """Give the tag of each conversation, when it was last stored to, and its bytes; oldest first."""
        with _translated(), self._plain() as plain:
            return plain.execute("SELECT tag, max(store_time), sum(size) FROM Cache GROUP BY tag ORDER BY 2").fetchall()

    def rows(self) -> list[bytes]:
        """Give the names of all rows."""
        with _translated(), self._plain() as plain:
            return [bytes(row) for (row,) in plain.execute("SELECT key FROM Cache ORDER BY rowid")]

    @contextlib.contextmanager
    def _plain(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.folder / FILE, timeout=BUSY)) as plain:
            yield plain

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._cache.close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Tell damage from what passes."""
    try:
        yield
    except diskcache.Timeout:
        raise Unwritable("another process holds its lock") from None
    except sqlite3.OperationalError as problem:
        if str(problem).startswith("no such"):
            raise Corrupt(str(problem)) from problem
        raise Unwritable(str(problem)) from problem
    except (sqlite3.Error, UnicodeDecodeError, TypeError, AttributeError) as problem:
        raise Corrupt(str(problem)) from problem
    except OSError as problem:
        raise Unwritable(str(problem)) from problem


def set_aside(folder: Path) -> Path:
    """Move a damaged database out of the way, and say where to."""
    aside = folder.with_name(f"set-aside-{time.time_ns()}")
    folder.rename(aside)
    return aside
